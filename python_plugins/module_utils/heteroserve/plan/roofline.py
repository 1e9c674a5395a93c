"""Expected speed of one replica: plain physics over datasheet figures and the table in ``efficiencies.py``.

A step of the engine generates one token for every running request. Its time is the sum of
linear layers (reading the weights and multiplying by them, joined as a root of squares because the two overlap
well apart from the knee where they are equal), attention (reading the KV cache), all-reduce between the
accelerators of a replica, and the engine's own time (a layer, a step, a sequence). A GPU's engine has the next step
under way while the server beside it turns tokens into text and sends it: the slower of the two sets the pace.
All times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, hypot

from . import efficiencies as table
from .model_shape import ModelShape
from .schema import Expectation

BATCHING_ENGINES = ("vllm", "openvino", "onnx")  # the others run one request at a time in each replica


@dataclass(frozen=True)
class Device:
    """One accelerator, or the part of a host's processors that one replica takes."""

    kind: str
    vendor: str
    memory: int  # bytes
    bandwidth: float  # bytes/s, datasheet
    flops: dict[str, float] = field(hash=False)  # dense peak FLOP/s by format: "bfloat16", "float16", "fp8", ...
    link: str = "pcie"
    link_bandwidth: float = 32e9  # bytes/s one way, all links of the accelerator together
    pcie_bandwidth: float = 32e9  # bytes/s one way
    cores: int = 0  # for processors


@dataclass(frozen=True)
class Deployment:
    """A model as one replica runs it."""

    shape: ModelShape
    dtype: str
    quantization: str | None
    engine: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    stream_interval: int = 1  # tokens that are sent together
    kv_cache_dtype: str | None = None  # of keys and values, where it is not ``dtype``
    # Held in memory beside the model. What they do to the speed depends on the requests: it is left out.
    draft: ModelShape | None = None
    adapters: int = 0  # places for LoRA adapters
    adapter_rank: int = 0

    @property
    def weights_dtype(self) -> str:
        """Of weights that are not quantised: OpenVINO leaves them as they are and converts as it reads."""
        return self.shape.dtype if self.engine == "openvino" else self.dtype

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take in memory. ONNX Runtime packs the output head into a copy of its own."""
        packed = self.engine == "onnx" and self.quantization is None
        shape = replace(self.shape, tied=False) if packed else self.shape
        return shape.weight_bytes(self.weights_dtype, self.quantization)

    @property
    def beside_bytes(self) -> int:
        """Bytes of the draft model and of the places for adapters, on all accelerators together."""
        draft = self.draft.weight_bytes(self.dtype, self.draft.quantization) if self.draft else 0
        place = self.shape.lora_bytes(self.adapter_rank, self.dtype, self.tensor_parallel_size)
        return draft + self.adapters * place * self.tensor_parallel_size

    @property
    def held_bytes(self) -> int:
        """Bytes of all weights that a replica holds."""
        return self.weight_bytes + self.beside_bytes

    @property
    def streamed_bytes(self) -> int:
        """Bytes of weights that are read for one step."""
        return self.shape.streamed_bytes(self.weights_dtype, self.quantization)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that a token takes, on all accelerators together."""
        return self.shape.kv_bytes_per_token(self.kv_cache_dtype or self.dtype)

    @property
    def held_kv_bytes(self) -> int:
        """As ``kv_bytes_per_token``, with the draft model's, which has keys and values of its own."""
        draft = self.draft.kv_bytes_per_token(self.kv_cache_dtype or self.dtype) if self.draft else 0
        return self.kv_bytes_per_token + draft


@dataclass(frozen=True)
class Step:
    """Seconds of one step, by part; ``weights`` and ``compute`` overlap, ``linear`` is what both take together.

    ``server`` is what the server's process needs for the tokens of a step; the engine does not wait for it.
    """

    weights: float
    compute: float
    linear: float
    attention: float
    all_reduce: float
    overhead: float
    server: float = 0.0

    @property
    def engine(self) -> float:
        """Seconds that the engine takes."""
        return self.linear + self.attention + self.all_reduce + self.overhead

    @property
    def total(self) -> float:
        """Seconds from one token of a request to its next: of the slower process, more where both are as slow."""
        sharp = table.PACE.value
        return float((self.engine**sharp + self.server**sharp) ** (1 / sharp))

    @property
    def limited_by(self) -> str:
        """The part that takes longest, in an operator's words."""
        if self.server > self.engine:
            return "sending text (host)"
        linear = "memory bandwidth" if self.weights >= self.compute else "compute"
        parts = {
            linear: self.linear,
            "memory bandwidth (KV cache)": self.attention,
            "interconnect": self.all_reduce,
            "engine overhead": self.overhead,
        }
        return max(parts, key=lambda part: parts[part])


def memory_rate(device: Device, engine: str) -> float:
    """Bytes/s that an engine reads from the device's memory."""
    share = table.MEMORY[device.vendor].value * table.ENGINE_MEMORY[engine].value
    return device.bandwidth * share * working_cores(device, engine)


def compute_rate(device: Device, deployment: Deployment) -> float:
    """FLOP/s of matrix multiplication in the format that the deployment multiplies in."""
    own = deployment.quantization or ""
    peak = device.flops.get(own) or device.flops.get(deployment.dtype) or device.flops.get("float32", 1e12)
    return peak * table.MATMUL[device.vendor].value * working_cores(device, deployment.engine)


def working_cores(device: Device, engine: str) -> float:
    """The part of a CPU replica's cores that computes: vLLM keeps one for its scheduler."""
    if device.vendor != "cpu" or engine != "vllm":
        return 1.0
    return max(1.0, device.cores - table.CPU_RESERVED.value) / device.cores


def step_time(deployment: Deployment, device: Device, batch: float, context: float, prompt_tokens: float = 0.0) -> Step:
    """One step with ``batch`` requests of ``context`` tokens each, and ``prompt_tokens`` of new prompts beside them.

    With pipeline stages a request passes all of them for each token while the other requests fill the rest,
    so a stage sees the batch divided by the number of stages.
    """
    shape, parts = deployment.shape, deployment.tensor_parallel_size
    batch = max(1.0, batch / deployment.pipeline_parallel_size)
    tokens = batch + prompt_tokens / deployment.pipeline_parallel_size
    rate = memory_rate(device, deployment.engine)
    weights = deployment.streamed_bytes / parts / rate
    flops = 2 * shape.multiplied_parameters * tokens + shape.attention_flops(int(context)) * tokens
    compute = flops / parts / compute_rate(device, deployment)
    kv_share = max(1, ceil(shape.kv_heads / parts)) / shape.kv_heads
    kv_rate = rate * (1.0 if device.vendor == "cpu" else table.KV_MEMORY.value)
    attention = batch * context * deployment.kv_bytes_per_token * kv_share / kv_rate
    return Step(
        weights=weights,
        compute=compute,
        linear=hypot(weights, compute),
        attention=attention,
        all_reduce=_all_reduce(deployment, device, tokens),
        overhead=_overhead(deployment, device, batch),
        server=_server(deployment, device, batch),
    )


def _all_reduce(deployment: Deployment, device: Device, tokens: float) -> float:
    """Two all-reduces a layer: start, and twice (n-1)/n of the activations over the link (ring or one-shot)."""
    parts, shape = deployment.tensor_parallel_size, deployment.shape
    if parts == 1:
        return 0.0
    size = tokens * shape.hidden * 2
    rate = device.link_bandwidth * table.ALL_REDUCE_SHARE.value
    once = table.ALL_REDUCE_START[device.link].value + 2 * (parts - 1) / parts * size / rate
    return 2 * shape.layers * once


def _overhead(deployment: Deployment, device: Device, batch: float) -> float:
    if device.vendor == "cpu":
        name = deployment.engine if deployment.engine in table.CPU_STEP else "vllm"
        layer, step, sequence = table.CPU_LAYER[name], table.CPU_STEP[name], table.CPU_SEQUENCE[name]
    else:
        layer, step, sequence = table.GPU_LAYER, table.GPU_STEP, table.GPU_SEQUENCE
    return deployment.shape.layers * layer.value + step.value + sequence.value * batch


def _server(deployment: Deployment, device: Device, batch: float) -> float:
    """On processors it shares their cores with the engine, and is part of what a sequence takes there."""
    if device.vendor == "cpu" or deployment.engine not in BATCHING_ENGINES:
        return 0.0
    token = table.SERVER_TOKEN.value + table.SERVER_PIECE.value / deployment.stream_interval
    # All stages' requests pass the one server, while a stage sees its part of them.
    return batch * deployment.pipeline_parallel_size * token


def expect(
    deployment: Deployment, device: Device, concurrency: int, prompt_tokens: int, output_tokens: int
) -> Expectation:
    """What one replica does with ``concurrency`` clients that each send the next request when one is answered."""
    running = concurrency if deployment.engine in BATCHING_ENGINES else 1
    mean_context = prompt_tokens + output_tokens / 2
    step = step_time(deployment, device, running, mean_context, running * prompt_tokens / output_tokens).total
    request = (table.CPU_REQUEST if device.vendor == "cpu" else table.GPU_REQUEST).value
    prefill = step_time(deployment, device, running, mean_context, prompt_tokens).total
    first = request + step / 2 + prefill
    whole = first + (output_tokens - 1) * step
    return Expectation(
        concurrency=concurrency,
        tokens_per_s=round(running * output_tokens / whole, 1),
        time_per_output_token_s=round(step, 5),
        time_to_first_token_s=round(first + (concurrency - running) / 2 * whole, 4),
    )


def cpu_device(cores: int, memory: int, bandwidth: float | None, isa: tuple[str, ...], name: str = "cpu") -> Device:
    """Processors as a device: the fastest instruction set they have, bandwidth that their cores can draw."""
    drawn = (
        cores * table.CORE_BANDWIDTH.value / table.MEMORY["cpu"].value
    )  # a core's rate is measured, not a datasheet's
    unit = next(
        (flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd") if flag in isa), "none"
    )
    plain = next((flag for flag in ("avx512f", "avx2", "asimd") if flag in isa), "none")
    if unit == "avx2":
        unit = "avx2_bfloat16"
    flops = {
        "bfloat16": cores * table.CPU_FLOPS[unit].value,
        "float16": cores * table.CPU_FLOPS[plain].value,
        "float32": cores * table.CPU_FLOPS[plain].value,
        "int8": cores * table.CPU_FLOPS[plain].value * table.CPU_INT8.value,
        "int4": cores * table.CPU_FLOPS[plain].value * table.CPU_INT8.value,
    }
    return Device(
        kind=name,
        vendor="cpu",
        memory=memory,
        bandwidth=min(drawn, bandwidth) if bandwidth else drawn,
        flops=flops,
        link="socket",
        link_bandwidth=20e9,
        cores=cores,
    )
