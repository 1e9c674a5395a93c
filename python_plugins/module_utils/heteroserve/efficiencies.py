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
    "nvidia": Efficiency(0.90, "of datasheet bytes/s", "measured: device copy 4.3 TB/s on H200 (4.8 TB/s)"),
    "amd": Efficiency(0.81, "of datasheet bytes/s", "AMD, MI300X: 4.3 TB/s sustained of 5.3 TB/s (BabelStream)"),
    "intel": Efficiency(0.80, "of datasheet bytes/s", "Intel, Data Center GPU Max 1550: 2.6 of 3.2 TB/s (STREAM)"),
    "cpu": Efficiency(0.75, "of channels x rate", "STREAM triad on two-socket Xeon and EPYC: 0.73 to 0.80"),
}
MATMUL: dict[str, Efficiency] = {
    "nvidia": Efficiency(0.79, "of dense peak", "measured: bf16 769 to 798 TFLOP/s on H200 and H100 (989)"),
    "amd": Efficiency(0.54, "of dense peak", "AMD, max-achievable FLOPs of MI300X: 708 of 1307 TFLOP/s bf16"),
    "intel": Efficiency(0.55, "of dense peak", "taken as AMD's: no public figure for its matrix engines at bf16"),
    "cpu": Efficiency(0.45, "of cores x clock x width", "oneDNN bf16 matmul of model sizes; clock falls under AMX"),
}

# Time that a step takes beside memory and arithmetic.
GPU_LAYER = Efficiency(30e-6, "s a layer and step", "ten kernels in a CUDA graph, 3 us each")
GPU_STEP = Efficiency(0.4e-3, "s a step", "scheduling, input preparation and sampling of one vLLM step")
GPU_SEQUENCE = Efficiency(20e-6, "s a sequence and step", "bookkeeping, detokenising and streaming of one token")
GPU_REQUEST = Efficiency(10e-3, "s a request", "HTTP, tokenising and queueing until the first step")
CPU_LAYER = Efficiency(0.4e-3, "s a layer and step", "eager PyTorch: some 20 operators of 20 us, thread barriers included")
CPU_STEP = Efficiency(4e-3, "s a step", "scheduling and sampling in Python, sharing the cores with the arithmetic")
CPU_SEQUENCE = Efficiency(0.5e-3, "s a sequence and step", "sampling and streaming of one token on the same cores")
CPU_REQUEST = Efficiency(30e-3, "s a request", "HTTP, tokenising and queueing until the first step")

# All-reduce between the accelerators of one replica, by link: time to start, and share of the link's bytes/s.
ALL_REDUCE_START: dict[str, Efficiency] = {
    "nvswitch": Efficiency(10e-6, "s", "one-shot all-reduce in a CUDA graph, NCCL tests to 512 KiB"),
    "nvlink": Efficiency(10e-6, "s", "as nvswitch"),
    "xgmi": Efficiency(18e-6, "s", "RCCL tests on MI300X at small sizes"),
    "xe-link": Efficiency(20e-6, "s", "taken as xGMI's"),
    "roce": Efficiency(30e-6, "s", "RDMA write plus completion, both ways"),
    "pcie": Efficiency(30e-6, "s", "through host memory or peer to peer over one switch"),
    "socket": Efficiency(40e-6, "s", "shared memory between two processors"),
}
ALL_REDUCE_SHARE = Efficiency(0.70, "of the link's bytes/s one way", "bus bandwidth of NCCL and RCCL tests at some MB")

# CPU arithmetic: floating point operations a core does in a second at the clock it holds under that load.
CPU_FLOPS: dict[str, Efficiency] = {
    "amx_bf16": Efficiency(2048 * 1.9e9, "FLOP/s a core", "Intel: 1024 bf16 multiply-adds a cycle, 1.9 GHz under AMX"),
    "avx512_bf16": Efficiency(128 * 2.4e9, "FLOP/s a core", "two 512 bit units, 32 bf16 multiply-adds each"),
    "avx512f": Efficiency(64 * 2.4e9, "FLOP/s a core", "two 512 bit units, 16 float32 multiply-adds each"),
    "avx2": Efficiency(32 * 2.6e9, "FLOP/s a core", "two 256 bit units, 8 float32 multiply-adds each"),
    "none": Efficiency(8 * 2.6e9, "FLOP/s a core", "128 bit units"),
}
CORE_BANDWIDTH = Efficiency(12e9, "bytes/s a core", "one core's STREAM triad on current servers: 11 to 15 GB/s")

# How much of the hardware's speed an engine keeps.
ENGINE_MEMORY: dict[str, Efficiency] = {
    "vllm": Efficiency(1.0, "of memory bandwidth", "the overheads above say the rest"),
    "bigdl": Efficiency(0.53, "of memory bandwidth", "the seed: 17.18 tok/s on one Xeon 8480+ (307 GB/s), 7B sym_int8"),
    "onnx": Efficiency(0.60, "of memory bandwidth", "onnxruntime MatMulInteger reads weights once, activations in float32"),
}

# Memory beside weights and KV cache.
GPU_MEMORY_SHARE = Efficiency(0.90, "of the accelerator's memory", "vLLM's default gpu_memory_utilization")
GPU_CONTEXT = Efficiency(0.6 * GIB, "bytes an accelerator", "driver context, libraries and workspaces outside torch")
GPU_COLLECTIVES = Efficiency(0.5 * GIB, "bytes an accelerator", "NCCL or RCCL buffers if tensor parallel")
GPU_GRAPHS = Efficiency(0.3 * GIB, "bytes an accelerator", "captured graphs of the decode batch sizes")
BATCHED_TOKENS = Efficiency(8192, "tokens a step", "vLLM's default max_num_batched_tokens on data centre GPUs")
RAY_PROCESSES = Efficiency(1.5 * GIB, "bytes of RAM a cell", "measured: GCS, raylet, dashboard, Serve")
CPU_ENGINE_PROCESS = Efficiency(2.0 * GIB, "bytes of RAM a replica", "measured: torch, vLLM and its API process on CPU")
GPU_WORKER_PROCESS = Efficiency(4.0 * GIB, "bytes of RAM an accelerator", "measured: torch, CUDA, pinned buffers")
CPU_KV_SHARE = Efficiency(1 / 16, "of the host's memory", "modest: taken at start, used or not; 1 GiB at least")
BODY_BYTES_PER_TOKEN = Efficiency(8, "bytes", "English is 4.4 a token; JSON escapes make 6 of a character")

# Above this a reader waits for the text; a CPU that is slower than this at one request is not used unless asked.
SLOWEST_TOKEN = Efficiency(0.25, "s a token", "4 tokens/s: a person reads 4 to 5 words a second")
# A prompt and answer rarely fill the context: KV capacity is judged with sequences of this part of it.
CONTEXT_FILL = Efficiency(0.25, "of the context", "chat and retrieval traces: median well under a quarter")
