"""Environment of a cell's processes, the same under both runtimes.

``pods`` puts it into the pod, ``serving.ray_cell`` into Ray's processes on the host; so the module runs on hosts too,
and imports nothing of the plan. What differs between replicas of one cell, the cores, is not here: a replica is told of
them when it starts (``serving/engines/vllm_server.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

GIB = 1024**3
# A vendor's variable for the devices that a process may see, and those that make it count as the facts do.
VISIBLE = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
    "habana": "HABANA_VISIBLE_MODULES",
}
BY_PCI_ADDRESS = {"nvidia": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "intel": {"ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1"}}
# What a user's shell may have set: a cell sees what the plan gives it. Ray refuses ROCR_VISIBLE_DEVICES
# (ray/_private/accelerators/amd_gpu.py), and vLLM a CUDA_VISIBLE_DEVICES that differs from HIP_VISIBLE_DEVICES
# (vllm/platforms/rocm.py).
NOT_INHERITED = (
    *VISIBLE.values(),
    "CUDA_DEVICE_ORDER",
    "GPU_DEVICE_ORDINAL",
    "ONEAPI_DEVICE_SELECTOR",
    "ROCR_VISIBLE_DEVICES",
    "ZE_ENABLE_PCI_ID_DEVICE_ORDER",
)
OPEN_FILES = 65_536  # what a container runtime lets a process open, at the least


def visible_devices(vendor: str, names: Sequence[str]) -> dict[str, str]:
    """Variables by which processes see these accelerators alone, in this order; none of NVIDIA's for processors."""
    if vendor == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    return {VISIBLE[vendor]: ",".join(names), **BY_PCI_ADDRESS.get(vendor, {})}


def engine_environment(
    vendor: str, kv_cache_bytes: int, sequences: int, open_files: int = OPEN_FILES
) -> dict[str, str]:
    """Variables of Ray Serve and the engine.

    Arguments: ``vendor`` whose accelerators the cell runs on ("cpu" for processors); ``kv_cache_bytes`` of one replica;
    ``sequences`` that all replicas of the cell may run at once; ``open_files`` that a process may have at most.

    The first three carry the bytes past Ray's Python proxy: measured on one H200 at 256 clients against plain vLLM,
    0.43 of its throughput without them and 0.98 with.
    """
    # No more than requests that could wait. HAProxy asks for some 12 files a connection and ends at its start if it may
    # not have them.
    connections = min(max(256, min(4096, 4 * sequences)), open_files // 16)
    variables = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_MAXCONN": str(connections),
        # Also how long a replica may take to answer Serve's HAProxy when its last check failed. By default a replica
        # that is busy for 250 ms, as with some hundred new requests, is taken out.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "5s",
        # Requests go to the engine's server, not through Serve's handler.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.replica:middlewares",
        # Seconds that a stopping replica keeps answering, at least; Serve's HAProxy leaves it out within one.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        # Ray lowers its workers' priority by 15: on a busy host the engine would wait for everything else.
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if vendor == "cpu":
        # vLLM takes whole GiB here.
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, math.ceil(kv_cache_bytes / GIB)))
        # vLLM compiles its sampler at the first request with a temperature, whatever enforce_eager says; where there is
        # no C++ compiler, as in the image, the engine dies of it.
        variables["TORCH_COMPILE_DISABLE"] = "1"
    return variables
