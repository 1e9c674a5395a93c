"""PCI devices from sysfs: works before any driver is installed and needs no tool and no root."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.machine import Machine
from .accelerators import VENDORS, card_for_pci
from .hardware import GIB

DEVICES = "/sys/bus/pci/devices"
# PCI classes (two bytes) of things that compute or draw.
VGA, DISPLAY_3D, DISPLAY_OTHER, PROCESSING = 0x0300, 0x0302, 0x0380, 0x1200
CLASSES = (VGA, DISPLAY_3D, DISPLAY_OTHER, PROCESSING)
INTEGRATED_LIMIT = 4 * GIB  # an AMD processor's own graphics carves less than this out of the host's memory
NVSWITCHES = ("10de:1af1", "10de:22a3")  # A100 and H100 boards; pci.ids names them so


@dataclass(frozen=True)
class PciDevice:
    """One function of a PCI device; ids are four hexadecimal digits, BAR sizes bytes."""

    address: str  # "0000:19:00.0"
    vendor: str
    device: str
    class_code: int  # two bytes
    subsystem: str | None = None  # "10de:16c1"
    numa_node: int | None = None
    driver: str | None = None
    bars: tuple[int, ...] = ()
    is_virtual_function: bool = False
    virtual_functions: int = 0  # that are switched on

    @property
    def pci_id(self) -> str:
        """Vendor and device, such as "10de:2330"."""
        return f"{self.vendor}:{self.device}"


def parse_resource(text: str) -> tuple[int, ...]:
    """Sizes of the six BARs that are in use, from sysfs ``resource`` (start, end and flags a line)."""
    sizes = []
    for line in text.splitlines()[:6]:
        parts = line.split()
        if len(parts) == 3 and int(parts[1], 16):
            sizes.append(int(parts[1], 16) - int(parts[0], 16) + 1)
    return tuple(sizes)


def is_accelerator(device: PciDevice, vram: int | None = None) -> bool:
    """Whether a device computes by itself: known cards, and discrete GPUs that the table does not know.

    Left out are processors' own graphics (Intel's always sits on bus 0; AMD's has little ``vram``), Intel's NPUs
    and look-aside engines, and the server's own VGA controller (another vendor).
    """
    if device.vendor not in VENDORS or device.class_code not in CLASSES:
        return False
    if card_for_pci(device.vendor, device.device, device.subsystem) or device.vendor in ("10de", "1da3"):
        return True
    if device.class_code == PROCESSING and device.vendor == "8086":
        return False
    if device.vendor == "8086":
        return device.address.split(":")[1] != "00"
    return vram is None or vram >= INTEGRATED_LIMIT


def probe_pci(machine: Machine) -> tuple[PciDevice, ...]:
    """All devices of the vendors that make accelerators, in the order of their addresses."""
    found = (_read(machine, address) for address in machine.names(DEVICES))
    return tuple(device for device in found if device is not None)


def accelerators(machine: Machine, devices: tuple[PciDevice, ...]) -> tuple[PciDevice, ...]:
    """Those of ``devices`` that compute and belong to this host.

    A virtual function belongs to a guest unless a driver of this host has taken it.
    """
    return tuple(
        device
        for device in devices
        if is_accelerator(device, machine.read_int(f"{DEVICES}/{device.address}/mem_info_vram_total"))
        and not (device.is_virtual_function and device.driver in (None, "vfio-pci"))
    )


def count_nvswitches(devices: tuple[PciDevice, ...]) -> int:
    """NVSwitches that sit on the PCI bus."""
    return sum(device.pci_id in NVSWITCHES for device in devices)


def _read(machine: Machine, address: str) -> PciDevice | None:
    folder = f"{DEVICES}/{address}"
    vendor = _hex(machine, f"{folder}/vendor")
    if vendor not in VENDORS:
        return None
    node = machine.read_int(f"{folder}/numa_node")
    owner, model = _hex(machine, f"{folder}/subsystem_vendor"), _hex(machine, f"{folder}/subsystem_device")
    return PciDevice(
        address=address,
        vendor=vendor,
        device=_hex(machine, f"{folder}/device"),
        class_code=(machine.read_int(f"{folder}/class", 0) or 0) >> 8,
        subsystem=f"{owner}:{model}" if owner and model else None,
        numa_node=node if node is not None and node >= 0 else None,
        driver=machine.link_name(f"{folder}/driver"),
        bars=parse_resource(machine.read(f"{folder}/resource") or ""),
        is_virtual_function=machine.exists(f"{folder}/physfn"),
        virtual_functions=machine.read_int(f"{folder}/sriov_numvfs") or 0,
    )


def _hex(machine: Machine, path: str) -> str:
    number = machine.read_int(path, 0)
    return "" if number is None else f"{number:04x}"
