"""Parsers of nvidia-smi's outputs: CSV query, XML, list (-L) and topology, as drivers 470 to 580 print them."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from .hardware import Accelerator
from .pci import PciDevice
from .tool_output import address_in, fault_in, number_in

MIB = 1024**2
FIELDS = (
    "index",
    "pci.bus_id",
    "name",
    "uuid",
    "memory.total",
    "memory.reserved",
    "driver_version",
    "mig.mode.current",
)
# Asked by themselves: a driver that does not know one of them answers none.
HEALTH_FIELDS = (
    "pci.bus_id",
    "ecc.errors.uncorrected.volatile.total",
    "remapped_rows.pending",
    "remapped_rows.failure",
    "retired_pages.pending",
)
HEALTH = ("nvidia-smi", f"--query-gpu={','.join(HEALTH_FIELDS)}", "--format=csv,noheader,nounits")
QUERY = ("nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
XML = ("nvidia-smi", "-q", "-x")
XML_FIELDS = (
    "product_name",
    "uuid",
    "pci/pci_bus_id",
    "fb_memory_usage/total",
    "fb_memory_usage/reserved",
    "mig_mode/current_mig",
)
LIST = ("nvidia-smi", "-L")
TOPOLOGY = ("nvidia-smi", "topo", "-m")


@dataclass(frozen=True)
class GpuRow:
    """One GPU as the driver knows it; ``memory`` is what CUDA can hand out: total less reserved."""

    index: int
    address: str  # as sysfs writes it
    name: str
    uuid: str
    memory: int | None
    driver: str
    mig: bool
    fault: str = ""  # what nvidia-smi says in place of a value where the GPU does not answer


@dataclass(frozen=True)
class MigDevice:
    """One MIG instance; ``index`` counts within its GPU."""

    gpu_uuid: str
    index: int
    profile: str  # "1g.10gb"
    uuid: str


def parse_query(text: str) -> tuple[GpuRow, ...]:
    """Rows of the CSV query; lines of another shape (warnings, garbage) are left out, whatever the exit status was."""
    rows = []
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        address = address_in(cells[1]) if len(cells) == len(FIELDS) else ""
        if not address or not cells[0].isdecimal():
            continue
        total, reserved = (_mib(cell) for cell in cells[4:6])
        memory = total - (reserved or 0) if total else None
        mig, fault = cells[7] == "Enabled", fault_in(cells)
        rows.append(GpuRow(int(cells[0]), address, cells[2], cells[3], memory, cells[6], mig, fault))
    return tuple(rows)


def parse_health(text: str) -> dict[str, str]:
    """What is wrong with each GPU of the query of its errors, by PCI address; "" for a healthy one.

    Uncorrectable errors count since the driver was loaded or the GPU was reset: both clear what can be cleared.
    """
    found = {}
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        address = address_in(cells[0]) if len(cells) == len(HEALTH_FIELDS) else ""
        if address:
            errors, pending, failed, retired = cells[1:]
            count = number_in(errors)
            fault = f"{count} uncorrectable memory errors" if count else ""
            fault = fault or ("memory that has to be remapped by a reset" if "Yes" in (pending, retired) else "")
            found[address] = "memory that cannot be remapped" if failed == "Yes" else fault or fault_in(cells)
    return found


def parse_xml(text: str) -> tuple[tuple[GpuRow, ...], dict[tuple[str, int], int]]:
    """GPUs, and bytes of each MIG instance by (UUID of its GPU, index). Empty for text that is no XML."""
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return (), {}
    driver = tree.findtext("driver_version", "")
    rows, mig_memory = [], {}
    for index, gpu in enumerate(tree.findall("gpu")):
        address = address_in(gpu.findtext("pci/pci_bus_id")) or address_in(gpu.get("id"))
        if not address:
            continue
        uuid = gpu.findtext("uuid", "")
        total, reserved = _mib(gpu.findtext("fb_memory_usage/total")), _mib(gpu.findtext("fb_memory_usage/reserved"))
        rows.append(
            GpuRow(
                index=index,
                address=address,
                name=gpu.findtext("product_name", ""),
                uuid=uuid,
                memory=total - (reserved or 0) if total else None,
                driver=driver,
                mig=gpu.findtext("mig_mode/current_mig") == "Enabled",
                fault=fault_in([driver, *(gpu.findtext(field) for field in XML_FIELDS)]),
            )
        )
        for part in gpu.findall("mig_devices/mig_device"):
            size, number = _mib(part.findtext("fb_memory_usage/total")), part.findtext("index", "")
            if size and number.isdecimal():
                kept = _mib(part.findtext("fb_memory_usage/reserved")) or 0
                mig_memory[uuid, int(number)] = size - kept
    return tuple(rows), mig_memory


def parse_list(text: str) -> tuple[MigDevice, ...]:
    """MIG instances of ``nvidia-smi -L``, each under the line of its GPU."""
    found, gpu = [], ""
    for line in text.splitlines():
        if head := re.match(r"GPU \d+: .*\(UUID: (\S+)\)", line):
            gpu = head[1]
        elif line.startswith("GPU "):
            gpu = ""  # one that does not say its own name
        elif part := re.match(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[\w/-]+)\)", line):
            found.append(MigDevice(gpu, int(part[2]), part[1], part[3]))
    return tuple(found)


def parse_topology(text: str) -> dict[int, dict[int, str]]:
    """Links between GPUs of ``nvidia-smi topo -m``: {0: {1: "NV18", 2: "SYS"}}. The header is underlined by escapes."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    columns: list[str] = []
    links: dict[int, dict[int, str]] = {}
    for line in plain.splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        if not columns and "GPU0" in cells[1:]:
            columns = cells[1:]
        elif columns and re.fullmatch(r"GPU\d+", cells[0]):
            others = ((name, cell) for name, cell in _pairs(columns, cells[1:]) if cell != "X")
            links[int(cells[0][3:])] = {int(name[3:]): cell for name, cell in others if re.fullmatch(r"GPU\d+", name)}
    return links


def _pairs(columns: list[str], cells: list[str]) -> list[tuple[str, str]]:
    """Columns with their cells; a row may have more of either (`zip` knows `strict` from Python 3.10 on only)."""
    return [(columns[place], cells[place]) for place in range(min(len(columns), len(cells)))]


def vgpu_partition(name: str) -> str | None:
    """A virtual GPU's profile out of its name: "GRID A100D-40C" is "vgpu-40c"."""
    found = re.search(r"-(\d+[ABCQ])$", name)
    return f"vgpu-{found[1].lower()}" if found else None


def mig_accelerator(parent: Accelerator, device: PciDevice, part: MigDevice, memory: int | None) -> Accelerator:
    """A MIG instance as an accelerator of its own; instances have no link to each other."""
    return Accelerator(
        index=-1,
        vendor="nvidia",
        model=f"{parent.model} MIG {part.profile}",
        kind=parent.kind,
        memory=memory or _named_size(part.profile),
        pci_address=device.address,
        pci_id=device.pci_id,
        numa_node=device.numa_node,
        driver=parent.driver,
        partition=f"mig-{part.profile}",
        uuid=part.uuid,
    )


def _named_size(profile: str) -> int | None:
    """Memory of "1g.10gb", of which an instance has 19 in 20 parts at least."""
    found = re.search(r"\.(\d+)gb", profile)
    return int(found[1]) * 1024 * MIB * 9 // 10 if found else None


def _mib(cell: str | None) -> int | None:
    """ "81559" or "81559 MiB" in bytes; None for "[N/A]"."""
    found = re.match(r"(\d+)", cell or "")
    return int(found[1]) * MIB if found else None
