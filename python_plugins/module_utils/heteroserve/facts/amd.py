"""AMD GPUs: sysfs of the amdgpu module and the KFD topology know memory, partitions and links without ROCm;
amd-smi (or rocm-smi before it) adds product names where it is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from ..common.machine import CommandResult, Machine
from .devices import (
    Numbered,
    VendorFacts,
    accelerator,
    blanket_fault,
    blocked,
    judged,
    lost,
    missing_driver,
    passed_through,
    why_not_driven,
)
from .drivers import module_mismatch
from .hardware import Accelerator, Problem
from .pci import DEVICES, PciDevice
from .tool_output import address_in, before_json, fault_in_json, faults_by_address, json_in, number_in

DRIVERS = ("amdgpu",)
MIB = 1024**2
AMD_SMI = ("amd-smi", "static", "--asic", "--bus", "--vram", "--driver", "--json")
ROCM_SMI = ("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showbus", "--json")
NODES = "/sys/class/kfd/kfd/topology/nodes"
XGMI = 11  # link type in the KFD topology; 2 is PCIe
MODES = {"DPX": 2, "TPX": 3, "QPX": 4}  # accelerators that a compute partition mode makes of one
CPX = {"amd-mi300a-128gb": 6}  # one for each compute die; the other CDNA 3 and 4 accelerators have eight


@dataclass(frozen=True)
class GpuRow:
    """One GPU as a ROCm tool names it."""

    address: str
    name: str | None
    memory: int | None
    fault: str = ""  # what the tool says in place of a value where the GPU does not answer


def parse_amd_smi(text: str) -> tuple[GpuRow, ...]:
    """``amd-smi static --json``: a list of GPUs, since ROCm 7 under "gpu_data". Empty for anything else."""
    data = json_in(text)
    if isinstance(data, dict):
        data = data.get("gpu_data", [data])
    rows = []
    for gpu in data if isinstance(data, list) else []:
        size = _get(gpu, "vram", "size") or _get(gpu, "vram", "vram_size")
        if address := address_in(_get(gpu, "bus", "bdf")):
            rows.append(GpuRow(address, _name(_get(gpu, "asic", "market_name")), _size(size), fault_in_json(gpu)))
    return tuple(rows)


def parse_rocm_smi(text: str) -> tuple[GpuRow, ...]:
    """``rocm-smi --json`` of ROCm 5 and 6: {"card0": {"PCI Bus": ..., "Card Series": ...}}."""
    data = json_in(text)
    rows = []
    for gpu in data.values() if isinstance(data, dict) else []:
        known = {key.lower(): value for key, value in gpu.items()} if isinstance(gpu, dict) else {}
        if address := address_in(known.get("pci bus")):
            name = _name(known.get("card series")) or _name(known.get("card model"))
            rows.append(GpuRow(address, name, number_in(known.get("vram total memory (b)")), fault_in_json(gpu)))
    return tuple(rows)


def parse_errors(text: str) -> int:
    """Uncorrectable errors in a ``ras/*_err_count`` file of the amdgpu module ("ue: 0", "ce: 3")."""
    found = re.search(r"^ue:\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def location_address(location_id: int, domain: int) -> str:
    """PCI address of a KFD node without its function, which numbers the partitions of one GPU."""
    return f"{domain:04x}:{location_id >> 8 & 0xFF:02x}:{location_id >> 3 & 0x1F:02x}"


def parse_properties(text: str) -> dict[str, int]:
    """``properties`` of a KFD node or link: a name and a number a line."""
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", text, re.MULTILINE)}


def probe_amd(machine: Machine, devices: Numbered) -> VendorFacts:
    """All AMD GPUs of ``devices``. A partitioned one is unusable as a whole; its partitions stand beside it."""
    version = machine.read("/sys/module/amdgpu/version")
    running = machine.exists("/sys/module/amdgpu")
    drivers = {"amdgpu": f"{version or 'of the kernel'} (running)"} if running else {}
    problems = [*missing_driver(devices, DRIVERS, "AMD's driver (amdgpu)", running), *passed_through(devices)]
    if mismatch := module_mismatch(machine, "amdgpu", version):
        problems.append(mismatch)
    driven = any(device.driver in DRIVERS for _, device in devices)
    answer = _ask(machine) if driven else Answer()
    rows, tool = answer.rows, answer.tool
    if answer.problem:
        problems.append(answer.problem)
    found = [_read(machine, index, device, rows.get(device.address), version) for index, device in devices]
    found = judged(blocked(found, answer.blocks), answer.listed, answer.faults, tool)
    problems += lost(found, tool)
    errors = {device.address: _uncorrectable(machine, device) for _, device in devices}
    found = judged(found, False, errors, "amdgpu")
    problems += lost(found, "amdgpu")
    modes = {device.address: _modes(machine, device) for _, device in devices}
    found = _linked(machine, found)
    parts = tuple(part for item in found for part in _partitions(item, *modes[item.pci_address or ""]))
    found = [_whole(item, *modes[item.pci_address or ""]) for item in found]
    source = "PCI sysfs, amdgpu sysfs and KFD" if driven else "PCI sysfs and cards"
    return VendorFacts(tuple(found), parts, drivers, tuple(problems), f"{source}, {tool}" if tool else source)


@dataclass(frozen=True)
class Answer:
    """What a ROCm tool made known: rows and faults by PCI address."""

    rows: dict[str, GpuRow] = field(default_factory=dict)
    problem: Problem | None = None
    tool: str = ""
    faults: dict[str, str] = field(default_factory=dict)
    listed: bool = False  # a GPU that is not in the rows is lost
    blocks: str = ""  # why no GPU can be used, in one sentence


def _ask(machine: Machine) -> Answer:
    """Product names from amd-smi, else rocm-smi. Neither is needed; one that is there and broken is a problem."""
    broken: CommandResult | None = None
    for command, parse in ((AMD_SMI, parse_amd_smi), (ROCM_SMI, parse_rocm_smi)):
        result = machine.run(*command)
        rows = parse(result.stdout)  # whatever the exit status: a warning is one
        if rows:
            faults = {**faults_by_address(result.text), **{row.address: row.fault for row in rows if row.fault}}
            known = {row.address: row for row in rows}
            faults = {**dict.fromkeys(known, ""), **faults}
            return Answer(known, _warning(command[0], result), command[0], faults, listed=True)
        if result.ok and json_in(result.stdout) in ([], {}, {"gpu_data": []}):
            return Answer(tool=command[0], listed=True)
        if result.fault != "missing":
            broken = broken or result
    if broken is None:
        return Answer()
    what = broken.explain() if not broken.ok else f"{broken.command[0]} printed what cannot be read"
    problem = Problem("amd-smi-failed", what, "reinstall ROCm's tools; sysfs is used until then")
    tool = broken.command[0]
    return Answer({}, problem, tool, faults_by_address(broken.text), blocks=blanket_fault(tool, broken.text))


def _warning(tool: str, result: CommandResult) -> Problem | None:
    """What a tool said beside its answer."""
    said = before_json(result.stdout) or ("" if result.ok else result.explain())
    if not said:
        return None
    return Problem("gpu-tool-warning", f"{tool} warns: {said[:200]}", "the GPUs that it lists are used anyway")


def _read(machine: Machine, index: int, device: PciDevice, row: GpuRow | None, version: str | None) -> Accelerator:
    folder = f"{DEVICES}/{device.address}"
    row = None if row and row.fault else row
    name = (row.name if row else None) or machine.read(f"{folder}/product_name") or None
    memory = machine.read_int(f"{folder}/mem_info_vram_total") or (row.memory if row else None)
    unique = machine.read(f"{folder}/unique_id")
    item = accelerator(index, device, "amd", name, memory, version, f"GPU-{unique}" if unique else None)
    why_not = why_not_driven(device, DRIVERS)
    return replace(item, usable=why_not is None, why_not=why_not)


def _uncorrectable(machine: Machine, device: PciDevice) -> str:
    """What the amdgpu module counts of a GPU that it drives; "" for a healthy one."""
    folder = f"{DEVICES}/{device.address}/ras"
    blocks = [name for name in machine.names(folder) if name.endswith("_err_count")]
    count = sum(parse_errors(machine.read(f"{folder}/{name}") or "") for name in blocks)
    return f"{count} uncorrectable errors" if count else ""


def _modes(machine: Machine, device: PciDevice) -> tuple[str, str]:
    """Compute and memory partition mode, such as ("CPX", "NPS4"); ("SPX", "NPS1") is a whole GPU."""
    folder = f"{DEVICES}/{device.address}"
    compute = machine.read(f"{folder}/current_compute_partition") or "SPX"
    return compute, machine.read(f"{folder}/current_memory_partition") or "NPS1"


def _count(item: Accelerator, compute: str) -> int:
    return CPX.get(item.kind, 8) if compute == "CPX" else MODES.get(compute, 1)


def _whole(item: Accelerator, compute: str, memory: str) -> Accelerator:
    count = _count(item, compute)
    if count == 1 or not item.usable:
        return item
    why = f"it is split into {count} ({compute}, {memory}): only its partitions can be used"
    return replace(item, usable=False, why_not=why)


def _partitions(item: Accelerator, compute: str, memory: str) -> tuple[Accelerator, ...]:
    """The partitions of one GPU; each counts an equal part of the memory, whatever part it can reach."""
    count = _count(item, compute)
    if count == 1 or not item.usable:
        return ()
    part = replace(
        item,
        index=-1,
        model=f"{item.model} {compute}",
        memory=item.memory // count if item.memory else None,
        partition=f"{compute.lower()}-{memory.lower()}",
        link="pcie",  # partitions have no link of their own
        peers=(),
        uuid=None,
        ordinal=None,
    )
    return (part,) * count


def _linked(machine: Machine, found: list[Accelerator]) -> list[Accelerator]:
    """Peers over xGMI from the KFD topology, and HIP's numbers, which follow it; without it what the cards have."""
    names = sorted((name for name in machine.names(NODES) if name.isdecimal()), key=int)
    nodes = {name: parse_properties(machine.read(f"{NODES}/{name}/properties") or "") for name in names}
    places = {
        name: location_address(node.get("location_id", 0), node.get("domain", 0))
        for name, node in nodes.items()
        if node.get("simd_count")
    }
    if not places:
        return [_with_peers(item, ()) for item in found] if len(found) == 1 else found
    order = list(places.values())
    found = [replace(item, ordinal=order.index(place)) if (place := _place(item)) in order else item for item in found]
    hosts = {_place(item): item for item in found}
    reached: dict[int, set[int]] = {item.index: set() for item in found}
    for name, place in places.items():
        for link in machine.names(f"{NODES}/{name}/io_links"):
            link_facts = parse_properties(machine.read(f"{NODES}/{name}/io_links/{link}/properties") or "")
            peer = places.get(str(link_facts.get("node_to")))
            if link_facts.get("type") == XGMI and peer in hosts and place in hosts and peer != place:
                reached[hosts[place].index].add(hosts[peer].index)
    return [_with_peers(item, tuple(sorted(reached[item.index]))) for item in found]


def _place(item: Accelerator) -> str:
    return (item.pci_address or "").rsplit(".", 1)[0]


def _with_peers(item: Accelerator, peers: tuple[int, ...]) -> Accelerator:
    return replace(item, link="xgmi" if peers else "pcie", peers=peers)


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _size(value: Any) -> int | None:
    """{"value": 196592, "unit": "MB"} in bytes; amd-smi's MB are binary."""
    number = number_in(_get(value, "value"))
    unit = {"B": 1, "KB": 1024, "MB": MIB, "GB": 1024 * MIB}.get(str(_get(value, "unit")))
    return number * unit if number and unit else None


def _name(value: Any) -> str | None:
    """A product's name; tools write "N/A" for one that they do not know."""
    known = isinstance(value, str) and value.strip() not in ("", "N/A") and not value.startswith("0x")
    return value.strip() if known else None
