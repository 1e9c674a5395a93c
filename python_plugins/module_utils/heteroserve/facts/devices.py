"""What the vendors' probes share: from a PCI device and a product name to an ``Accelerator``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .accelerators import CARDS, card_for_name, card_for_pci
from .cards.card import AcceleratorCard
from .hardware import Accelerator, Problem
from .pci import PciDevice
from .tool_output import fault_in, faults_by_address

Numbered = Sequence[tuple[int, PciDevice]]  # index on the host, device
NO_COMPUTE_DRIVERS = (None, "nouveau", "nvidiafb", "radeon")  # the wanted driver can replace these


@dataclass(frozen=True)
class VendorFacts:
    """All accelerators of one vendor. ``partitions`` get their indices when all vendors are together."""

    accelerators: tuple[Accelerator, ...] = ()
    partitions: tuple[Accelerator, ...] = ()
    drivers: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    source: str = "PCI sysfs and cards"


def card_of(device: PciDevice, name: str | None) -> AcceleratorCard | None:
    """The card by the tool's product name where that is known (ids can be shared), else by PCI id."""
    named = card_for_name(name) if name else None
    return named or card_for_pci(device.vendor, device.device, device.subsystem)


def accelerator(
    index: int,
    device: PciDevice,
    vendor: str,
    name: str | None = None,
    memory: int | None = None,
    version: str | None = None,
    uuid: str | None = None,
) -> Accelerator:
    """A whole device. Without a tool's figures, name and memory are the card's."""
    card = card_of(device, name)
    return Accelerator(
        index=index,
        vendor=vendor,
        model=name or (card.name if card else f"{vendor} device {device.pci_id}"),
        kind=card.kind if card else f"unknown-{device.pci_id}",
        memory=memory or (card.memory if card else None),
        pci_address=device.address,
        pci_id=device.pci_id,
        numa_node=device.numa_node,
        link=card.link if card else "pcie",
        driver=f"{device.driver} {version}" if device.driver and version else device.driver,
        uuid=uuid,
    )


def why_not_driven(device: PciDevice, wanted: Sequence[str]) -> str | None:
    """Why the bound driver keeps this host from using the device; None where it does not."""
    if device.virtual_functions:
        return f"it is split into {device.virtual_functions} virtual functions for virtual machines"
    if device.driver in wanted:
        return None
    if device.driver is None:
        return "no driver is bound to it"
    if device.driver == "vfio-pci":
        return "it is bound to vfio-pci, which hands it to a virtual machine"
    return f"it is bound to the driver {device.driver}, which cannot compute"


def missing_driver(devices: Numbered, wanted: Sequence[str], package: str, installed: bool) -> tuple[Problem, ...]:
    """The problem of devices that wait for their driver: not installed, or installed and not loaded."""
    waiting = [device for _, device in devices if device.driver in NO_COMPUTE_DRIVERS and device.driver not in wanted]
    if not waiting:
        return ()
    ids = ", ".join(dict.fromkeys(device.pci_id for device in waiting))
    held = [device.driver for device in waiting if device.driver]
    by = f" ({held[0]} is bound to {len(held)})" if held else ""
    what = f"no driver that can compute is bound to {_many(len(waiting), 'accelerator')} ({ids}){by}"
    if installed:
        fix = f"load it (modprobe {wanted[0]}) and look at `dmesg` and `dkms status`, or restart the host"
        return (Problem("driver-not-loaded", f"{what} although {package} is installed", fix),)
    return (Problem("no-driver", what, f"install {package}; the stage hosts does it"),)


def judged(found: Sequence[Accelerator], listed: bool, faults: dict[str, str], tool: str) -> list[Accelerator]:
    """``found`` without those that ``tool`` reports a fault of. ``faults`` has, by PCI address, the words of the tool,
    and "" for a device that it lists and finds nothing wrong with; with ``listed`` a device that is not in it is lost.
    """
    out = []
    for item in found:
        fault = faults.get(item.pci_address or "")
        why = f"{tool} reports {fault!r} for it" if fault else None
        if fault is None and listed:
            why = f"{tool} does not list it: it has fallen off the bus or failed to start"
        out.append(replace(item, usable=False, why_not=why) if why and item.usable else item)
    return out


def blocked(found: Sequence[Accelerator], why: str) -> list[Accelerator]:
    """``found``, none of which can be used."""
    return [replace(item, usable=False, why_not=why) if why and item.usable else item for item in found]


def blanket_fault(tool: str, said: str) -> str:
    """Why no device can be used when a tool lists none and reports a fault that names none; "" where it does not."""
    fault = "" if faults_by_address(said) else fault_in([said])
    return f"{tool} reports {fault!r} and not for which device" if fault else ""


def lost(found: Sequence[Accelerator], tool: str) -> tuple[Problem, ...]:
    """The problems of devices that ``judged`` has taken out."""
    missing = [item.pci_address or "" for item in found if (item.why_not or "").startswith(f"{tool} does not list")]
    broken = [item for item in found if (item.why_not or "").startswith(f"{tool} reports")]
    problems = []
    if missing:
        text = f"{tool} does not list {', '.join(missing)}, which the PCI bus shows"
        fix = "look for its errors in `dmesg` (NVIDIA: Xid 79), restart the host, then have the GPU replaced"
        problems.append(Problem("gpu-lost", text, fix))
    for item in broken:
        text = f"{item.pci_address} is not used: {(item.why_not or '').removesuffix(' for it')}"
        fix = "restart the host, or reset the GPU (nvidia-smi --gpu-reset, amd-smi reset --gpureset) when it is idle"
        problems.append(Problem("gpu-lost", text, f"{fix}; have it replaced if that does not last"))
    return tuple(problems)


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def passed_through(devices: Numbered) -> tuple[Problem, ...]:
    """The problem of devices that this host has given away."""
    given = [device.address for _, device in devices if device.driver == "vfio-pci"]
    if not given:
        return ()
    text = f"{', '.join(given)} bound to vfio-pci: this host cannot use what a virtual machine may"
    return (Problem("gpu-passed-through", text, "take them out of vfio-pci's ids, or list the guest as a host"),)


def fast_link(kind: str, peers: int, devices: int, nvswitches: int = 0) -> str:
    """Name of the widest link of an accelerator that reaches ``peers`` others of ``devices`` over it.

    More than four GPUs that all reach each other need switches: direct NVLink joins four at most.
    """
    card = CARDS.get(kind)
    link = card.link if card and card.link != "pcie" else (card.bridge if card else None) or "pcie"
    if link == "nvlink" and (nvswitches or (devices > 4 and peers == devices - 1)):
        return "nvswitch"
    return link
