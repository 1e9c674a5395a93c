"""Can this model run in that bay, how, and if not, what is the arithmetic reason?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..common.names import backend_name, weights_folder
from ..inventory.models import ModelRequest
from . import efficiencies as table
from .batching import Batching, batching
from .bays import Bay, HostShape, available
from .builds import build_of
from .memory import GB, Misfit, Wanted, cpu_limits, gpu_cache_tokens, gpu_limits
from .model_shape import QUANTIZATIONS, ModelShape, normal_dtype
from .parsers import Parsers, parsers_for
from .request import PlanOptions, draft_shape_of, lora_rank, splits
from .roofline import Deployment, Device, expect
from .schema import Beside, Expectation, Limits, PlannedModel

ONLY_VLLM = ("prefix_caching", "speculative_tokens", "draft", "lora_adapters")
CPU_QUANTIZATION = {"bigdl": "sym_int8", "onnx": "int8"}
STAGES = (2, 3, 4, 6, 8)
HERE = "HERE"  # in a misfit's `hosts`: the host that it is about
NO_SETTING = "serve the model from another host"
NO_ISA = "neither AVX2 nor AVX-512 (nor Advanced SIMD on Arm)"
ISA_CHANGE = (
    "give a virtual machine the processor of its host (libvirt: host-passthrough), declare what it has "
    "(`hardware.cpu.isa`), or leave the host out of `serving`"
)


@dataclass(frozen=True)
class Fit:
    """One way to run a replica: a bay of a host shape, an engine and a tensor_parallel_size."""

    model: str
    bay: int  # index into HostShape.bays
    kind: str
    vendor: str
    engine: str
    build: str
    tensor_parallel_size: int
    stages: int  # hosts that a replica spans
    device: Device
    deployment: Deployment
    limits: Limits
    engine_args: dict[str, Any]
    batching: Batching | None  # of a GPU
    capacity: float  # bytes/s of memory bandwidth taken: what `share` shares out
    score: float  # expected tokens/s for each GB/s of capacity at the planned load
    cores: int = 0
    parsers: Parsers | None = None  # of vLLM

    @property
    def pool(self) -> tuple[str, str, str, int, int]:
        """Replicas with equal keys form one pool."""
        return (self.model, self.kind, self.engine, self.tensor_parallel_size, self.stages)

    def expected(self, replicas: int, options: PlanOptions) -> tuple[Expectation, ...]:
        """What ``replicas`` of these do at 1, 32, 256 requests each and at max_num_seqs, as far as that lets them."""
        most = self.limits.max_num_seqs
        levels = sorted({level for level in (1, 32, 256) if level <= most} | {most})
        out = []
        for level in levels:
            one = expect(self.deployment, self.device, level, options.prompt_tokens, options.output_tokens)
            speed = round(one.tokens_per_s * replicas, 1)
            out.append(replace(one, concurrency=level * replicas, tokens_per_s=speed))
        return tuple(out)


def fits(wanted: Wanted, host: HostShape, options: PlanOptions, stages: int = 1) -> tuple[list[Fit], list[Misfit]]:
    """Every way to run a replica on an empty host of this shape, and why the other ways fail."""
    if wanted.request.engines:
        each = [
            fits(replace(wanted, request=replace(wanted.request, engine=engine, engines=())), host, options, stages)
            for engine in wanted.request.engines
        ]
        every = [fit for some, _ in each for fit in some]
        every.sort(key=lambda fit: (-fit.score, fit.tensor_parallel_size, fit.bay))
        return every, [misfit for _, some in each for misfit in some]
    found: list[Fit] = []
    failed: list[Misfit] = []
    if wanted.request.hosts and wanted.name not in host.allowed:
        where = ", ".join(wanted.request.hosts)
        settings = (("hosts", (*wanted.request.hosts, HERE)),)
        return [], [Misfit(f"{wanted.name} is pinned to {where}", NO_SETTING, 2, settings=settings)]
    for number, bay in enumerate(host.bays):
        refusal = _refusal(wanted, bay, options)
        if refusal is not None:
            failed.append(refusal)
            continue
        for size in _sizes(wanted, bay):
            if stages > 1 and (bay.vendor == "cpu" or size != max(_divisors(wanted, bay))):
                continue  # only whole hosts are joined
            outcome = _fit(wanted, bay, number, size, stages, options)
            if isinstance(outcome, Fit) and outcome.limits.host_memory_bytes // stages > host.ram:
                outcome = _short_of_ram(wanted, outcome, host)
            if isinstance(outcome, Fit):
                found.append(outcome)
            else:
                failed.append(outcome)
    found.sort(key=lambda fit: (-fit.score, fit.tensor_parallel_size, fit.bay))
    return found, failed


def _refusal(wanted: Wanted, bay: Bay, options: PlanOptions) -> Misfit | None:
    """Wishes, engines and formats: what forbids the bay before any size is counted."""
    request, name = wanted.request, wanted.name
    kind, cpu = bay.device.kind, bay.vendor == "cpu"
    if request.accelerator is not None and request.accelerator not in (kind, bay.vendor):
        return _wish(f"{name} asks for accelerator {request.accelerator}, this is {kind}", "accelerator")
    if cpu and request.cpu is False:
        return _wish(f"{name} has cpu: false and there is no usable GPU", "cpu")
    if cpu and bay.asked_only and not (request.hosts and (request.cpu or request.accelerator == "cpu")):
        settings = (("hosts", (*request.hosts, HERE)), ("accelerator", "cpu"))
        return Misfit(f"{name} does not take the processors that feed GPUs", NO_SETTING, 3, settings=settings)
    engine = engine_for(wanted, bay, options)
    if not available(engine, bay.vendor, options):
        key = "engine" if request.engine is not None else "quantization"
        return _wish(f"{name} needs engine {engine}, which nothing here runs on {kind}", key)
    if request.kv_cache_dtype is not None and (engine != "vllm" or request.kv_cache_dtype not in bay.device.flops):
        text = f"{name} asks for kv_cache_dtype {request.kv_cache_dtype}, which {engine} on {kind} does not support"
        return _wish(text, "kv_cache_dtype")
    for key in ONLY_VLLM:
        if getattr(request, key) and engine != "vllm":
            return _wish(f"{name} asks for {key}, which {engine} does not support", key)
    if request.tools and engine == "vllm" and not _parsers(request).get("tool_call_parser"):
        return _wish(f"{name} asks for tools, and vLLM has no parser for it: {parsers_for(request).reason}", "tools")
    build = build_of(engine, bay.vendor)
    if cpu and build is not None and build.isa and not set(build.isa) & set(bay.isa):
        return Misfit(f"{name} cannot run on {bay.label}, which has {NO_ISA}", ISA_CHANGE, 3)
    dtype = wanted.planned.dtype
    if not cpu and dtype not in bay.device.flops and dtype != "float32":
        text = f"{kind} has no {dtype} arithmetic, which {name} is served in"
        return Misfit(text, NO_SETTING, 2, settings=(("dtype", "float16"),))
    return _refused_format(wanted, bay, engine)


def _wish(text: str, key: str) -> Misfit:
    """A refusal of what the model's entry asks for by ``key``."""
    return Misfit(text, NO_SETTING, 2, settings=((key, None),))


def _refused_format(wanted: Wanted, bay: Bay, engine: str) -> Misfit | None:
    quantization = wanted.planned.quantization
    if quantization is None:
        return None
    method = QUANTIZATIONS[quantization]
    text = ""
    if engine not in method.engines:
        text = f"{wanted.name} is {quantization}, which {engine} on {bay.device.kind} does not read"
    elif bay.vendor not in method.vendors:
        text = f"{wanted.name} is {quantization}, which has no kernels for {bay.vendor}"
    elif quantization == "fp8" and bay.vendor == "amd" and "fp8" not in bay.device.flops:
        text = f"{bay.device.kind} has no fp8 arithmetic"
    if not text:
        return None
    if wanted.request.quantization is None:
        return Misfit(text, "use a checkpoint in another format", 2)
    return _wish(text, "quantization")


def engine_for(wanted: Wanted, bay: Bay, options: PlanOptions) -> str:
    """The engine that is asked for, or the fastest of those that do what is asked (docs/engines.md has figures).

    Where none does, the first: the refusal is about it.
    """
    request, quantization = wanted.request, wanted.planned.quantization
    if request.engine is not None:
        return request.engine
    names = ("vllm",) if quantization is None else QUANTIZATIONS[quantization].engines
    only_vllm = request.engine_args or request.kv_cache_dtype or any(getattr(request, key) for key in ONLY_VLLM)
    if bay.vendor == "cpu" and quantization is None and not only_vllm:
        # With AMX nothing was measured; vLLM has kernels for it.
        names = ("vllm", "openvino") if "amx_bf16" in bay.isa else ("openvino", "vllm")
    return next((name for name in names if _runs(name, bay, options)), names[0])


def _runs(engine: str, bay: Bay, options: PlanOptions) -> bool:
    build = build_of(engine, bay.vendor)
    if build is None or not available(engine, bay.vendor, options):
        return False
    return not build.isa or bool(set(build.isa) & set(bay.isa))


def _sizes(wanted: Wanted, bay: Bay) -> list[int]:
    asked = wanted.request.tensor_parallel_size
    if bay.vendor == "cpu":
        return [1] if asked in (None, 1) else [asked]
    return [asked] if asked is not None else _divisors(wanted, bay)


def _divisors(wanted: Wanted, bay: Bay) -> list[int]:
    most = 1 if bay.partition else len(bay.indices)
    return [size for size in range(1, most + 1) if splits(wanted.shape, size)]


def _fit(wanted: Wanted, bay: Bay, number: int, size: int, stages: int, options: PlanOptions) -> Fit | Misfit:
    cpu = bay.vendor == "cpu"
    if (cpu or bay.partition) and size > 1:
        what = "processors" if cpu else "a partition"
        return _wish(f"{wanted.name} asks for tensor_parallel_size {size}, {what} run 1", "tensor_parallel_size")
    if size > len(bay.indices):
        whole = _fit(wanted, bay, number, max(_divisors(wanted, bay)), stages, options)
        if isinstance(whole, Misfit):
            return whole  # all of them together hold too little: that is the better reason
        text = f"{wanted.name} asks for tensor_parallel_size {size}, the host has {bay.label}"
        return Misfit(text, NO_SETTING, 2, settings=(("tensor_parallel_size", max(_divisors(wanted, bay))),))
    if refusal := _refused_beside(wanted, size, stages):
        return refusal
    engine = engine_for(wanted, bay, options)
    build = build_of(engine, bay.vendor)
    if build is None:
        raise ValueError(f"{engine} on {bay.vendor} has passed without a build")
    quantization = _quantization(wanted, engine)
    device = bay.device
    if size > max(len(island) for island in bay.islands):
        device = replace(device, link="pcie", link_bandwidth=device.pcie_bandwidth)
    dtype = "float32" if engine in CPU_QUANTIZATION else _dtype(wanted, bay)  # of all but the quantised weights
    kept = wanted.request.kv_cache_dtype
    deployment = Deployment(
        wanted.shape,
        dtype,
        quantization,
        engine,
        size,
        stages,
        kv_cache_dtype=kept,
        draft=wanted.draft,
        **_places(wanted.request),
    )
    chosen = None
    if cpu:
        limits = cpu_limits(wanted, deployment, bay, options)
    else:
        cache_tokens = partial(gpu_cache_tokens, wanted, deployment, bay)
        chosen = batching(
            deployment, device, options, cache_tokens, wanted.request.max_num_seqs, _parsers(wanted.request)
        )
        deployment = replace(deployment, stream_interval=chosen.stream_interval)
        limits = gpu_limits(wanted, deployment, bay, chosen.max_num_seqs, chosen.max_num_batched_tokens)
    if isinstance(limits, Misfit) and engine in ("vllm", "openvino") and deployment.dtype != wanted.planned.dtype:
        deployment = replace(deployment, dtype=wanted.planned.dtype)
        limits = cpu_limits(wanted, deployment, bay, options)
    if isinstance(limits, Misfit):
        return limits
    if cpu:
        single = expect(deployment, device, 1, options.prompt_tokens, options.output_tokens)
        slow = single.time_per_output_token_s
        if slow > table.SLOWEST_TOKEN.value and not wanted.request.cpu and wanted.request.accelerator != "cpu":
            size_gb = deployment.streamed_bytes / GB
            text = (
                f"{wanted.name} would take {slow:.2f} s a token there: {size_gb:.0f} GB are read for each, at "
                f"{device.bandwidth / GB:.0f} GB/s of memory bandwidth"
            )
            return Misfit(text, NO_SETTING, 1, slow, settings=(("cpu", True),), note="to use it all the same")
    capacity = size * stages * bay.device.bandwidth
    load, asked = _planned_load(limits, options)
    speed = expect(deployment, device, load, asked, options.output_tokens).tokens_per_s
    return Fit(
        model=wanted.name,
        bay=number,
        kind=bay.device.kind,
        vendor=bay.vendor,
        engine=engine,
        build=build.name,
        tensor_parallel_size=size,
        stages=stages,
        device=device,
        deployment=deployment,
        limits=limits,
        engine_args=_engine_args(wanted, deployment, bay, chosen),
        batching=chosen,
        capacity=capacity,
        score=round(speed / capacity * 1e9, 6),
        cores=bay.unit_cores,
        parsers=parsers_for(wanted.request) if engine == "vllm" else None,
    )


def _refused_beside(wanted: Wanted, size: int, stages: int) -> Misfit | None:
    """What of a draft model and adapters a replica of this size cannot have."""
    for key in ("draft", "lora_adapters"):
        if getattr(wanted.request, key) and stages > 1:
            return _wish(f"{wanted.name} asks for {key}, which a replica over several hosts does not support", key)
    if wanted.draft is not None and not splits(wanted.draft, size):
        return _wish(f"the draft of {wanted.name} cannot be split into {size} parts, as the model is", "draft")
    return None


def _places(request: ModelRequest) -> dict[str, int]:
    """How many adapters are in memory at once, and of which rank: all of them, unless ``engine_args`` say otherwise."""
    args = request.engine_args
    rank = int(args.get("max_lora_rank", lora_rank(request)))
    return {"adapters": int(args.get("max_loras", len(request.lora_adapters))) if rank else 0, "adapter_rank": rank}


def _parsers(request: ModelRequest) -> dict[str, Any]:
    """``engine_args`` with the parsers of the model's family, where they name none."""
    return {**parsers_for(request).arguments, **request.engine_args}


def _quantization(wanted: Wanted, engine: str) -> str | None:
    """Of the checkpoint, or the one that is asked for; else what the engine takes by itself.

    ``onnx`` rounds what it multiplies with quantised weights to 8 bits, too: whoever asks for float32 gets it whole.
    """
    if wanted.planned.quantization is not None:
        return wanted.planned.quantization
    if engine == "onnx" and wanted.request.dtype is not None and wanted.planned.dtype == "float32":
        return None
    return CPU_QUANTIZATION.get(engine)


def _dtype(wanted: Wanted, bay: Bay) -> str:
    """float32 where nobody asked for another dtype and the processor would have to emulate bfloat16.

    That costs more than reading twice the bytes: see CPU_FLOPS[avx2_bfloat16].
    """
    quantization = wanted.planned.quantization
    free = wanted.request.dtype is None and (quantization is None or QUANTIZATIONS[quantization].online)
    emulated = bay.vendor == "cpu" and bay.device.flops["bfloat16"] < bay.device.flops["float32"]
    return "float32" if free and emulated else wanted.planned.dtype


def _planned_load(limits: Limits, options: PlanOptions) -> tuple[int, int]:
    """Requests at once if each fills a quarter of the context, and how long their prompts then are."""
    length = max(options.prompt_tokens + options.output_tokens, int(limits.max_model_len * table.CONTEXT_FILL.value))
    requests = max(1, min(limits.max_num_seqs, limits.kv_cache_tokens // length))
    return requests, max(1, length - options.output_tokens)


def _engine_args(wanted: Wanted, deployment: Deployment, bay: Bay, chosen: Batching | None) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if deployment.engine in CPU_QUANTIZATION:
        args["quantization"] = deployment.quantization
    elif deployment.engine == "openvino":
        args["dtype"] = deployment.dtype
        if deployment.quantization is not None:
            args["quantization"] = deployment.quantization
    elif deployment.engine == "vllm" and bay.vendor == "cpu":
        args["enforce_eager"] = True  # compiled kernels answered wrongly on some AVX-512 processors
    elif deployment.engine == "vllm":
        args["gpu_memory_utilization"] = table.GPU_MEMORY_SHARE.value
    if chosen is not None and deployment.engine == "vllm":
        args["max_num_batched_tokens"] = chosen.max_num_batched_tokens
        args["stream_interval"] = chosen.stream_interval
    if deployment.engine == "vllm" and deployment.dtype != wanted.planned.dtype:
        args["dtype"] = deployment.dtype
    if deployment.kv_cache_dtype is not None:
        args["kv_cache_dtype"] = deployment.kv_cache_dtype
    if deployment.engine == "vllm" and wanted.request.prefix_caching is not None:
        args["enable_prefix_caching"] = wanted.request.prefix_caching
    if deployment.engine == "vllm" and wanted.request.speculative_tokens is not None:
        # vLLM's own example of n-gram speculation looks at no more than four tokens (docs, "Speculative decoding").
        guess = {"method": "ngram", "num_speculative_tokens": wanted.request.speculative_tokens, "prompt_lookup_max": 4}
        args["speculative_config"] = guess
    if deployment.engine == "vllm":
        args.update(_beside_args(wanted.request))
        args.update(parsers_for(wanted.request).arguments)
    if deployment.pipeline_parallel_size > 1:
        args["pipeline_parallel_size"] = deployment.pipeline_parallel_size
    args.update(wanted.request.engine_args)
    return args


def _beside_args(request: ModelRequest) -> dict[str, Any]:
    """What tells vLLM of a draft model and adapters; where they lie on a host, ``serving.ray_serve`` adds."""
    args: dict[str, Any] = {}
    if request.draft is not None:
        args["speculative_config"] = {"method": "draft_model", "num_speculative_tokens": request.draft.tokens}
    if request.lora_adapters:
        places = _places(request)
        args |= {"enable_lora": True, "max_loras": places["adapters"], "max_lora_rank": places["adapter_rank"]}
        if places["adapters"] < len(request.lora_adapters):
            args["max_cpu_loras"] = len(request.lora_adapters)
    return args


def _short_of_ram(wanted: Wanted, fit: Fit, host: HostShape) -> Misfit:
    need, have = fit.limits.host_memory_bytes / fit.stages, host.ram
    text = f"{wanted.name} needs {need / GB:.1f} GB of RAM for its processes; {have / GB:.1f} GB can be given"
    return Misfit(text, host.more_ram, 0, (need - have) / need)


def want(request: ModelRequest, shape: ModelShape) -> Wanted:
    """Fill in what the request leaves out: the model's own context, bfloat16, the checkpoint's quantisation."""
    draft = draft_shape_of(request)
    quantization = request.quantization or shape.quantization
    dtype = normal_dtype(request.dtype) if request.dtype else "bfloat16"
    if quantization in ("awq", "gptq") and request.dtype is None:
        dtype = "float16" if shape.dtype == "float16" else "bfloat16"
    planned = PlannedModel(
        name=request.name,
        source=request.source,
        context=request.context or shape.context,
        dtype=dtype,
        quantization=quantization,
        parameters=shape.parameters,
        weight_bytes=shape.weight_bytes(dtype, quantization),
        kv_bytes_per_token=shape.kv_bytes_per_token(request.kv_cache_dtype or dtype),
        chat=request.chat,
        folder=weights_folder(request.name),
        backend=backend_name(request.name),
    )
    planned = replace(planned, beside=(*_adapters(request, shape, planned), *_draft(request, draft, dtype)))
    least = max(request.min_replicas, len(request.engines))
    return Wanted(replace(request, min_replicas=least), shape, planned, draft)


def _adapters(request: ModelRequest, shape: ModelShape, planned: PlannedModel) -> list[Beside]:
    return [
        Beside(
            name=one.name,
            model=request.name,
            kind="adapter",
            source=one.source,
            # As if in float32 and on every linear layer, the most that a file of this rank has.
            weight_bytes=4 * shape.adapter_parameters(one.rank or 0),
            folder=weights_folder(one.name),
            config="adapter_config.json",
            rank=one.rank or 0,
            context=planned.context,
            backend=planned.backend,
        )
        for one in request.lora_adapters
    ]


def _draft(request: ModelRequest, shape: ModelShape | None, dtype: str) -> list[Beside]:
    if request.draft is None or shape is None:
        return []
    # No model's name has a plus sign.
    name = f"{request.name}+draft"
    folder = weights_folder(name)
    return [
        Beside(name, request.name, "draft", request.draft.source, shape.weight_bytes(dtype, shape.quantization), folder)
    ]
