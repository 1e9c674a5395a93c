"""What a host offers: bays of equal accelerators, its processors, its RAM; equal hosts share one ``HostShape``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..facts.accelerators import CARDS, AcceleratorCard
from ..facts.hardware import Accelerator, Hardware
from . import efficiencies as table
from .builds import build_of
from .handover import NO_PARTITIONS, refusal
from .request import HostEntry, PlanOptions
from .roofline import Device, cpu_device

GIB = 1024**3

DESCRIBE_IT = "describe it under `serving_plan_cards` (docs/add-an-accelerator.md)"
DRIVER_PROBLEMS = ("no-driver", "driver-mismatch", "driver-not-loaded")


def available(engine: str, vendor: str, options: PlanOptions) -> bool:
    """Whether there is an environment or image that runs the engine on that vendor's accelerators."""
    build = build_of(engine, vendor)
    return build is not None and build.name in options.builds


@dataclass(frozen=True)
class Bay:
    """Equal accelerators of one host. ``islands`` are groups of indices joined by the fast link."""

    device: Device
    label: str  # "8x NVIDIA H100 80GB HBM3"
    indices: tuple[int, ...]
    islands: tuple[tuple[int, ...], ...]
    partition: str | None = None
    asked_only: bool = False  # processors of a host whose accelerators are its purpose
    unit_cores: int = 0  # processors: cores of one index
    isa: tuple[str, ...] = ()
    # Processors: NUMA node and first core of each index; none where there is one node, and where one index is the host.
    seats: tuple[tuple[int | None, int | None], ...] = ()

    @property
    def vendor(self) -> str:
        """Vendor of the accelerators, "cpu" for processors."""
        return self.device.vendor


@dataclass(frozen=True)
class HostShape:
    """All that the planner knows of a host; hosts with equal shapes are interchangeable to it."""

    bays: tuple[Bay, ...]
    ram: int  # bytes that replicas may take
    more_ram: str = ""  # what would let them take more
    idle: tuple[str, ...] = ()  # why some of its accelerators cannot be used, a sentence each
    change: str = ""  # what would make them usable
    allowed: tuple[str, ...] = ()  # models that are pinned to it, so that pins keep shapes apart


def shape_of_host(
    entry: HostEntry,
    options: PlanOptions,
    split: int,
    ours: bool,
    pinned: tuple[str, ...] = (),
    runtime: str = "k3s",
    cards: Mapping[str, AcceleratorCard] = CARDS,
) -> HostShape:
    """What a host offers. ``split`` cuts each NUMA node; ``ours`` says that a kept cell already uses its RAM."""
    hardware = entry.hardware
    usable: list[Accelerator] = []
    idle: dict[str, str] = {}
    known = waiting = 0
    for item in hardware.accelerators:
        if entry.accelerators is not None and item.index not in entry.accelerators:
            idle.setdefault(f"accelerator {item.index} is kept from the planner by the host's `accelerators`", "")
            continue
        fault = _fault(item, hardware, options, runtime, cards)
        known += item.kind in cards
        waiting += available("vllm", item.vendor, options) and not item.usable
        if fault is None:
            usable.append(item)
        else:
            idle.setdefault(*fault)
    bays = list(_bays(usable, cards))
    if options.allow_cpu and hardware.cpu.cores > 0:
        # Processors beside GPUs feed them; where no GPU's driver works, they are all that the host has.
        feeding = known > 0 and (len(usable) > 0 or waiting < known)
        bays.append(_processors(entry, options, split, asked_only=feeding))
    ram, more_ram = usable_ram(entry, options, ours)
    change = next((text for text in idle.values() if text), "")
    return HostShape(tuple(bays), ram, more_ram, tuple(idle), change, pinned)


def _fault(
    item: Accelerator, hardware: Hardware, options: PlanOptions, runtime: str, cards: Mapping[str, AcceleratorCard]
) -> tuple[str, str] | None:
    """Why an accelerator cannot be used, and what would change that."""
    card = cards.get(item.kind)
    if card is None:
        return f"{item.model} ({item.kind}) has no card with its memory and bandwidth", DESCRIBE_IT
    if not available("vllm", item.vendor, options):
        return f"no engine here drives {item.model}", "leave the host out of `serving` until one does"
    if item.usable:
        partition = refusal(item, runtime)
        return (partition, NO_PARTITIONS) if partition else None
    codes = {problem.code for problem in hardware.problems}
    lost = any(one.code == "gpu-lost" and (item.pci_address or "-") in one.text for one in hardware.problems)
    if options.drivers_managed and not lost and (item.driver is None or codes & set(DRIVER_PROBLEMS)):
        return None
    fix = next((problem.fix for problem in hardware.problems if problem.code in DRIVER_PROBLEMS), "")
    return f"{item.model} cannot be used: {(item.why_not or 'its driver does not answer').rstrip('.')}", fix


def _bays(items: Iterable[Accelerator], cards: Mapping[str, AcceleratorCard]) -> Iterable[Bay]:
    groups: dict[tuple[str, int, str, str | None], list[Accelerator]] = {}
    for item in items:
        memory = item.memory or cards[item.kind].memory
        groups.setdefault((item.kind, _rounded(memory), item.link, item.partition), []).append(item)
    for (kind, memory, link, partition), members in sorted(groups.items(), key=lambda pair: pair[1][0].index):
        members.sort(key=lambda item: item.index)
        device = device_of(kind, memory, link, partition is not None, cards)
        indices = tuple(item.index for item in members)
        label = f"{len(members)}x {members[0].model}"
        yield Bay(device, label, indices, _islands(members, link), partition)


def _rounded(memory: int) -> int:
    """Whole 64 MiB: two cards of one kind may report a few MiB apart and are equal to the planner."""
    return memory // (64 * 1024**2) * (64 * 1024**2)


def _islands(members: list[Accelerator], link: str) -> tuple[tuple[int, ...], ...]:
    """Connected groups over the fast link; a switched link joins all where the peers were not probed."""
    indices = [item.index for item in members]
    if link == "pcie":
        return tuple((index,) for index in indices)
    if not any(item.peers for item in members):
        return (tuple(indices),)
    left = {item.index: set(item.peers) for item in members}
    islands = []
    while left:
        start = min(left)
        todo, island = [start], set()
        while todo:
            index = todo.pop()
            if index in left:
                island.add(index)
                todo.extend(left.pop(index))
        islands.append(tuple(sorted(island)))
    return tuple(islands)


def device_of(
    kind: str,
    memory: int | None = None,
    link: str | None = None,
    partition: bool = False,
    cards: Mapping[str, AcceleratorCard] = CARDS,
) -> Device:
    """The card of an accelerator as the roofline reads it; a partition has bandwidth and speed by its memory's part."""
    card = cards[kind]
    part = min(1.0, (memory or card.memory) / card.memory) if partition else 1.0
    return Device(
        kind=kind,
        vendor=card.vendor,
        memory=memory or card.memory,
        bandwidth=card.bandwidth * part,
        flops={name: peak * part for name, peak in card.flops.items()},
        link=link or card.link,
        link_bandwidth=card.link_rate(link or card.link),
        pcie_bandwidth=card.pcie_bandwidth,
    )


def usable_ram(entry: HostEntry, options: PlanOptions, ours: bool) -> tuple[int, str]:
    """RAM that replicas may take, and what would make it more.

    It is what is installed less the reserve, and no more than is free now on a busy host.
    """
    memory = entry.hardware.memory
    if options.reserve_memory_gib is not None:
        reserve = int(options.reserve_memory_gib * GIB)
        bound = "lower `reserve_memory_gib`, or add memory to the host"
    else:
        reserve = min(32 * GIB, max(2 * GIB, memory // 8))
        bound = "add memory to the host"
    ram = memory - reserve
    if entry.memory_gib is not None and entry.memory_gib * GIB < ram:
        ram, bound = int(entry.memory_gib * GIB), "raise the host's `serving_limits.memory_gib`"
    free = entry.hardware.memory_available
    if free is not None and not ours and free < ram:
        grain = max(GIB // 4, memory // 64)  # coarse, so that a busy minute does not change the plan
        ram, bound = free // grain * grain, "end programs on the host that hold memory"
    return max(0, ram), bound


def _processors(entry: HostEntry, options: PlanOptions, split: int, asked_only: bool) -> Bay:
    """A host's processors as a bay with one index a NUMA node (or a part of one where models outnumber nodes).

    vLLM takes all memory of a replica from one node.
    """
    cpu = entry.hardware.cpu
    cores = min(cpu.cores, entry.cores) if entry.cores else cpu.cores
    nodes = min(cpu.domains, cores)
    parts = max(1, min(split, cores // nodes))
    units = nodes * parts
    bandwidth = cpu.memory_bandwidth
    if bandwidth is None and cpu.memory_channels and cpu.memory_mts:
        bandwidth = cpu.memory_channels * cpu.memory_mts * 8e6
    ram, _ = usable_ram(entry, options, ours=True)
    device = cpu_device(cores // units, ram // units, bandwidth / units if bandwidth else None, cpu.isa)
    indices = tuple(range(units))
    islands = tuple((index,) for index in indices)
    seats = tuple(
        (
            index // parts if nodes > 1 else None,
            index % parts * (cores // units) if cores // units < (cpu.reachable_cores or cpu.cores) else None,
        )
        for index in indices
    )
    label = f"{max(1, min(cpu.sockets, cores))}x {cpu.model}"
    return Bay(device, label, indices, islands, None, asked_only, cores // units, cpu.isa, seats)


def gpu_memory(device: Device) -> int:
    """Bytes of one accelerator that an engine may take."""
    return int(device.memory * table.GPU_MEMORY_SHARE.value)
