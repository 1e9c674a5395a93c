"""All accelerators of a host, of all vendors: numbered in the order of their PCI addresses, partitions after them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..common.machine import Machine
from .accelerators import VENDORS
from .amd import probe_amd
from .devices import Numbered, VendorFacts, card_of
from .findings import Findings
from .hardware import Accelerator, Problem
from .intel import probe_habana, probe_intel
from .nvidia import probe_nvidia
from .pci import PciDevice, accelerators, count_nvswitches, probe_pci

SMALL_WINDOW = 256 * 1024**2  # bytes; every card of the table asks for at least this much


@dataclass(frozen=True)
class AcceleratorFacts:
    """Accelerators and the versions of their drivers."""

    accelerators: tuple[Accelerator, ...] = ()
    drivers: dict[str, str] | None = None


def probe_accelerators(machine: Machine) -> Findings[AcceleratorFacts]:
    """PCI first, then each vendor's own tools for the devices that are there."""
    everything = probe_pci(machine)
    numbered = tuple(enumerate(accelerators(machine, everything)))
    found = [
        _probe(machine, vendor, devices, count_nvswitches(everything))
        for vendor in dict.fromkeys(VENDORS.values())
        if (devices := [pair for pair in numbered if VENDORS[pair[1].vendor] == vendor])
    ]
    wholes = sorted((item for facts in found for item in facts.accelerators), key=lambda item: item.index)
    parts = [part for facts in found for part in facts.partitions]
    listed = (*wholes, *(replace(part, index=len(wholes) + place) for place, part in enumerate(parts)))
    source = "; ".join(dict.fromkeys(facts.source for facts in found)) or "PCI sysfs"
    return Findings(
        AcceleratorFacts(listed, {name: text for facts in found for name, text in facts.drivers.items()}),
        (*(problem for facts in found for problem in facts.problems), *small_windows(numbered)),
        {"accelerators": source},
    )


def small_windows(devices: Numbered) -> tuple[Problem, ...]:
    """The problem of known accelerators whose memory the firmware gave no room in the PCI address space.

    Their driver then fails to start ("BAR1 is 0M"), or copies through a keyhole.
    """
    narrow = [device.address for _, device in devices if card_of(device, None) and 0 < _widest(device) < SMALL_WINDOW]
    if not narrow:
        return ()
    text = f"the firmware gave {', '.join(narrow)} no PCI window for the accelerator's memory"
    fix = "turn on memory mapped I/O above 4 GB in the BIOS (PowerEdge: Integrated Devices), then restart the host"
    return (Problem("small-bar", text, fix),)


def _widest(device: PciDevice) -> int:
    return max(device.bars, default=0)


def _probe(machine: Machine, vendor: str, devices: list[tuple[int, PciDevice]], nvswitches: int) -> VendorFacts:
    numbered: Numbered = devices
    if vendor == "nvidia":
        return probe_nvidia(machine, numbered, nvswitches)
    return {"amd": probe_amd, "intel": probe_intel, "habana": probe_habana}[vendor](machine, numbered)
