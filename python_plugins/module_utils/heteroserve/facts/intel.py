"""Intel GPUs through xpu-smi, and Gaudi (PCI vendor Habana Labs) through hl-smi; PCI and cards without them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from .tool_output import address_in, fault_in, fault_in_json, faults_by_address, json_in, number_in

MIB = 1024**2
GPU_DRIVERS = ("i915", "xe")
GAUDI_DRIVERS = ("habanalabs",)
XPU_SMI = ("xpu-smi", "discovery", "-j")
XPU_HEALTH = ("xpu-smi", "health", "-l", "-j")
GAUDI_FIELDS = ("index", "module_id", "bus_id", "name", "memory.total", "driver_version")
HL_SMI = ("hl-smi", "-Q", ",".join(GAUDI_FIELDS), "-f", "csv,noheader,nounits")


@dataclass(frozen=True)
class DeviceRow:
    """One device as a tool names it; ``number`` is the tool's own."""

    number: str
    address: str
    name: str | None
    memory: int | None = None
    uuid: str | None = None
    driver: str | None = None
    fault: str = ""  # what the tool says in place of a value where the device does not answer


def parse_discovery(text: str) -> tuple[DeviceRow, ...]:
    """``xpu-smi discovery -j``: devices without their memory, which only the page of each has."""
    return tuple(_discovered(item) for item in _devices(text) if address_in(item.get("pci_bdf_address")))


def parse_page(text: str) -> tuple[int | None, str]:
    """Bytes of memory of ``xpu-smi discovery -d N -j``, and what is wrong with the device."""
    data = json_in(text)
    page = data if isinstance(data, dict) else {}
    said = page.get("error")
    return number_in(page.get("memory_physical_size_byte")), str(said) if said else fault_in_json(page)


def parse_health(text: str) -> dict[str, str]:
    """What ``xpu-smi health -l -j`` says of each device's parts, by the tool's number; "" for a healthy one."""
    found = {}
    for item in _devices(text):
        bad = [
            f"{name.replace('_', ' ')}: {part.get('status')}"
            for name, part in item.items()
            if isinstance(part, dict) and str(part.get("status", "")).lower() in ("critical", "failed")
        ]
        found[str(item.get("device_id", ""))] = ", ".join(bad)
    return found


def parse_hl_smi(text: str) -> tuple[DeviceRow, ...]:
    """The CSV of ``hl-smi -Q``; memory is MiB. Lines of another shape are left out."""
    rows = []
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        address = address_in(cells[2]) if len(cells) == len(GAUDI_FIELDS) else ""
        if not address:
            continue
        size = number_in(cells[4].removesuffix("MiB"))
        module, name, version = (cells[column].strip() for column in (1, 3, 5))
        memory = size * MIB if size else None
        rows.append(DeviceRow(module, address, name, memory, driver=version, fault=fault_in(cells)))
    return tuple(rows)


def probe_intel(machine: Machine, devices: Numbered) -> VendorFacts:
    """Data Center GPU Max and Flex, and Arc."""
    running = next((name for name in GPU_DRIVERS if machine.exists(f"/sys/module/{name}")), None)
    driven = any(device.driver in GPU_DRIVERS for _, device in devices)
    result = machine.run(*XPU_SMI) if driven else None
    rows = _rows(result, parse_discovery)
    health = parse_health(machine.run(*XPU_HEALTH).stdout) if rows else {}
    rows = {address: _with_page(machine, row, health.get(row.number, "")) for address, row in rows.items()}
    drivers = {running: "of the kernel (running)"} if running and driven else {}
    missing = missing_driver(devices, GPU_DRIVERS, "Intel's GPU driver", installed=False)
    problems = (*missing, *passed_through(devices), *broken_of(result, rows))
    return _facts(devices, "intel", GPU_DRIVERS, rows, drivers, problems, result)


def probe_habana(machine: Machine, devices: Numbered) -> VendorFacts:
    """Gaudi 2 and 3. Their eight Ethernet meshes need no probe: a board joins all of its accelerators."""
    version = machine.read("/sys/module/habanalabs/version")
    driven = any(device.driver in GAUDI_DRIVERS for _, device in devices)
    result = machine.run(*HL_SMI) if driven else None
    rows = _rows(result, parse_hl_smi)
    mismatch = module_mismatch(machine, "habanalabs", version) if driven else None
    problems = (
        *missing_driver(devices, GAUDI_DRIVERS, "Gaudi's driver (habanalabs)", version is not None),
        *passed_through(devices),
        *broken_of(result, rows),
        *([mismatch] if mismatch else []),
    )
    drivers = {"habanalabs": f"{version} (running)"} if version else {}
    # hl-smi names the board (HL-325L); the card's name says what it is.
    rows = {address: replace(row, name=None) for address, row in rows.items()}
    return _facts(devices, "habana", GAUDI_DRIVERS, rows, drivers, problems, result)


def broken_of(result: CommandResult | None, rows: dict[str, DeviceRow]) -> tuple[Problem, ...]:
    """The problem of a tool that is there and gave nothing."""
    if result is None or rows or result.fault == "missing":
        return ()
    tool = result.command[0]
    what = result.explain() if not result.ok else f"{tool} printed what cannot be read"
    return (Problem(f"{tool}-failed", what, f"reinstall {tool}; memory sizes are the cards' until then"),)


def _rows(result: CommandResult | None, parse: Callable[[str], tuple[DeviceRow, ...]]) -> dict[str, DeviceRow]:
    """Devices by PCI address, whatever the exit status: a warning is one, and so is one broken device among others."""
    if result is None:
        return {}
    named = faults_by_address(result.text)
    return {row.address: replace(row, fault=row.fault or named.get(row.address, "")) for row in parse(result.stdout)}


def _facts(
    devices: Numbered,
    vendor: str,
    wanted: tuple[str, ...],
    rows: dict[str, DeviceRow],
    drivers: dict[str, str],
    problems: tuple[Problem, ...],
    result: CommandResult | None,
) -> VendorFacts:
    tool = result.command[0] if result else ""
    faults = faults_by_address(result.text) if result else {}
    faults |= {address: row.fault for address, row in rows.items()}
    found: list[Accelerator] = []
    for index, device in devices:
        row = rows.get(device.address)
        row = DeviceRow("", device.address, None) if row is None or row.fault else row
        item = accelerator(index, device, vendor, row.name, row.memory, row.driver, row.uuid)
        item = replace(item, ordinal=int(row.number) if row.number.isdecimal() else None)
        why_not = why_not_driven(device, wanted)
        found.append(replace(item, usable=why_not is None, why_not=why_not))
    if len(found) == 1:
        found = [replace(found[0], link="pcie")]
    if result and not rows:
        found = blocked(found, blanket_fault(tool, result.text))
    nothing = result is not None and result.ok and json_in(result.stdout) in ({"device_list": []}, {})
    found = judged(found, bool(rows) or nothing, faults, tool)
    source = f"PCI sysfs, {tool}" if rows else "PCI sysfs and cards"
    return VendorFacts(tuple(found), (), drivers, (*problems, *lost(found, tool)), source)


def _devices(text: str) -> list[dict[str, Any]]:
    """The devices that xpu-smi lists; none where it prints an error, or anything else."""
    data = json_in(text)
    listed = data.get("device_list") if isinstance(data, dict) else None
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _with_page(machine: Machine, row: DeviceRow, sick: str) -> DeviceRow:
    """A device with what its own page and its health say."""
    if not row.number.isdecimal():
        return row
    result = machine.run("xpu-smi", "discovery", "-d", row.number, "-j")
    memory, fault = parse_page(result.stdout)
    if result.fault == "timeout":
        fault = result.explain()
    return replace(row, memory=memory, fault=row.fault or fault or sick)


def _discovered(item: dict[str, Any]) -> DeviceRow:
    name = _product(str(item.get("device_name", "")))
    address = address_in(item["pci_bdf_address"])
    return DeviceRow(str(item.get("device_id", "")), address, name, fault=fault_in_json(item))


def _product(name: str) -> str | None:
    """ "Intel(R) Data Center GPU Flex 170" as the cards write it; None for "Intel(R) Graphics [0x56c0]"."""
    plain = " ".join(name.replace("(R)", "").replace("(TM)", "").replace(" Series", "").split())
    return None if "[0x" in plain or not plain else plain
