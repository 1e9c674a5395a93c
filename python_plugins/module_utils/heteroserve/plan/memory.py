"""What a replica takes of a host's memory: weights, overhead and the KV cache that is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..inventory.models import ModelRequest
from . import efficiencies as table
from .bays import Bay, gpu_memory
from .model_shape import QUANTIZATIONS, ModelShape
from .request import PlanOptions
from .roofline import BATCHING_ENGINES, Deployment
from .schema import Limits, PlannedModel

GIB = 1024**3
GB = 1e9
MORE_MEMORY = "add a host with more memory"


@dataclass(frozen=True)
class Wanted:
    """A model with everything that the request left out filled in."""

    request: ModelRequest
    shape: ModelShape
    planned: PlannedModel
    draft: ModelShape | None = None

    @property
    def name(self) -> str:
        """What clients call."""
        return self.request.name


@dataclass(frozen=True)
class Misfit:
    """Why a replica cannot run there. The smaller ``rank`` and ``lack``, the nearer it came."""

    text: str
    change: str = ""  # what helps where no setting of the model does
    rank: int = 0  # 0: memory, 1: too slow, 2: not allowed by a wish, 3: never
    lack: float = 0.0
    # Keys of the model's entry that may help, with their new values (None: remove it). See ``remedies``.
    settings: tuple[tuple[str, Any], ...] = ()
    note: str = ""


def activation_bytes(shape: ModelShape, size: int, tokens: int, sequences: int, width: int = 2) -> int:
    """Peak beside weights and cache in a step of ``tokens``: residual and MLP of a layer, logits of the sampler."""
    layer = tokens * width * (2 * shape.hidden + 3 * shape.intermediate // size)
    return layer + sequences * shape.vocab * (width + 8)


def gpu_cache(wanted: Wanted, deployment: Deployment, bay: Bay, requests: int, step_tokens: int) -> tuple[int, int]:
    """Bytes that each accelerator of a replica has for the KV cache, and bytes of overhead beside the weights.

    vLLM takes its share of each accelerator and gives what is left to the KV cache.
    """
    size, stages = deployment.tensor_parallel_size, deployment.pipeline_parallel_size
    weights = deployment.held_bytes // (size * stages)
    overhead = table.GPU_CONTEXT.value + table.GPU_GRAPHS.value
    overhead += table.GPU_COLLECTIVES.value if size * stages > 1 else 0
    overhead += activation_bytes(wanted.shape, size, step_tokens, requests)
    return gpu_memory(bay.device) - weights - int(overhead), int(overhead)


def gpu_cache_tokens(wanted: Wanted, deployment: Deployment, bay: Bay, requests: int, step_tokens: int) -> int:
    """Tokens of KV cache, no more than the model's entry asks for."""
    devices = deployment.tensor_parallel_size * deployment.pipeline_parallel_size
    left, _ = gpu_cache(wanted, deployment, bay, requests, step_tokens)
    asked = wanted.request.kv_cache_gib
    cache = left if asked is None else min(left, int(asked * GIB) // devices)
    return max(0, cache) // kv_bytes_on_device(deployment)


def gpu_limits(wanted: Wanted, deployment: Deployment, bay: Bay, requests: int, step_tokens: int) -> Limits | Misfit:
    """Memory of a GPU replica that runs ``requests`` at once, in steps of at most ``step_tokens``."""
    request, context = wanted.request, wanted.planned.context
    devices = deployment.tensor_parallel_size * deployment.pipeline_parallel_size
    left, overhead = gpu_cache(wanted, deployment, bay, requests, step_tokens)
    token = kv_bytes_on_device(deployment)
    cache = left if request.kv_cache_gib is None else int(request.kv_cache_gib * GIB) // devices
    if cache > left or cache < context * token:
        return _short_of_memory(wanted, deployment, bay, max(context * token, min(cache, 1 << 60)), left, overhead)
    budget = gpu_memory(bay.device)
    workers = int(table.GPU_WORKER_PROCESS.value) * devices
    return Limits(
        max_model_len=context,
        max_num_seqs=requests,
        kv_cache_bytes=cache * devices,
        kv_cache_tokens=cache // token,
        memory_bytes=(budget if request.kv_cache_gib is None else budget - left + cache) * devices,
        host_memory_bytes=int(table.RAY_PROCESSES.value) * deployment.pipeline_parallel_size + workers,
    )


def kv_bytes_on_device(deployment: Deployment) -> int:
    """Bytes of KV cache a token takes on each accelerator: heads are divided, but one at least lies on each."""
    dtype, total = deployment.kv_cache_dtype or deployment.dtype, 0
    for shape in (deployment.shape, *([deployment.draft] if deployment.draft else ())):
        heads = max(1, shape.kv_heads // deployment.tensor_parallel_size)
        total += shape.kv_bytes_per_token(dtype) * heads // shape.kv_heads
    return total // deployment.pipeline_parallel_size


def weights_in_words(deployment: Deployment) -> str:
    """How much memory the weights take, in which form, and what beside the model's is in that."""
    form = deployment.quantization or deployment.dtype
    also = [name for name, there in (("the draft model", deployment.draft), ("adapters", deployment.adapters)) if there]
    more = f" (with {deployment.beside_bytes / GB:.1f} GB for {' and '.join(also)})" if also else ""
    return f"{deployment.held_bytes / GB:.1f} GB at {form}{more}"


def _short_of_memory(wanted: Wanted, deployment: Deployment, bay: Bay, cache: int, left: int, overhead: int) -> Misfit:
    devices = deployment.tensor_parallel_size * deployment.pipeline_parallel_size
    need = deployment.held_bytes + (cache + overhead) * devices
    have = gpu_memory(bay.device) * devices
    used = f"{devices}x {bay.device.kind}"
    text = (
        f"{wanted.name} needs {weights_in_words(deployment)}, {cache * devices / GB:.1f} GB of KV cache for "
        f"{wanted.planned.context} tokens and {overhead * devices / GB:.1f} GB of overhead; {used} "
        f"{'has' if devices == 1 else 'have'} {have / GB:.1f} GB to give and lacks {(need - have) / GB:.1f} GB"
    )
    if devices > 1:
        text = text.replace(" and lacks ", " and lack ")
    misfit = Misfit(text, "", 0, (need - have) / have)
    if wanted.request.kv_cache_gib is not None:
        return replace(misfit, settings=(("kv_cache_gib", None),), change=MORE_MEMORY)
    return smaller(misfit, wanted, have - overhead * devices, deployment, bay.vendor)


def smaller(misfit: Misfit, wanted: Wanted, room: float, deployment: Deployment, vendor: str) -> Misfit:
    """The misfit with what makes the model fit into ``room`` bytes."""
    shape, context = wanted.shape, wanted.planned.context
    weights, beside = deployment.held_bytes, deployment.beside_bytes
    token = deployment.held_kv_bytes
    least = shape.weight_bytes(deployment.dtype, "awq") + beside
    if least + min(context, 4096) * token <= room:
        misfit = replace(misfit, change=f"use a checkpoint quantised to 4 bit ({least / GB:.1f} GB)")
    else:
        misfit = replace(misfit, change=f"{MORE_MEMORY}: even at 4 bit the weights are {least / GB:.1f} GB")
    if room - weights > 2048 * token and context > 2048:
        shorter = min(context - 1, int((room - weights) // token)) // 1024 * 1024
        return replace(misfit, settings=(("context", shorter),))
    for method in QUANTIZATIONS.values() if deployment.quantization is None else ():
        size = shape.weight_bytes(deployment.dtype, method.name) + beside
        usable = method.online and vendor in method.vendors and deployment.engine in method.engines
        if usable and size + min(context, 4096) * token <= room:
            return replace(misfit, settings=(("quantization", method.name),), note=f"({size / GB:.1f} GB)")
    return misfit


def cpu_limits(wanted: Wanted, deployment: Deployment, bay: Bay, options: PlanOptions) -> Limits | Misfit:
    """Memory of a CPU replica: weights, the engine's process, and a KV cache in whole GiB (vLLM's unit there)."""
    request, shape, context = wanted.request, wanted.shape, wanted.planned.context
    weights = deployment.held_bytes
    token = deployment.held_kv_bytes
    batching, whole_gib = deployment.engine in BATCHING_ENGINES, deployment.engine == "vllm"
    asked = request.max_num_seqs or (32 if batching else 1)
    process = int(table.CPU_ENGINE_PROCESS.value) + activation_bytes(shape, 1, 2048 if batching else 512, asked)
    modest = max(1, int(bay.device.memory * table.CPU_KV_SHARE.value / GIB)) * GIB
    if request.kv_cache_gib is not None:
        cache = int(request.kv_cache_gib * GIB)
    else:
        cache = max(context * token, min(asked * context * token, modest))
    cache = -(-cache // GIB) * GIB if whole_gib else cache
    memory = weights + process + cache
    ray = int(table.RAY_PROCESSES.value)
    if memory + ray > bay.device.memory or cache < context * token:
        lack = memory + ray - bay.device.memory
        text = (
            f"{wanted.name} needs {weights_in_words(deployment)}, {cache / GB:.1f} GB of KV cache and "
            f"{(process + ray) / GB:.1f} GB for the engine and Ray; {bay.unit_cores} cores have "
            f"{bay.device.memory / GB:.1f} GB of RAM to give and lack {lack / GB:.1f} GB"
        )
        if lack <= 0:
            text = f"{wanted.name}: kv_cache_gib {request.kv_cache_gib} holds {cache // token} tokens of {context}"
            return Misfit(text, MORE_MEMORY, settings=(("kv_cache_gib", -(-context * token // GIB)),))
        misfit = Misfit(text, "", 0, lack / max(1, bay.device.memory))
        if request.kv_cache_gib is not None:
            return replace(misfit, settings=(("kv_cache_gib", None),), change=MORE_MEMORY)
        room = bay.device.memory - process - ray
        whole = weights + max(0, room - weights) // GIB * GIB if whole_gib else room
        return smaller(misfit, wanted, min(room, whole), deployment, "cpu")
    tokens = cache // token
    length = max(options.prompt_tokens + options.output_tokens, int(context * table.CONTEXT_FILL.value))
    sequences = request.max_num_seqs or (max(16, min(32, tokens // length)) if batching else 1)
    return Limits(
        max_model_len=context,
        max_num_seqs=sequences,
        kv_cache_bytes=cache,
        kv_cache_tokens=tokens,
        memory_bytes=memory,
        host_memory_bytes=memory + ray,
    )
