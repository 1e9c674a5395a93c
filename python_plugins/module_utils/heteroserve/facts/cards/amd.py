"""AMD Instinct accelerators.

PCI ids: pci.ids. xGMI figures of the datasheets count both directions and all links; here one direction.
``memory`` is what amd-smi and HIP report: the sold size less 16 MiB that the firmware keeps.
"""

from __future__ import annotations

from .card import GIB, GIGA, MIB, PCIE4, PCIE5, AcceleratorCard, peaks


def _card(
    kind: str,
    name: str,
    sold: int,
    rate: float,
    flops: dict[str, float],
    links: float,
    tdp: int,
    source: str,
    ids: tuple[str, ...],
    pcie: float = PCIE5,
) -> AcceleratorCard:
    """``sold`` GiB, ``rate`` GB/s, ``links`` GB/s one way over Infinity Fabric."""
    return AcceleratorCard(
        kind=kind,
        vendor="amd",
        name=name,
        memory_sold=sold * GIB,
        memory=sold * GIB - 16 * MIB,
        bandwidth=rate * GIGA,
        flops=flops,
        link="xgmi",
        link_bandwidth=links * GIGA,
        tdp=tdp,
        source=source,
        pci_ids=ids,
        pcie_bandwidth=pcie,
    )


def _bridged(
    kind: str,
    name: str,
    sold: int,
    rate: float,
    flops: dict[str, float],
    bridge: float,
    tdp: int,
    source: str,
    ids: tuple[str, ...],
) -> AcceleratorCard:
    """A PCIe 4.0 card whose Infinity Fabric needs a bridge between the cards (``bridge`` GB/s one way)."""
    return AcceleratorCard(
        kind=kind,
        vendor="amd",
        name=name,
        memory_sold=sold * GIB,
        memory=sold * GIB - 16 * MIB,
        bandwidth=rate * GIGA,
        flops=flops,
        link="pcie",
        link_bandwidth=PCIE4,
        tdp=tdp,
        source=source,
        pci_ids=ids,
        bridge="xgmi",
        bridge_bandwidth=bridge * GIGA,
    )


CDNA3 = peaks(bfloat16=1307.4, float16=1307.4, fp8=2614.9, int8=2614.9)

AMD: tuple[AcceleratorCard, ...] = (
    _bridged("amd-mi100-32gb", "AMD Instinct MI100", 32, 1228.8,
             peaks(bfloat16=92.3, float16=184.6, int8=184.6), 138, 300, "AMD Instinct MI100 brochure",
             ("1002:738c", "1002:738e")),
    _bridged("amd-mi210-64gb", "AMD Instinct MI210", 64, 1638.4, peaks(bfloat16=181, float16=181, int8=181), 150, 300,
             "AMD Instinct MI210 datasheet", ("1002:740f",)),
    # Two dies in one package, each a device of its own: figures of one die. 740c is an MI250X on some boards,
    # with 6 % more compute; the tools' product name decides where they answer.
    _card("amd-mi250-gcd-64gb", "AMD Instinct MI250", 64, 1638.4, peaks(bfloat16=181, float16=181, int8=181), 250,
          280, "AMD Instinct MI250 datasheet", ("1002:740c",), PCIE4),
    _card("amd-mi250x-gcd-64gb", "AMD Instinct MI250X", 64, 1638.4, peaks(bfloat16=191.5, float16=191.5, int8=191.5),
          250, 280, "AMD Instinct MI250X datasheet", ("1002:7408",), PCIE4),
    # Memory is shared with the processor cores of the same package.
    _card("amd-mi300a-128gb", "AMD Instinct MI300A", 128, 5300,
          peaks(bfloat16=980.6, float16=980.6, fp8=1961.2, int8=1961.2), 384, 550, "AMD Instinct MI300A datasheet",
          ("1002:74a0",)),
    _card("amd-mi300x-192gb", "AMD Instinct MI300X", 192, 5300, CDNA3, 448, 750, "AMD Instinct MI300X datasheet",
          ("1002:74a1", "1002:74b5")),
    _card("amd-mi325x-256gb", "AMD Instinct MI325X", 256, 6000, CDNA3, 448, 1000, "AMD Instinct MI325X datasheet",
          ("1002:74a5", "1002:74b9")),
    _card("amd-mi350x-288gb", "AMD Instinct MI350X", 288, 8000,
          peaks(bfloat16=2300, float16=2300, fp8=4600, int8=4600), 537.6, 1000, "AMD Instinct MI350X datasheet",
          ("1002:75a0",)),
    _card("amd-mi355x-288gb", "AMD Instinct MI355X", 288, 8000,
          peaks(bfloat16=2516.6, float16=2516.6, fp8=5033.2, int8=5033.2), 537.6, 1400,
          "AMD Instinct MI355X datasheet", ("1002:75a3",)),
)  # fmt: skip
