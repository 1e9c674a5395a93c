"""What a cell's Ray Serve is asked to run, and what its answers mean. Pure functions over the plan and Serve's JSON.

Configuration and status are those of Serve's REST API (ray/serve/schema.py: ServeDeploySchema, ServeInstanceDetails).
A cell over several hosts has Ray Serve LLM's in it (ray/llm/_internal/serve/core/configs/llm_config.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..cluster.evidence import Evidence
from ..common.advice import advice
from ..common.logs import last_error
from ..plan.model_shape import QUANTIZATIONS
from ..plan.schema import Cell, PlannedModel
from .engine_environment import visible_devices
from .resources import RAY_RESOURCES

# Of cells over several hosts, whose requests pass Serve: they wait inside the engine, where continuous batching picks
# them up, and not in front of it.
MAX_ONGOING_REQUESTS = 1024
MAX_WAITING = 512  # in front of an engine of ours; more are answered 429
ONLINE = tuple(item.name for item in QUANTIZATIONS.values() if item.online)
Application = tuple[str, dict[str, Any]]  # import path and arguments


def serve_config(
    cell: Cell, model: PlannedModel, path: str, address: str, beside: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The whole Serve configuration of a cell: one application, one model, ``path`` its weights on the host.

    ``beside`` has the folders of what the engine loads beside them, by its name in the plan.
    """
    deployment = {
        "num_replicas": len(cell.replicas),
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "graceful_shutdown_timeout_s": 30,
        # A replica whose engine has died exits at the next check. The default is ten seconds.
        "health_check_period_s": 2,
        # Serve would write two lines for each request.
        "logging_config": {"enable_access_log": False},
    }
    cell = replace(cell, engine_args={**cell.engine_args, **_beside_args(cell, model, beside or {})})
    application, args = ADAPTERS[cell.engine](cell, model, path, deployment)
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": address, "port": cell.ports["serve"]},
        "applications": [{"name": cell.name, "route_prefix": "/", "import_path": application, "args": args}],
    }


def _beside_args(cell: Cell, model: PlannedModel, paths: Mapping[str, str]) -> dict[str, Any]:
    """vLLM's arguments that name folders of the host, which the plan does not know."""
    args: dict[str, Any] = {}
    if model.adapters:
        args["lora_modules"] = [{"name": one.name, "path": paths[one.name]} for one in model.adapters]
    guess = cell.engine_args.get("speculative_config") or {}
    if model.draft is not None and guess.get("method") == "draft_model":
        args["speculative_config"] = {**guess, "model": paths[model.draft.name]}
    return args


def _vllm(cell: Cell, model: PlannedModel, path: str, deployment: dict[str, Any]) -> Application:
    engine: dict[str, Any] = {
        "tensor_parallel_size": cell.tensor_parallel_size,
        "max_model_len": cell.limits.max_model_len,
        "max_num_seqs": cell.limits.max_num_seqs,
        "dtype": model.dtype,
        # A checkpoint that is quantised says so itself.
        **({"quantization": model.quantization} if model.quantization in ONLINE else {}),
        **cell.engine_args,
    }
    if len(cell.hosts) > 1:
        # Only Ray can start workers on another host.
        llm = {
            "model_loading_config": {"model_id": model.name, "model_source": path},
            "engine_kwargs": engine,
            "deployment_config": deployment,
        }
        return "ray.serve.llm:build_openai_app", {"llm_configs": [llm]}
    # For Ray's bookkeeping: a place for the replica, and the accelerators that its engine is to see.
    places: dict[str, Any] = {"num_cpus": 1}
    if cell.vendor in RAY_RESOURCES:
        places["resources"] = {RAY_RESOURCES[cell.vendor]: cell.tensor_parallel_size}
    elif cell.vendor != "cpu":
        places["num_gpus"] = cell.tensor_parallel_size
    args: dict[str, Any] = {
        "model": model.name,
        "path": path,
        "engine_kwargs": engine,
        "deployment": {**deployment, "ray_actor_options": places},
        # A replica with the host to itself binds as vLLM does by itself.
        **_shares(cell),
        **_devices(cell),
    }
    return "serving.engines.vllm_server:app", args


def _shares(cell: Cell) -> dict[str, Any]:
    """Cores of each replica; nothing for one that has the host to itself, which takes all of them."""
    shares = [
        {"cores": one.cores, "node": one.numa_node, "first": one.first_core}
        for one in cell.replicas
        if one.first_core is not None
    ]
    return {"shares": shares} if shares else {}


def _devices(cell: Cell) -> dict[str, Any]:
    """Variables of each replica under the runtime ray. Ray by itself gives any of a cell's accelerators to a replica,
    not those that the fast link joins, and on a host with GPUs of two vendors it sets the variable of one of them.
    """
    given = [visible_devices(cell.vendor, one.visible[0]) for one in cell.replicas if one.visible]
    return {"devices": given} if given else {}


def _own_surface(cell: Cell, model: PlannedModel, path: str, deployment: dict[str, Any]) -> Application:
    """Engines without a server of their own: ours around them (serving/app.py)."""
    engine: dict[str, Any] = {"max_model_len": cell.limits.max_model_len}
    waiting = MAX_WAITING
    if cell.engine != "echo":
        engine["max_num_seqs"] = cell.limits.max_num_seqs
        engine["kv_cache_tokens"] = cell.limits.kv_cache_tokens
        # Who is farther behind had better ask another cell: an answer takes seconds here.
        waiting = min(MAX_WAITING, max(16, 4 * cell.limits.max_num_seqs))
    args: dict[str, Any] = {
        "engine": cell.engine,
        "model": model.name,
        "path": path,
        "engine_kwargs": {**engine, **cell.engine_args},
        "deployment": {**deployment, "ray_actor_options": {"num_cpus": 1}},
        "waiting": waiting,
        **_shares(cell),
    }
    return "serving.app:app", args


# Engine -> what Serve runs for it.
ADAPTERS: dict[str, Callable[[Cell, PlannedModel, str, dict[str, Any]], Application]] = {
    "vllm": _vllm,
    "onnx": _own_surface,
    "openvino": _own_surface,
    "bigdl": _own_surface,
    "echo": _own_surface,
}


@dataclass(frozen=True)
class Verdict:
    """What Serve says of one application. ``done`` means that waiting longer changes nothing."""

    done: bool
    ok: bool
    text: str  # one line
    detail: str = ""  # Serve's messages as they are, with tracebacks


_TRACEBACK = re.compile(r" Error:|:?\s+Traceback \(most recent call last\)")


def verdict(details: dict[str, Any], name: str) -> Verdict:
    """Judge the application ``name`` in Serve's instance details."""
    application = details.get("applications", {}).get(name)
    if application is None:
        return Verdict(False, False, "Serve does not know the application yet")
    status = application.get("status", "")
    if status == "RUNNING":
        return Verdict(True, True, "running")
    messages = [application.get("message") or ""]
    for title, deployment in (application.get("deployments") or {}).items():
        if deployment.get("status") != "HEALTHY" and deployment.get("message"):
            messages.append(f"{title}: {deployment['message']}")
    # Serve's sentence stands before the traceback, which it calls "Error:" or not at all.
    text = " ".join(" ".join(_TRACEBACK.split(message)[0] for message in messages).split())
    detail = "\n".join(messages)
    if status in ("DEPLOY_FAILED", "UNHEALTHY"):
        return Verdict(status == "DEPLOY_FAILED", False, text or status, detail)
    return Verdict(False, False, text or status.lower().replace("_", " "), detail)


def up_to_date(details: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether Serve already runs exactly the wanted application, and no other."""
    running = details.get("applications", {})
    names = {application["name"] for application in wanted["applications"]}
    if set(running) != names:
        return False
    return all(
        running[application["name"]].get("deployed_app_config", {}).get(key) == value
        for application in wanted["applications"]
        for key, value in application.items()
    )


def explain(status: str, log: str, memory_available: int, memory_needed: int) -> str:
    """One sentence: what Serve says, the last error of ``log``, and what to do.

    ``log`` holds Serve's messages and the replica's log. Memory in bytes: what the host has free, and what the plan
    gives the cell.
    """
    error = last_error(log)
    todo = advice("serve", error or log[-4000:])
    if not todo and memory_available < memory_needed // 2:
        todo = (
            f"the host has {memory_available / 1e9:.1f} GB of memory free and the cell was planned with"
            f" {memory_needed / 1e9:.1f} GB"
        )
    parts = [" ".join(status.split())[:300]]
    if error and error not in status:
        parts.append(f"last error: {error}")
    if todo:
        parts.append(todo)
    return "; ".join(part.rstrip(".") for part in parts)


def applications(evidence: Evidence) -> dict[str, Any]:
    """Serve's applications as KubeRay shows them, in the words of Serve's own REST API."""
    status = (evidence.service or {}).get("status") or {}
    found: dict[str, Any] = {}
    # While a cluster is pending the active one's applications are not in the status.
    for which in ("activeServiceStatus", "pendingServiceStatus"):
        for name, one in ((status.get(which) or {}).get("applicationStatuses") or {}).items():
            found[name] = {
                "status": one.get("status", ""),
                "message": one.get("message", ""),
                "deployments": one.get("serveDeploymentStatuses") or {},
            }
    return {"applications": found}
