"""vLLM's engine behind vLLM's own OpenAI server, as an application of Ray Serve.

``ray.serve.llm`` runs an engine's workers as Ray actors only, puts a router before the replicas (the gateway balances
cells, and Serve's HAProxy the replicas of one), and imports vLLM in Serve's controller to build the application. Here
only a replica's processes import it.

Cells over several hosts still use ``ray.serve.llm``: only Ray can start workers on another host.
"""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ray import serve

from serving import replica, usage
from serving.engines import cache
from serving.engines.cpu_binding import Share, bind

logger = logging.getLogger("ray.serve")


def server_arguments(model: str, path: str, given: dict[str, Any]) -> Namespace:
    """vLLM's arguments (engine and server), as its command line has them, with ``given`` in place of the defaults.

    Raises ``ValueError`` for one that vLLM does not know.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    for name, value in {**given, "model": path, "served_model_name": [model]}.items():
        if not hasattr(arguments, name):
            raise ValueError(f"Unknown engine argument: {name}")
        setattr(arguments, name, value)
    if arguments.lora_modules:  # in the plan's words; the command line would make them this
        arguments.lora_modules = [LoRAModulePath(**one) for one in arguments.lora_modules]
    if arguments.distributed_executor_backend is None:
        # In a Ray actor vLLM would take Ray's executor. "uni": the worker is in the engine's process, except on
        # processors, where vLLM makes it "mp" (platforms/cpu.py).
        devices = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
        arguments.distributed_executor_backend = "uni" if devices == 1 else "mp"
    validate_parsed_serve_args(arguments)
    return arguments


@serve.deployment(name="vllm")
@serve.ingress()
class Vllm:
    """One replica: an engine and its server."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        model: str,
        path: str,
        arguments: dict[str, Any],
        shares: list[dict[str, Any]] | None = None,
        devices: list[dict[str, str]] | None = None,
    ) -> None:
        # Serve numbers the replicas of a deployment from 0, and gives the number of one that died to the one in its
        # place: each share, and each set of accelerators, has one replica.
        rank = serve.get_replica_context().rank.rank if shares or devices else 0
        if shares:
            logger.info("Replica %d has %s", rank, bind(Share(**shares[rank % len(shares)])))
        if devices:
            os.environ.update(devices[rank % len(devices)])
            logger.info("Replica %d has %s", rank, devices[rank % len(devices)])
        # Only now: the engine reads its variables when it is imported.
        logger.info("What is compiled is kept in %s", cache.keep_compiled(Path(path)))
        from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client

        self.arguments = server_arguments(model, path, arguments)
        self.running = AsyncExitStack()
        self.engine = await self.running.enter_async_context(build_async_engine_client(self.arguments))
        usage.count_outputs(self.engine)

    async def __serve_build_asgi_app__(self) -> Any:
        """What Serve asks for the server, once the engine is there."""
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        tasks = await self.engine.get_supported_tasks()
        app = build_app(self.arguments, tasks, self.engine.model_config)
        await init_app_state(self.engine, app.state, self.arguments, tasks)
        app.state.server = replica.EndsReplica()
        return replica.answer_with(app, cache.usage_book(serve.get_replica_context().app_name))

    async def check_health(self) -> None:
        """Called by Serve every two seconds."""
        try:
            await self.engine.check_health()
        except Exception as fault:
            replica.end(fault)

    async def __del__(self) -> None:
        """Serve calls it when the replica is stopped."""
        await self.running.aclose()


def app(args: dict[str, Any]) -> serve.Application:
    """Builder of the application, as Serve's configuration names it: ``model``, ``path``, ``engine_kwargs``,
    ``deployment`` (options of Serve), ``shares`` (cores of each replica on a host of processors) and ``devices``
    (variables of each replica that name its accelerators)."""
    deployment = Vllm.options(**args["deployment"])  # type: ignore[attr-defined]
    more = args.get("shares"), args.get("devices")
    return deployment.bind(args["model"], args["path"], args["engine_kwargs"], *more)
