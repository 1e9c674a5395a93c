"""Every constant that the planner's physics uses beyond datasheets, each with where it comes from.

An efficiency is the fraction of a datasheet's figure that a good kernel reaches; an overhead is time or memory
that no datasheet names. Nothing here depends on a model, a batch or a single measured case: ``docs/plan.md``
shows what the same table predicts for every measurement that we know of.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class Efficiency:
    """One constant: its value, its unit and how it was found."""

    value: float
    unit: str
    source: str


# Per vendor of accelerator: what its memory and its matrix units reach in public or own measurements.
MEMORY: dict[str, Efficiency] = {
    "nvidia": Efficiency(0.90, "of datasheet bytes/s", "measured: device copy 4.28 to 4.3 TB/s on H200 (4.8)"),
    "amd": Efficiency(0.81, "of datasheet bytes/s", "public stream tests of MI300X: up to 4.3 of 5.3 TB/s"),
    "intel": Efficiency(0.80, "of datasheet bytes/s", "taken as AMD's: no measurement at hand"),
    "cpu": Efficiency(0.75, "of channels x rate", "public STREAM triads of two-socket Xeon and EPYC: 0.7 to 0.8"),
}
MATMUL: dict[str, Efficiency] = {
    "nvidia": Efficiency(0.79, "of dense peak", "measured: bf16 769 to 804 TFLOP/s on H200 and H100 (989)"),
    "amd": Efficiency(0.54, "of dense peak", "AMD, Max-Achievable FLOPs, part 2: MI300X bf16 708 of 1307"),
    "intel": Efficiency(0.54, "of dense peak", "taken as AMD's: no measurement at hand"),
    "cpu": Efficiency(0.45, "of cores x clock x width", "assumed: half of what vendors reach with large matrices"),
}

# Time that a step takes beside memory and arithmetic.
# GPU_LAYER: tests/bench/gpu_kernels.py on an H200; the four products of a layer take 18 to 31 us (mean 24) more than
# the roofline at 1, 32 and 282 tokens, for 7B and for half of 70B alike; fused norms and the like take the rest.
# The next seven were set by the rows of docs/plan.md for H200, rounded; the rows for H100 had no part in them. The
# engine's own process schedules and starts kernels; the server's process beside it turns tokens into text and sends
# them. How fast a host's processor does that is not known to the plan: 0.069 to 0.092 ms a token on four hosts.
GPU_LAYER = Efficiency(30e-6, "s a layer and step", "measured: starting and draining the kernels of a layer")
GPU_STEP = Efficiency(0.5e-3, "s a step", "measured: scheduling, input preparation, sampling")
GPU_SEQUENCE = Efficiency(12e-6, "s a sequence and step", "measured: scheduling, block tables, outputs")
KV_MEMORY = Efficiency(0.75, "of the rate that weights are read at", "measured: paged attention")
SERVER_TOKEN = Efficiency(25e-6, "s a token", "measured: decoding it into text")
SERVER_PIECE = Efficiency(45e-6, "s a piece of text", "measured: JSON and HTTP; stream_interval tokens are one piece")
PACE = Efficiency(6, "power", "measured: engine and server overlap, and wait for each other where both are as slow")
GPU_REQUEST = Efficiency(10e-3, "s a request", "assumed: HTTP, tokenising, queueing until the first step")
# CPU_*: vLLM served through the whole stack, SmolLM2-135M in float32 and bfloat16 at 1, 4 and 16 clients which ran on
# the same two cores. CPU_STEP and CPU_SEQUENCE were set by these six rows together (docs/plan.md), to round figures.
# Those of OpenVINO and ONNX Runtime by the tables of docs/engines.md for an EPYC with AVX-512, in the same way.
CPU_LAYER = {
    "vllm": Efficiency(0.4e-3, "s a layer and step", "measured: with the next, 19 ms of a step of 30 layers"),
    "openvino": Efficiency(0.02e-3, "s a layer and step", "measured: docs/engines.md"),
    "onnx": Efficiency(0.02e-3, "s a layer and step", "measured: docs/engines.md"),
}
CPU_STEP = {
    "vllm": Efficiency(7e-3, "s a step", "measured with the former: scheduling and input preparation"),
    "openvino": Efficiency(0.5e-3, "s a step", "measured: docs/engines.md"),
    "onnx": Efficiency(0.5e-3, "s a step", "measured: docs/engines.md"),
}
CPU_SEQUENCE = {
    "vllm": Efficiency(1.0e-3, "s a sequence and step", "measured: attention, sampling, streaming one token"),
    "openvino": Efficiency(0.4e-3, "s a sequence and step", "measured: sampling and streaming one token"),
    "onnx": Efficiency(0.9e-3, "s a sequence and step", "measured: as above, and attention row by row"),
}
CPU_RESERVED = Efficiency(1, "cores of a replica", "vLLM 0.29, ompmultiprocessing.py: the scheduler's on x86")
CPU_REQUEST = Efficiency(30e-3, "s a request", "assumed: HTTP, tokenising, queueing until the first step")

# All-reduce between the accelerators of one replica, by link: time to start, and share of the link's bytes/s.
ALL_REDUCE_START: dict[str, Efficiency] = {
    "nvswitch": Efficiency(10e-6, "s", "assumed: one-shot all-reduce inside a CUDA graph"),
    "nvlink": Efficiency(10e-6, "s", "as nvswitch"),
    "xgmi": Efficiency(18e-6, "s", "assumed: as NVLink, with one more hop of synchronisation"),
    "xe-link": Efficiency(20e-6, "s", "taken as xGMI's"),
    "roce": Efficiency(30e-6, "s", "assumed: RDMA write and completion, both ways"),
    "pcie": Efficiency(30e-6, "s", "assumed: peer to peer through one switch or the host"),
    "socket": Efficiency(40e-6, "s", "assumed: shared memory between two processors"),
}
ALL_REDUCE_SHARE = Efficiency(0.70, "of the link's bytes/s one way", "assumed: ring and one-shot kernels at some MB")

# CPU arithmetic: floating point operations a core does in a second at the clock it holds under that load.
CPU_FLOPS: dict[str, Efficiency] = {
    "amx_bf16": Efficiency(2048 * 1.9e9, "FLOP/s a core", "Intel: 1024 bf16 multiply-adds a cycle, 1.9 GHz under AMX"),
    "avx512_bf16": Efficiency(128 * 2.4e9, "FLOP/s a core", "two 512 bit units, 32 bf16 multiply-adds each"),
    "avx512f": Efficiency(64 * 2.4e9, "FLOP/s a core", "two 512 bit units, 16 float32 multiply-adds each"),
    "avx2": Efficiency(24 * 2.6e9, "FLOP/s a core", "measured: three quarters of two 256 bit units' 32 a cycle"),
    "avx2_bfloat16": Efficiency(6 * 2.6e9, "FLOP/s a core", "measured: emulated; SmolLM2-135M at 1, 4, 16 clients"),
    "bf16": Efficiency(
        64 * 2.6e9, "FLOP/s a core", "assumed: 64-bit Arm, one 128 bit BFMMLA a cycle and unit, two units"
    ),
    "asimd": Efficiency(16 * 2.6e9, "FLOP/s a core", "assumed: 64-bit Arm, two 128 bit units"),
    "none": Efficiency(8 * 2.6e9, "FLOP/s a core", "128 bit units"),
}
CPU_INT8 = Efficiency(3, "times float32", "measured: OpenVINO and ONNX Runtime multiply quantised weights in int8")
CORE_BANDWIDTH = Efficiency(13e9, "bytes/s a core", "measured: reading 560 MB with one core of a Xeon with AMX")

# How much of the hardware's speed an engine keeps.
ENGINE_MEMORY: dict[str, Efficiency] = {
    "vllm": Efficiency(1.0, "of memory bandwidth", "the overheads above say the rest"),
    "openvino": Efficiency(1.0, "of memory bandwidth", "the overheads above say the rest"),
    "bigdl": Efficiency(0.82, "of memory bandwidth", "Dell's guide: 17.18 tok/s, 7B sym_int8, one Xeon 8480+"),
    "onnx": Efficiency(1.0, "of memory bandwidth", "the overheads above say the rest"),
    "echo": Efficiency(1.0, "of memory bandwidth", "reads no weights; planned as if it did, for tests"),
}

# Memory beside weights and KV cache.
GPU_MEMORY_SHARE = Efficiency(0.90, "of the accelerator's memory", "vLLM's default gpu_memory_utilization")
GPU_CONTEXT = Efficiency(0.6 * GIB, "bytes an accelerator", "assumed: driver context, libraries, workspaces")
GPU_COLLECTIVES = Efficiency(0.5 * GIB, "bytes an accelerator", "assumed: NCCL or RCCL buffers if tensor parallel")
GPU_GRAPHS = Efficiency(0.3 * GIB, "bytes an accelerator", "assumed: captured graphs of the batch sizes")
BATCHED_TOKENS = Efficiency(8192, "tokens a step", "vLLM's default max_num_batched_tokens on data centre GPUs")
RAY_PROCESSES = Efficiency(1.5 * GIB, "bytes of RAM a cell", "allowance: GCS, raylet, dashboard, Serve")
CPU_ENGINE_PROCESS = Efficiency(2.0 * GIB, "bytes of RAM a replica", "allowance: torch, vLLM and its API process")
GPU_WORKER_PROCESS = Efficiency(4.0 * GIB, "bytes of RAM an accelerator", "allowance: torch, CUDA, pinned buffers")
CPU_KV_SHARE = Efficiency(1 / 16, "of the host's memory", "modest: taken at start, used or not; 1 GiB at least")
BODY_BYTES_PER_TOKEN = Efficiency(8, "bytes", "English is 4.4 a token; JSON escapes make 6 of a character")

# How long a start may take before it counts as failed: not an expectation, but room for the slowest.
START = Efficiency(900, "s", "three times the slowest start seen: 301 s, H100, nothing compiled, no bytecode")
SLOW_DISK = Efficiency(150e6, "bytes/s", "assumed: a hard disk, or a store that all hosts read at once")
# Above this a reader waits for the text; a CPU that is slower than this at one request is not used unless asked.
SLOWEST_TOKEN = Efficiency(0.25, "s a token", "4 tokens/s: a person reads 4 to 5 words a second")
# A prompt and answer rarely fill the context: KV capacity is judged with sequences of this part of it.
CONTEXT_FILL = Efficiency(0.25, "of the context", "assumed: most chats end long before their limit")
