"""What the runtime ``ray`` hands over: accelerators by the names that the vendor's own runtime knows them by.

Under ``k3s`` the device plugin chooses them, and a pod sees no others. Under ``ray`` all processes see all
accelerators of the host, and the index in the facts (a place on the PCI bus among all vendors) means nothing to CUDA,
HIP or Level Zero.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..facts.hardware import Accelerator, Hardware

UUID = re.compile(r"GPU-[0-9A-Za-z-]+")
NO_PARTITIONS = (
    "turn the partitioning off (nvidia-smi -mig 0; amd-smi set --compute-partition SPX), or set `runtime: k3s`, whose "
    "device plugin hands out partitions"
)


def refusal(item: Accelerator, runtime: str) -> str | None:
    """Why the runtime cannot hand over an accelerator; a virtual machine's share of a GPU (vGPU) is a device to it.

    vLLM 0.29 takes a MIG instance's number within its GPU for a GPU's (platforms/cuda.py, nvmlDeviceGetIndex; its
    maintainers: "please use docker for MIG", vllm#6551), and only numbers for AMD's.
    """
    if runtime != "ray" or item.partition is None or item.partition.startswith("vgpu-"):
        return None
    return f"{item.model} is a partition, which the runtime ray cannot hand to one process alone"


def visible(hardware: Hardware, indices: Collection[int]) -> tuple[str, ...]:
    """Accelerators of one vendor as its variable for visible devices names them, in the order of ``indices``.

    UUIDs where they are known (NVIDIA: CUDA takes them, and they stay when another GPU is lost); else numbers, the
    driver's own or, of hardware that an inventory declares, its place among the vendor's accelerators. Never a mixture:
    CUDA stops reading at the first name of another kind.
    """
    every = {item.index: item for item in hardware.accelerators}
    chosen = [every[index] for index in indices]
    if chosen and all(item.vendor == "nvidia" and UUID.fullmatch(item.uuid or "") for item in chosen):
        return tuple(item.uuid or "" for item in chosen)
    if all(item.ordinal is not None for item in chosen):
        return tuple(str(item.ordinal) for item in chosen)
    return tuple(str(_count(item, hardware)) for item in chosen)


def _count(item: Accelerator, hardware: Hardware) -> int:
    same = [other.index for other in hardware.accelerators if other.vendor == item.vendor and other.usable]
    return same.index(item.index) if item.index in same else item.index


def followed(
    devices: tuple[tuple[int, ...], ...], names: tuple[tuple[str, ...], ...], hardware: tuple[Hardware, ...]
) -> tuple[tuple[int, ...], ...] | None:
    """Where the accelerators of an earlier plan are now: indices move when one before them is lost or added.

    None if one of them is gone. What was handed over by number stays at its index.
    """
    if not names or not all(UUID.fullmatch(name) for own in names for name in own):
        return devices
    out = []
    for own, host in zip(names, hardware, strict=True):
        where = {item.uuid: item.index for item in host.accelerators if item.uuid}
        if not set(own) <= set(where):
            return None
        out.append(tuple(where[name] for name in own))
    return tuple(out)
