"""Memory: size from /proc/meminfo, channels and rate from the DIMMs (dmidecode, root) or a stated estimate."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..common.machine import Machine
from .allowance import Allowance, node_memory
from .cards.cpu import cpu_card
from .cpu import EVERYTHING, CpuIdentity
from .findings import Findings

DMIDECODE = ("dmidecode", "-t", "17")


@dataclass(frozen=True)
class Dimm:
    """One populated memory slot."""

    slot: str
    size: int  # bytes
    mts: int | None  # the rate that it runs at


@dataclass(frozen=True)
class MemoryFacts:
    """Bytes installed and free; channels and bytes/s of all sockets together."""

    total: int = 0
    available: int | None = None
    channels: int | None = None
    mts: int | None = None
    bandwidth: float | None = None


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes by name."""
    found = re.findall(r"^(\w+):\s+(\d+)\s*kB", text, re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}


def parse_dimms(text: str) -> tuple[Dimm, ...]:
    """Populated slots of ``dmidecode -t 17``. Old versions say MHz and "Clock Speed" where new ones say MT/s."""
    dimms = []
    for block in text.split("\n\n"):
        size = re.search(r"^\s*Size: (\d+) (MB|GB|TB)$", block, re.MULTILINE)
        if "Memory Device" not in block or not size:
            continue
        slot = re.search(r"^\s*Locator: (.+)$", block, re.MULTILINE)
        rate = re.search(r"^\s*Configured (?:Memory|Clock) Speed: (\d+)", block, re.MULTILINE)
        rate = rate or re.search(r"^\s*Speed: (\d+)", block, re.MULTILINE)
        unit = {"MB": 1024**2, "GB": 1024**3, "TB": 1024**4}[size[2]]
        dimms.append(Dimm(slot[1].strip() if slot else "", int(size[1]) * unit, int(rate[1]) if rate else None))
    return tuple(dimms)


def from_dimms(dimms: tuple[Dimm, ...], identity: CpuIdentity) -> tuple[int, int, float] | None:
    """Channels, MT/s and bytes/s: a channel has one or two slots, and counts where at least one is filled.

    DMI does not say which slots share a channel, so filled slots count as channels up to what the sockets have.
    """
    rates = [dimm.mts for dimm in dimms if dimm.mts]
    if not rates:
        return None
    card = cpu_card(identity.vendor, identity.family, identity.model, identity.model_name)
    most = card.channels * identity.sockets if card else len(dimms)
    channels = min(len(dimms), most)
    return channels, min(rates), channels * min(rates) * 8e6


def usable(
    total: int, available: int | None, allowance: Allowance, of_nodes: int | None
) -> tuple[int, int | None, str]:
    """Bytes that may be used, those of them that are free, and what limits them."""
    limits = {"a control group": allowance.memory, "a cpuset": of_nodes}
    known = {name: limit for name, limit in limits.items() if limit is not None and 0 < limit < total}
    if not known:
        return total, available, ""
    what = min(known, key=lambda name: known[name])
    free = [number for number in (available, allowance.memory_free, known[what]) if number is not None]
    return known[what], min(free), f"; {what} allows {known[what] / 2**30:.1f} of {total / 2**30:.1f} GiB"


def probe_memory(machine: Machine, identity: CpuIdentity, allowance: Allowance = EVERYTHING) -> Findings[MemoryFacts]:
    """Memory of the host. A virtual machine's share of its host's channels cannot be known: none is stated."""
    info = parse_meminfo(machine.read("/proc/meminfo") or "")
    of_nodes = node_memory(machine, allowance.nodes)
    total, available, limit = usable(info.get("MemTotal", 0), info.get("MemAvailable"), allowance, of_nodes)
    sources = {"memory": f"/proc/meminfo{limit}"}
    if identity.hypervisor:
        sources["memory_bandwidth"] = "none: a virtual machine does not see the memory channels of its host"
        return Findings(MemoryFacts(total, available), sources=sources)
    result = machine.run(*DMIDECODE, timeout=5) if machine.is_root else None
    read = from_dimms(parse_dimms(result.stdout), identity) if result and result.ok else None
    if read:
        sources["memory_bandwidth"] = "dmidecode"
        return Findings(MemoryFacts(total, available, *read), sources=sources)
    why = result.explain() if result and not result.ok else "it names no DIMM" if result else "it needs root"
    card = cpu_card(identity.vendor, identity.family, identity.model, identity.model_name)
    if card is None:
        sources["memory_bandwidth"] = f"none: dmidecode was not read ({why}) and the processor is not in the table"
        return Findings(MemoryFacts(total, available), sources=sources)
    sources["memory_bandwidth"] = (
        f"estimate: {card.codename} with all {card.channels} channels a socket filled at {card.mts} MT/s, "
        f"because dmidecode was not read ({why})"
    )
    sockets = identity.sockets
    return Findings(
        MemoryFacts(total, available, card.channels * sockets, card.mts, card.bandwidth * sockets), sources=sources
    )
