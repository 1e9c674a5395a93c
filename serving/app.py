"""An engine that has no server of its own, as an application of Ray Serve."""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

from ray import serve

from serving import replica
from serving.engines import cache
from serving.engines.cpu_binding import Share, bind
from serving.openai.surface import build

logger = logging.getLogger("ray.serve")

# Engine -> module with its ``Arguments`` (a pydantic model) and ``load(path, arguments)``.
ENGINES = {name: f"serving.engines.{name}" for name in ("bigdl", "echo", "onnx", "openvino")}


def arguments_of(engine: str, given: dict[str, Any]) -> Any:
    """An engine's arguments. Raises ``ValueError`` for one that it does not know or that has a wrong value."""
    kind = importlib.import_module(ENGINES[engine]).Arguments
    for name in given:
        if name not in kind.model_fields:
            raise ValueError(f"Unknown engine argument: {name}")
    return kind.model_validate(given)


@serve.deployment(name="engine")
@serve.ingress()
class Replica:
    """One replica: an engine and its server."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        engine: str,
        model: str,
        path: str,
        arguments: dict[str, Any],
        waiting: int,
        shares: list[dict[str, Any]] | None = None,
    ) -> None:
        if shares:
            rank = serve.get_replica_context().rank.rank
            logger.info("Replica %d has %s", rank, bind(Share(**shares[rank % len(shares)])))
        module = importlib.import_module(ENGINES[engine])
        wanted = arguments_of(engine, arguments)
        # Loading converts the weights at the first time, which may take minutes.
        self.engine = await asyncio.to_thread(module.load, path, wanted)
        self.web = build(self.engine, model, engine, waiting)

    async def __serve_build_asgi_app__(self) -> Any:
        """What Serve asks for the server, once the engine is there."""
        return replica.answer_with(self.web, cache.usage_book(serve.get_replica_context().app_name))

    async def check_health(self) -> None:
        """Called by Serve every two seconds."""
        try:
            self.engine.check()
        except Exception as fault:
            replica.end(fault)

    async def __del__(self) -> None:
        """Serve calls it when the replica is stopped."""
        engine = getattr(self, "engine", None)
        if engine is not None:
            await asyncio.to_thread(engine.close)


def app(args: dict[str, Any]) -> serve.Application:
    """Builder of the application, as Serve's configuration names it.

    ``engine``, ``model``, ``path``, ``engine_kwargs``, ``deployment`` (options of Serve), ``waiting`` (requests that
    may wait) and ``shares`` (cores of each replica).

    A wrong engine argument fails here, before a replica starts.
    """
    arguments_of(args["engine"], args["engine_kwargs"])
    deployment = Replica.options(**args["deployment"])  # type: ignore[attr-defined]
    given = (args[key] for key in ("engine", "model", "path", "engine_kwargs", "waiting"))
    return deployment.bind(*given, args.get("shares"))
