"""Can this model run in that bay, how, and if not, what is the arithmetic reason?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .. import efficiencies as table
from ..model_shape import QUANTIZATIONS, ModelShape, normal_dtype
from ..plan import Expectation, Limits, PlannedModel
from ..roofline import Deployment, Device, expect
from .bays import BUILDS, Bay, HostShape, available, cpu_engine
from .memory import GB, Misfit, Wanted, cpu_limits, gpu_limits
from .request import ModelRequest, PlanOptions, splits

CPU_QUANTIZATION = {"bigdl": "sym_int8", "onnx": "int8"}
STAGES = (2, 3, 4, 6, 8)


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
    capacity: float  # bytes/s of memory bandwidth taken: what `share` shares out
    score: float  # expected tokens/s for each GB/s of capacity at the planned load
    cores: int = 0

    @property
    def pool(self) -> tuple[str, str, str, int, int]:
        """Replicas with equal keys form one pool."""
        return (self.model, self.kind, self.engine, self.tensor_parallel_size, self.stages)

    def expected(self, replicas: int, options: PlanOptions) -> tuple[Expectation, ...]:
        """What ``replicas`` of these do at 1, 32 and 256 requests each, as far as max_num_seqs lets them run."""
        most = self.limits.max_num_seqs
        levels = sorted({level for level in (1, 32, 256) if level <= most} | {min(most, 256)})
        out = []
        for level in levels:
            one = expect(self.deployment, self.device, level, options.prompt_tokens, options.output_tokens)
            speed = round(one.tokens_per_s * replicas, 1)
            out.append(replace(one, concurrency=level * replicas, tokens_per_s=speed))
        return tuple(out)


def fits(wanted: Wanted, host: HostShape, options: PlanOptions, stages: int = 1) -> tuple[list[Fit], list[Misfit]]:
    """Every way to run a replica on an empty host of this shape, and why the other ways fail."""
    found: list[Fit] = []
    failed: list[Misfit] = []
    if wanted.request.hosts and wanted.name not in host.allowed:
        where = ", ".join(wanted.request.hosts)
        return [], [Misfit(f"{wanted.name} is pinned to {where}", "add the host to the model's `hosts`", 2)]
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
        return Misfit(f"{name} asks for accelerator {request.accelerator}, this is {kind}", "change `accelerator`", 2)
    if cpu and request.cpu is False:
        return Misfit(f"{name} has cpu: false and there is no usable GPU", "remove `cpu: false`", 2)
    if cpu and bay.asked_only and not (request.hosts and (request.cpu or request.accelerator == "cpu")):
        change = "pin it to the host with `hosts` and `accelerator: cpu`"
        return Misfit(f"{name} does not take the processors that feed GPUs", change, 3)
    engine = _engine(wanted, bay)
    if not available(engine, bay.vendor, options):
        return Misfit(f"{name} needs engine {engine}, which does not run on {kind} here", "set another `engine`", 2)
    if cpu and engine == "vllm" and "avx512f" not in bay.isa:
        return Misfit(f"{name} asks for vllm, whose CPU kernels need AVX-512", "set `engine: onnx`", 2)
    if cpu and engine == "bigdl" and "avx2" not in bay.isa:
        return Misfit(f"{name} asks for bigdl, which needs AVX2", "set `engine: onnx`", 2)
    dtype = wanted.planned.dtype
    if not cpu and dtype not in bay.device.flops and dtype != "float32":
        return Misfit(f"{kind} has no {dtype} arithmetic, which {name} is served in", "set `dtype: float16`", 2)
    return _refused_format(wanted, bay, engine)


def _refused_format(wanted: Wanted, bay: Bay, engine: str) -> Misfit | None:
    quantization = wanted.planned.quantization
    if quantization is None:
        return None
    method = QUANTIZATIONS[quantization]
    if engine not in method.engines:
        where = f"{wanted.name} is {quantization}, which {engine} on {bay.device.kind} does not read"
        return Misfit(where, "set another `quantization`", 2)
    if bay.vendor not in method.vendors:
        where = f"{wanted.name} is {quantization}, which has no kernels for {bay.vendor}"
        return Misfit(where, "set another `quantization`", 2)
    if quantization == "fp8" and bay.vendor == "amd" and "fp8" not in bay.device.flops:
        return Misfit(f"{bay.device.kind} has no fp8 arithmetic", "set another `quantization`", 2)
    return None


def _engine(wanted: Wanted, bay: Bay) -> str:
    if wanted.request.engine is not None:
        return wanted.request.engine
    quantization = wanted.planned.quantization
    if quantization is not None and "vllm" not in QUANTIZATIONS[quantization].engines:
        return QUANTIZATIONS[quantization].engines[0]
    return cpu_engine(bay.isa) if bay.vendor == "cpu" else "vllm"


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
        return Misfit(f"{wanted.name} asks for tensor_parallel_size {size}, {what} run 1", "set it to 1", 2)
    if size > len(bay.indices):
        whole = _fit(wanted, bay, number, max(_divisors(wanted, bay)), stages, options)
        if isinstance(whole, Misfit):
            return whole  # all of them together hold too little: that is the better reason
        text = f"{wanted.name} asks for tensor_parallel_size {size}, the host has {bay.label}"
        return Misfit(text, f"set `tensor_parallel_size` to {len(bay.indices)} or less", 2)
    engine = _engine(wanted, bay)
    quantization = CPU_QUANTIZATION.get(engine) if wanted.planned.quantization is None else wanted.planned.quantization
    device = bay.device
    if size > max(len(island) for island in bay.islands):
        device = replace(device, link="pcie", link_bandwidth=device.pcie_bandwidth)
    deployment = Deployment(wanted.shape, wanted.planned.dtype, quantization, engine, size, stages)
    limits = cpu_limits(wanted, deployment, bay, options) if cpu else gpu_limits(wanted, deployment, bay, options)
    if isinstance(limits, Misfit):
        return limits
    if cpu:
        single = expect(deployment, device, 1, options.prompt_tokens, options.output_tokens)
        slow = single.time_per_output_token_s
        if slow > table.SLOWEST_TOKEN.value and not wanted.request.cpu and wanted.request.accelerator != "cpu":
            size_gb = wanted.shape.streamed_bytes(deployment.dtype, quantization) / GB
            text = (
                f"{wanted.name} would take {slow:.2f} s a token there: {size_gb:.0f} GB are read for each, at "
                f"{device.bandwidth / GB:.0f} GB/s of memory bandwidth"
            )
            return Misfit(text, "set `cpu: true` to use it all the same", 1, slow)
    capacity = size * stages * bay.device.bandwidth
    load, asked = _planned_load(limits, options)
    speed = expect(deployment, device, load, asked, options.output_tokens).tokens_per_s
    return Fit(
        model=wanted.name,
        bay=number,
        kind=bay.device.kind,
        vendor=bay.vendor,
        engine=engine,
        build=BUILDS[engine, bay.vendor],
        tensor_parallel_size=size,
        stages=stages,
        device=device,
        deployment=deployment,
        limits=limits,
        engine_args=_engine_args(wanted, deployment, bay),
        capacity=capacity,
        score=round(speed / capacity * 1e9, 6),
        cores=bay.unit_cores,
    )


def _planned_load(limits: Limits, options: PlanOptions) -> tuple[int, int]:
    """Requests at once if each fills a quarter of the context, and how long their prompts then are."""
    length = max(options.prompt_tokens + options.output_tokens, int(limits.max_model_len * table.CONTEXT_FILL.value))
    requests = max(1, min(limits.max_num_seqs, 256, limits.kv_cache_tokens // length))
    return requests, max(1, length - options.output_tokens)


def _engine_args(wanted: Wanted, deployment: Deployment, bay: Bay) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if deployment.engine != "vllm":
        args["quantization"] = deployment.quantization
    elif bay.vendor == "cpu":
        args["enforce_eager"] = True  # compiled kernels answered wrongly on some AVX-512 processors
    else:
        args["gpu_memory_utilization"] = table.GPU_MEMORY_SHARE.value
    if deployment.pipeline_parallel_size > 1:
        args["pipeline_parallel_size"] = deployment.pipeline_parallel_size
    args.update(wanted.request.engine_args)
    return args


def _short_of_ram(wanted: Wanted, fit: Fit, host: HostShape) -> Misfit:
    need, have = fit.limits.host_memory_bytes / fit.stages, host.ram
    text = f"{wanted.name} needs {need / GB:.1f} GB of RAM for its processes; {have / GB:.1f} GB can be given"
    return Misfit(text, "set `reserve_memory_gib` lower or free memory on the host", 0, (need - have) / need)


def want(request: ModelRequest, shape: ModelShape) -> Wanted:
    """Fill in what the request leaves out: the model's own context, bfloat16, the checkpoint's quantisation."""
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
        kv_bytes_per_token=shape.kv_bytes_per_token(dtype),
        chat=request.chat,
    )
    return Wanted(request, shape, planned)
