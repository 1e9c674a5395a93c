"""Processors: model, sockets, cores and instruction sets from /proc/cpuinfo, NUMA nodes from sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..common.machine import Machine
from .findings import Findings
from .hardware import Cpu

# Kernel flag names that decide which engine and number format a processor can run well.
ISA = (
    "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
NODES = "/sys/devices/system/node"


@dataclass(frozen=True)
class CpuIdentity:
    """What /proc/cpuinfo says; family and model as the kernel prints them, in decimal."""

    model_name: str
    vendor: str
    family: int | None
    model: int | None
    sockets: int
    cores: int
    threads: int
    isa: tuple[str, ...]
    hypervisor: bool


def parse_cpuinfo(text: str) -> CpuIdentity:
    """Read /proc/cpuinfo of x86 or ARM. ARM prints no sockets and no model name: one socket, "ARM"."""
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text.strip()) if "processor" in block]
    first = blocks[0] if blocks else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    arm = "CPU implementer" in first
    per_socket: dict[str, int] = {}
    for block in blocks:
        per_socket[block.get("physical id", "0")] = _number(block.get("cpu cores")) or 0
    cores = sum(per_socket.values()) or len(blocks)
    return CpuIdentity(
        model_name=first.get("model name") or ("ARM" if arm else "unknown"),
        vendor="arm" if arm else VENDORS.get(first.get("vendor_id", ""), "other"),
        family=_number(first.get("cpu family")),
        model=_number(first.get("model")),
        sockets=max(1, len(per_socket)),
        cores=cores,
        threads=len(blocks),
        isa=tuple(flag for flag in ISA if flag in flags),
        hypervisor="hypervisor" in flags,
    )


def count_numa_nodes(names: tuple[str, ...]) -> int:
    """Number of ``nodeN`` folders; one where the kernel shows none."""
    return sum(bool(re.fullmatch(r"node\d+", name)) for name in names) or 1


def cpu_from(identity: CpuIdentity, numa_nodes: int) -> Cpu:
    """The record of the facts; memory figures come from ``memory``."""
    return Cpu(
        model=identity.model_name,
        vendor=identity.vendor,
        sockets=identity.sockets,
        cores=identity.cores,
        threads=identity.threads,
        numa_nodes=numa_nodes,
        isa=identity.isa,
    )


def probe_cpu(machine: Machine) -> Findings[CpuIdentity]:
    """Processors of the host."""
    identity = parse_cpuinfo(machine.read("/proc/cpuinfo") or "")
    return Findings(identity, sources={"cpu": "/proc/cpuinfo"})


def probe_numa(machine: Machine) -> int:
    """NUMA nodes of the host."""
    return count_numa_nodes(machine.names(NODES))


def _fields(block: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
