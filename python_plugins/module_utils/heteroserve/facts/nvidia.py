"""NVIDIA GPUs: PCI devices joined with what nvidia-smi says of them, and what it means when it says nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from ..common.machine import CommandResult, Machine
from . import nvidia_smi as smi
from .accelerators import CARDS
from .devices import (
    Numbered,
    VendorFacts,
    accelerator,
    blanket_fault,
    fast_link,
    judged,
    lost,
    missing_driver,
    passed_through,
    why_not_driven,
)
from .drivers import DriverVersions, nvidia_mismatch, nvidia_versions
from .hardware import Accelerator, Problem
from .pci import PciDevice
from .tool_output import faults_by_address

DRIVERS = ("nvidia",)
UUID = r"GPU-[0-9A-Za-z-]+"


@dataclass(frozen=True)
class Answer:
    """What nvidia-smi made known: ``rows`` by PCI address, or why there are none."""

    rows: dict[str, smi.GpuRow]
    problem: Problem | None = None
    blocks: str | None = None  # why no GPU can be used, in one sentence
    source: str = "nvidia-smi"
    faults: dict[str, str] = field(default_factory=dict)  # by PCI address; "" where nothing is wrong


def probe_nvidia(machine: Machine, devices: Numbered, nvswitches: int = 0) -> VendorFacts:
    """All NVIDIA GPUs of ``devices``; never fails: a broken driver or tool is a problem in the result."""
    versions = nvidia_versions(machine)
    drivers = {"nvidia": str(versions)} if str(versions) else {}
    bound = [device for _, device in devices if device.driver in DRIVERS]
    installed = versions.library is not None
    problems = [*missing_driver(devices, DRIVERS, "NVIDIA's driver", installed), *passed_through(devices)]
    if not bound:
        found = tuple(_undriven(machine, index, device) for index, device in devices)
        return VendorFacts(
            _linked_by_cards(found, nvswitches), drivers=drivers, problems=tuple(problems), source="PCI sysfs and cards"
        )
    answer = ask(machine, versions)
    if answer.problem:
        problems.append(answer.problem)
    joined = [_joined(machine, index, device, answer, versions) for index, device in devices]
    found = tuple(judged(joined, bool(answer.rows), answer.faults, "nvidia-smi"))
    problems += lost(found, "nvidia-smi")
    found = _linked(machine, found, answer, nvswitches)
    partitions = _mig(machine, found, {device.address: device for _, device in devices}, answer)
    return VendorFacts(found, partitions, drivers, tuple(problems), f"PCI sysfs, {answer.source}")


def ask(machine: Machine, versions: DriverVersions) -> Answer:
    """Run nvidia-smi, fall back to its XML where the driver is too old for the query, and judge what came."""
    result = machine.run(*smi.QUERY)
    # It ends with 14 for a warning and 15 for one lost GPU among others, and lists what it knows all the same.
    rows = smi.parse_query(result.stdout)
    if result.code not in (0, None) and "not a valid field" in result.text:
        result = machine.run(*smi.XML)
        rows, _ = smi.parse_xml(result.stdout)
    faults = faults_by_address(result.text)
    if rows:
        health = smi.parse_health(machine.run(*smi.HEALTH).stdout)
        for row in rows:
            faults[row.address] = row.fault or faults.get(row.address) or health.get(row.address, "")
        return Answer({row.address: row for row in rows}, faults=faults)
    return replace(_no_rows(machine, result, versions), faults=faults)


def _no_rows(machine: Machine, result: CommandResult, versions: DriverVersions) -> Answer:
    """Why nvidia-smi gave no GPU. Only what keeps programs from the GPU blocks it; a broken tool alone does not."""
    fallback = "cards (nvidia-smi gave nothing)"
    mismatched = "version mismatch" in result.text
    differ = versions.library is not None and versions.running != versions.library
    if mismatched or (differ and result.fault in (None, "missing")):
        problem = nvidia_mismatch(machine, versions, result.text)
        if problem:
            return Answer({}, problem, "the kernel module and the library of the driver differ", fallback)
    if result.fault == "timeout":
        problem = Problem(
            "nvidia-smi-timeout",
            f"{result.explain()}: the driver or a GPU hangs",
            "look for Xid errors in `dmesg`, then restart the host",
        )
        return Answer({}, problem, f"the driver does not answer: {result.explain()}", fallback)
    if "couldn't communicate with the NVIDIA driver" in result.text:
        problem = Problem("driver-not-loaded", result.explain(), "restart the host or run `modprobe nvidia`")
        return Answer({}, problem, "the driver does not answer nvidia-smi", fallback)
    if "No devices were found" in result.text or (result.ok and not result.stdout.strip()):
        problem = Problem("gpu-lost", "the driver is loaded but finds no GPU", "look at `dmesg`, then restart the host")
        return Answer({}, problem, "the driver does not find it", fallback)
    if result.fault == "missing":
        fix = "install the driver's utilities (nvidia-utils), or let the GPU operator's driver container do it"
        problem = Problem("nvidia-smi-missing", "the driver is loaded, nvidia-smi is missing", fix)
        return Answer({}, problem, None, fallback)
    what = result.explain() if not result.ok else f"nvidia-smi printed what cannot be read: {_first(result.stdout)}"
    fix = "reinstall the driver's utilities; memory sizes are the cards' until then"
    if blocks := blanket_fault("nvidia-smi", result.text):
        fix = "look at `dmesg`, then restart the host"
        return Answer({}, Problem("nvidia-smi-failed", what, fix), blocks, fallback)
    return Answer({}, Problem("nvidia-smi-failed", what, fix), None, fallback)


def _joined(machine: Machine, index: int, device: PciDevice, answer: Answer, versions: DriverVersions) -> Accelerator:
    row = answer.rows.get(device.address)
    if row is None:
        item = _undriven(machine, index, device, versions.running)
        return item if item.why_not or not answer.blocks else replace(item, usable=False, why_not=answer.blocks)
    if row.fault:
        return _undriven(machine, index, device, versions.running)
    uuid = row.uuid if re.fullmatch(UUID, row.uuid) else None
    item = accelerator(index, device, "nvidia", row.name, row.memory, row.driver, uuid)
    item = replace(item, ordinal=row.index)
    why_not = why_not_driven(device, DRIVERS)
    if row.mig:
        why_not = "MIG is on: only its instances can be used, not the GPU as a whole"
    card = CARDS.get(item.kind)
    partition = smi.vgpu_partition(row.name) if card and row.memory and row.memory < 0.9 * card.memory else None
    return replace(item, partition=partition, usable=why_not is None, why_not=why_not)


def _undriven(machine: Machine, index: int, device: PciDevice, version: str | None = None) -> Accelerator:
    """A GPU that nvidia-smi said nothing of: the module's own page names it where it runs, else the card does."""
    page = machine.read(f"/proc/driver/nvidia/gpus/{device.address}/information") or ""
    name = re.search(r"^Model:\s*(.+?)\s*$", page, re.MULTILINE)
    uuid = re.search(rf"^GPU UUID:\s*({UUID})\s*$", page, re.MULTILINE)
    item = accelerator(
        index, device, "nvidia", name[1] if name else None, version=version, uuid=uuid[1] if uuid else None
    )
    why_not = why_not_driven(device, DRIVERS)
    return replace(item, usable=why_not is None, why_not=why_not)


def _linked(
    machine: Machine, found: tuple[Accelerator, ...], answer: Answer, nvswitches: int
) -> tuple[Accelerator, ...]:
    """Links and peers from the topology; where it cannot be read, what the cards have."""
    listed = {row.index: item.index for item in found for row in [answer.rows.get(item.pci_address or "")] if row}
    result = machine.run(*smi.TOPOLOGY) if len(listed) > 1 else None
    topology = smi.parse_topology(result.stdout) if result and result.ok else None
    if topology is None and len(listed) != 1:
        return _linked_by_cards(found, nvswitches)
    own = {host: number for number, host in listed.items()}
    linked = []
    for item in found:
        row = (topology or {}).get(own.get(item.index, -1), {})
        peers = tuple(sorted(listed[other] for other, link in row.items() if link.startswith("NV") and other in listed))
        link = fast_link(item.kind, len(peers), len(listed), nvswitches) if peers else "pcie"
        linked.append(replace(item, link=link, peers=peers))
    return tuple(linked)


def _linked_by_cards(found: tuple[Accelerator, ...], nvswitches: int) -> tuple[Accelerator, ...]:
    """Without a topology: boards with switches on the PCI bus, or more GPUs than direct links join, are switched."""
    switched = nvswitches or len(found) > 4
    return tuple(replace(item, link="nvswitch") if switched and item.link == "nvlink" else item for item in found)


def _mig(
    machine: Machine, found: tuple[Accelerator, ...], devices: dict[str, PciDevice], answer: Answer
) -> tuple[Accelerator, ...]:
    parents = {row.uuid: row.address for row in answer.rows.values() if row.mig and not answer.faults[row.address]}
    if not parents:
        return ()
    listed = smi.parse_list(machine.run(*smi.LIST).stdout)
    _, memory = smi.parse_xml(machine.run(*smi.XML).stdout)
    items = {item.pci_address: item for item in found}
    return tuple(
        smi.mig_accelerator(items[address], devices[address], part, memory.get((part.gpu_uuid, part.index)))
        for part in listed
        if (address := parents.get(part.gpu_uuid, "")) in devices
    )


def _first(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
    return "".join(char if char.isprintable() else "?" for char in line[:80])
