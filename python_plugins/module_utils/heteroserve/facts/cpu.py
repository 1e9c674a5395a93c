"""Processors: model, sockets, cores and instruction sets from /proc/cpuinfo, NUMA nodes from sysfs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.machine import Machine
from .allowance import Allowance, cores_of, parse_ids
from .findings import Findings
from .hardware import Cpu

# Kernel flag names that decide which engine and number format a processor can run well.
ISA = (
    "avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
NODES = "/sys/devices/system/node"
EVERYTHING = Allowance()


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


def parse_cpuinfo(text: str, allowed: frozenset[int] | None = None) -> CpuIdentity:
    """Read /proc/cpuinfo of x86 or ARM. ARM prints no sockets and no model name: one socket, "ARM".

    Of ``allowed`` CPUs only, where those are not all: then cores are counted by their ids.
    """
    every = [_fields(block) for block in re.split(r"\n\s*\n", text.strip()) if "processor" in block]
    blocks = [block for block in every if allowed is None or _number(block["processor"]) in allowed] or every
    first = blocks[0] if blocks else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    arm = "CPU implementer" in first
    per_socket: dict[str, int] = {}
    for block in blocks:
        per_socket[block.get("physical id", "0")] = _number(block.get("cpu cores")) or 0
    cores = sum(per_socket.values()) or len(blocks)
    if len(blocks) < len(every):
        cores = len({(block.get("physical id"), block.get("core id") or block["processor"]) for block in blocks})
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


def count_numa_nodes(cpus: Sequence[frozenset[int]], allowed: frozenset[int] | None = None) -> int:
    """Number of nodes with a CPU that may be used, from the CPUs of each; one where the kernel shows none.

    Nodes without CPUs are memory of another kind: a GPU's, or behind CXL.
    """
    with_cpus = [ids for ids in cpus if ids]
    return sum(allowed is None or bool(ids & allowed) for ids in with_cpus) or len(with_cpus) or len(cpus) or 1


def cpu_from(identity: CpuIdentity, numa_nodes: int, quota: float | None = None) -> Cpu:
    """The record of the facts; memory figures come from ``memory``.

    A hypervisor makes up sockets: those that share a memory node are one processor. ``quota`` is CPUs' worth of time.
    """
    cores = min(identity.cores, cores_of(quota)) if quota else identity.cores
    return Cpu(
        model=identity.model_name,
        vendor=identity.vendor,
        sockets=min(identity.sockets, numa_nodes) if identity.hypervisor else identity.sockets,
        cores=cores,
        threads=identity.threads,
        numa_nodes=numa_nodes,
        isa=identity.isa,
        reachable_cores=identity.cores if cores < identity.cores else None,
    )


def probe_cpu(machine: Machine, allowance: Allowance = EVERYTHING) -> Findings[CpuIdentity]:
    """Processors of the host that may be used."""
    text = machine.read("/proc/cpuinfo") or ""
    identity = parse_cpuinfo(text, allowance.cpus)
    source = "/proc/cpuinfo"
    if identity.threads < (threads := parse_cpuinfo(text).threads):
        source += f"; CPU affinity or a cpuset allows {identity.threads} of {threads} CPUs"
    if allowance.quota and allowance.quota < identity.threads:
        source += f"; a control group allows {allowance.quota:g} CPUs' worth of time"
    return Findings(identity, sources={"cpu": source})


def probe_numa(machine: Machine, allowance: Allowance = EVERYTHING) -> int:
    """NUMA nodes of the host with CPUs that may be used."""
    names = [name for name in machine.names(NODES) if re.fullmatch(r"node\d+", name)]
    lists = [parse_ids(machine.read(f"{NODES}/{name}/cpulist") or "") for name in names]
    return count_numa_nodes(lists, allowance.cpus)


def _fields(block: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
