"""Intel GPUs through xpu-smi, and Gaudi (PCI vendor Habana Labs) through hl-smi; PCI and cards without them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..common.machine import CommandResult, Machine
from .devices import Numbered, VendorFacts, accelerator, missing_driver, passed_through, why_not_driven
from .drivers import module_mismatch
from .hardware import Accelerator, Problem

MIB = 1024**2
GPU_DRIVERS = ("i915", "xe")
GAUDI_DRIVERS = ("habanalabs",)
XPU_SMI = ("xpu-smi", "discovery", "-j")
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


def parse_discovery(text: str) -> tuple[DeviceRow, ...]:
    """``xpu-smi discovery -j``: devices without their memory, which only the page of each has."""
    try:
        data = json.loads(text)
        listed = [item for item in data["device_list"] if "pci_bdf_address" in item]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(_discovered(item) for item in listed)


def parse_memory(text: str) -> int | None:
    """Bytes of ``xpu-smi discovery -d N -j``."""
    try:
        return int(json.loads(text)["memory_physical_size_byte"])
    except (ValueError, KeyError, TypeError):
        return None


def parse_hl_smi(text: str) -> tuple[DeviceRow, ...]:
    """The CSV of ``hl-smi -Q``; memory is MiB. Lines of another shape are left out."""
    rows = []
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(cells) != len(GAUDI_FIELDS) or not cells[0].isdigit():
            continue
        memory = cells[4].split()[0] if cells[4].strip() else ""
        size = int(memory) * MIB if memory.isdigit() else None
        module, address, name, version = (cells[column].strip() for column in (1, 2, 3, 5))
        rows.append(DeviceRow(module, address.lower(), name, size, driver=version))
    return tuple(rows)


def probe_intel(machine: Machine, devices: Numbered) -> VendorFacts:
    """Data Center GPU Max and Flex, and Arc."""
    running = next((name for name in GPU_DRIVERS if machine.exists(f"/sys/module/{name}")), None)
    driven = any(device.driver in GPU_DRIVERS for _, device in devices)
    rows, broken = _ask(machine, XPU_SMI, parse_discovery) if driven else ({}, None)
    sizes = {
        address: parse_memory(machine.run("xpu-smi", "discovery", "-d", row.number, "-j").stdout)
        for address, row in rows.items()
    }
    rows = {address: replace(row, memory=sizes[address]) for address, row in rows.items()}
    drivers = {running: "of the kernel (running)"} if running and driven else {}
    missing = missing_driver(devices, GPU_DRIVERS, "Intel's GPU driver", installed=False)
    problems = (*missing, *passed_through(devices), *broken_of(broken))
    return _facts(devices, "intel", GPU_DRIVERS, rows, drivers, problems, "xpu-smi")


def probe_habana(machine: Machine, devices: Numbered) -> VendorFacts:
    """Gaudi 2 and 3. Their eight Ethernet meshes need no probe: a board joins all of its accelerators."""
    version = machine.read("/sys/module/habanalabs/version")
    driven = any(device.driver in GAUDI_DRIVERS for _, device in devices)
    rows, broken = _ask(machine, HL_SMI, parse_hl_smi) if driven else ({}, None)
    mismatch = module_mismatch(machine, "habanalabs", version) if driven else None
    problems = (
        *missing_driver(devices, GAUDI_DRIVERS, "Gaudi's driver (habanalabs)", version is not None),
        *passed_through(devices),
        *broken_of(broken),
        *([mismatch] if mismatch else []),
    )
    drivers = {"habanalabs": f"{version} (running)"} if version else {}
    # hl-smi names the board (HL-325L); the card's name says what it is.
    rows = {address: replace(row, name=None) for address, row in rows.items()}
    return _facts(devices, "habana", GAUDI_DRIVERS, rows, drivers, problems, "hl-smi")


def broken_of(result: CommandResult | None) -> tuple[Problem, ...]:
    """The problem of a tool that is there and gave nothing."""
    if result is None:
        return ()
    tool = result.command[0]
    what = result.explain() if not result.ok else f"{tool} printed what cannot be read"
    return (Problem(f"{tool}-failed", what, f"reinstall {tool}; memory sizes are the cards' until then"),)


def _ask(
    machine: Machine, command: tuple[str, ...], parse: Callable[[str], tuple[DeviceRow, ...]]
) -> tuple[dict[str, DeviceRow], CommandResult | None]:
    result = machine.run(*command)
    rows = parse(result.stdout) if result.ok else ()
    broken = result if not rows and result.fault != "missing" else None
    return {row.address: row for row in rows}, broken


def _facts(
    devices: Numbered,
    vendor: str,
    wanted: tuple[str, ...],
    rows: dict[str, DeviceRow],
    drivers: dict[str, str],
    problems: tuple[Problem, ...],
    tool: str,
) -> VendorFacts:
    found: list[Accelerator] = []
    for index, device in devices:
        row = rows.get(device.address) or DeviceRow("", device.address, None)
        item = accelerator(index, device, vendor, row.name, row.memory, row.driver, row.uuid)
        why_not = why_not_driven(device, wanted)
        found.append(replace(item, usable=why_not is None, why_not=why_not))
    if len(found) == 1:
        found = [replace(found[0], link="pcie")]
    return VendorFacts(tuple(found), (), drivers, problems, f"PCI sysfs, {tool}" if rows else "PCI sysfs and cards")


def _discovered(item: dict[str, Any]) -> DeviceRow:
    name = _product(str(item.get("device_name", "")))
    return DeviceRow(str(item.get("device_id", "")), str(item["pci_bdf_address"]).lower(), name)


def _product(name: str) -> str | None:
    """ "Intel(R) Data Center GPU Flex 170" as the cards write it; None for "Intel(R) Graphics [0x56c0]"."""
    plain = " ".join(name.replace("(R)", "").replace("(TM)", "").replace(" Series", "").split())
    return None if "[0x" in plain or not plain else plain
