"""Hardware that an inventory declares in a few words, expanded to the facts that a probe would have found.

``hardware: {server: xe9680, accelerators: {kind: nvidia-h100-sxm-80gb, count: 8}, cpu: xeon-8480+, memory_gib: 2048}``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ..common.records import from_dict
from .accelerators import CARDS, VENDORS, AcceleratorCard
from .hardware import Accelerator, Cpu, Hardware, Nic, hardware_from_dict

GIB = 1024**3
AVX2 = ("avx2",)
ZEN4 = (*AVX2, "avx512f", "avx512_vnni", "avx512_bf16")
SAPPHIRE_RAPIDS = (*ZEN4, "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class CpuCard:
    """A processor as its maker's datasheet has it: cores, memory channels and speed of one socket."""

    model: str
    vendor: str
    cores: int
    isa: tuple[str, ...]
    channels: int
    mts: int


@dataclass(frozen=True)
class ServerCard:
    """A server: what it is called, its sockets and the processor it usually has."""

    model: str
    sockets: int
    cpu: str  # usual processor


# Intel ARK and AMD's product pages.
CPU_CARDS: dict[str, CpuCard] = {
    "xeon-8480+": CpuCard("Intel Xeon Platinum 8480+", "intel", 56, SAPPHIRE_RAPIDS, 8, 4800),
    "xeon-6430": CpuCard("Intel Xeon Gold 6430", "intel", 32, SAPPHIRE_RAPIDS, 8, 4400),
    "xeon-8568y+": CpuCard("Intel Xeon Platinum 8568Y+", "intel", 48, SAPPHIRE_RAPIDS, 8, 5600),
    "xeon-8592+": CpuCard("Intel Xeon Platinum 8592+", "intel", 64, SAPPHIRE_RAPIDS, 8, 5600),
    "xeon-6787p": CpuCard("Intel Xeon 6787P", "intel", 86, SAPPHIRE_RAPIDS, 8, 6400),
    "epyc-7763": CpuCard("AMD EPYC 7763", "amd", 64, AVX2, 8, 3200),
    "epyc-9354": CpuCard("AMD EPYC 9354", "amd", 32, ZEN4, 12, 4800),
    "epyc-9554": CpuCard("AMD EPYC 9554", "amd", 64, ZEN4, 12, 4800),
    "epyc-9654": CpuCard("AMD EPYC 9654", "amd", 96, ZEN4, 12, 4800),
    "epyc-9575f": CpuCard("AMD EPYC 9575F", "amd", 64, ZEN4, 12, 6000),
}

# Dell's technical guides.
SERVER_CARDS: dict[str, ServerCard] = {
    "xe9680": ServerCard("PowerEdge XE9680", 2, "xeon-8480+"),
    "xe8545": ServerCard("PowerEdge XE8545", 2, "epyc-7763"),
    "xe8640": ServerCard("PowerEdge XE8640", 2, "xeon-8480+"),
    "r760xa": ServerCard("PowerEdge R760xa", 2, "xeon-8480+"),
    "r760": ServerCard("PowerEdge R760", 2, "xeon-8480+"),
    "r750xa": ServerCard("PowerEdge R750xa", 2, "xeon-6430"),
    "r7625": ServerCard("PowerEdge R7625", 2, "epyc-9354"),
    "r7615": ServerCard("PowerEdge R7615", 1, "epyc-9554"),
    "r7725": ServerCard("PowerEdge R7725", 2, "epyc-9575f"),
}


@dataclass(frozen=True)
class DeclaredCpu:
    """Processors that no card describes; rates of one socket."""

    model: str
    cores: int  # of one socket
    sockets: int = 1
    vendor: str = "other"
    threads_per_core: int = 2
    isa: tuple[str, ...] = ()
    channels: int | None = None
    mts: int | None = None


@dataclass(frozen=True)
class DeclaredAccelerators:
    """Equal accelerators."""

    kind: str
    count: int
    link: str | None = None  # the card's own where left out
    pairs: bool = False  # joined in pairs by bridges (NVLink bridges of PCIe cards)


@dataclass(frozen=True)
class DeclaredHardware:
    """The keys of a short ``hardware:`` declaration."""

    memory_gib: float
    server: str | None = None
    cpu: str | DeclaredCpu | None = None
    sockets: int | None = None
    accelerators: DeclaredAccelerators | tuple[DeclaredAccelerators, ...] = field(default_factory=tuple)
    nic_gbits: int | None = None
    address: str | None = None


def hardware_of(
    declared: dict[str, Any], where: str = "hardware", cards: Mapping[str, AcceleratorCard] | None = None
) -> Hardware:
    """Expand a declaration, or read one that already has every fact.

    ``cards`` are all that there are; without them a kind of the inventory's own is taken at its word, for whoever asks
    after the plan only counts accelerators.
    Raises ``ValueError`` that names the key at fault and the nearest known one.
    """
    if not isinstance(declared, dict):
        raise ValueError(f"{where}: expected a mapping")
    if "memory" in declared:
        try:
            return hardware_from_dict(declared)
        except ValueError as fault:
            raise ValueError(f"{where}.{fault}") from fault
    short = from_dict(DeclaredHardware, declared, where, texts=True)
    server = _card(SERVER_CARDS, short.server, f"{where}.server") if short.server else None
    accelerators: list[Accelerator] = []
    groups = short.accelerators if isinstance(short.accelerators, tuple) else (short.accelerators,)
    for number, group in enumerate(groups):
        accelerators += _accelerators(group, len(accelerators), f"{where}.accelerators[{number}].kind", cards)
    nics = (Nic("declared", speed_mbits=short.nic_gbits * 1000, faces_cluster=True),) if short.nic_gbits else ()
    return Hardware(
        cpu=_cpu(short, server, where),
        memory=int(short.memory_gib * GIB),
        accelerators=tuple(accelerators),
        nics=nics,
        server_model=server.model if server else None,
        address=short.address,
        sources={"all": "declared in the inventory"},
    )


def _card(cards: dict[str, Any], name: str, where: str) -> Any:
    card = cards.get(name.lower())
    if card is None:
        near = get_close_matches(name.lower(), list(cards), n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(cards)}"
        raise ValueError(f"{where}: found {name!r}{hint}")
    return card


def _cpu(short: DeclaredHardware, server: ServerCard | None, where: str) -> Cpu:
    if isinstance(short.cpu, DeclaredCpu):
        own = short.cpu
        card = CpuCard(own.model, own.vendor, own.cores, own.isa, own.channels or 0, own.mts or 0)
        sockets, threads = short.sockets or own.sockets, own.threads_per_core
    else:
        name = short.cpu or (server.cpu if server else None)
        if name is None:
            raise ValueError(f"{where}.cpu: missing; set a processor such as 'xeon-8480+', or `server`")
        card = _card(CPU_CARDS, name, f"{where}.cpu")
        sockets, threads = short.sockets or (server.sockets if server else 1), 2
    channels = card.channels * sockets
    return Cpu(
        model=card.model,
        vendor=card.vendor,
        sockets=sockets,
        cores=card.cores * sockets,
        threads=card.cores * sockets * threads,
        numa_nodes=sockets,
        isa=card.isa,
        memory_channels=channels or None,
        memory_mts=card.mts or None,
        memory_bandwidth=channels * card.mts * 8e6 if channels and card.mts else None,
    )


def _accelerators(
    group: DeclaredAccelerators, start: int, where: str, cards: Mapping[str, AcceleratorCard] | None
) -> list[Accelerator]:
    vendor = group.kind.partition("-")[0]
    if cards is None and group.kind not in CARDS and vendor in VENDORS.values():
        return [Accelerator(start + number, vendor, group.kind, group.kind, None) for number in range(group.count)]
    card = _card(dict(cards or CARDS), group.kind, where)
    indices = range(start, start + group.count)
    link = group.link or card.link
    out = []
    for index in indices:
        if group.pairs:
            peers: tuple[int, ...] = (start + ((index - start) ^ 1),)
            peers = tuple(peer for peer in peers if peer in indices)
        else:
            peers = tuple(peer for peer in indices if peer != index) if link != "pcie" else ()
        out.append(Accelerator(index, card.vendor, card.name, card.kind, card.memory, link=link, peers=peers))
    return out
