"""Intel data centre GPUs, Arc cards, and Gaudi (vendor "habana": its PCI vendor and driver are Habana Labs').

PCI ids: pci.ids for GPUs; the habanalabs kernel driver for Gaudi. ``memory`` is what xpu-smi and hl-smi print.
"""

from __future__ import annotations

from .card import GIB, GIGA, MIB, PCIE4, PCIE5, AcceleratorCard, peaks


def _gpu(
    kind: str,
    name: str,
    sold: int,
    seen: int,
    rate: float,
    half: float,
    int8: float,
    tdp: int,
    source: str,
    ids: tuple[str, ...],
    pcie: float = PCIE4,
    links: float | None = None,
) -> AcceleratorCard:
    """``sold`` GiB, ``seen`` MiB, ``rate`` GB/s, ``half`` and ``int8`` dense 10^12/s, ``links`` GB/s one way."""
    return AcceleratorCard(
        kind=kind,
        vendor="intel",
        name=name,
        memory_sold=sold * GIB,
        memory=seen * MIB,
        bandwidth=rate * GIGA,
        flops=peaks(bfloat16=half, float16=half, int8=int8),
        link="xe-link" if links else "pcie",
        link_bandwidth=links * GIGA if links else pcie,
        tdp=tdp,
        source=source,
        pci_ids=ids,
        pcie_bandwidth=pcie,
    )


def _gaudi(
    kind: str, name: str, sold: int, seen: int, rate: float, flops: dict[str, float], ports: float, tdp: int,
    source: str, ids: tuple[str, ...], pcie: float,
) -> AcceleratorCard:  # fmt: skip
    """``ports`` GB/s one way over the Ethernet ports that face the other accelerators of the host."""
    return AcceleratorCard(
        kind, "habana", name, sold * GIB, seen * MIB, rate * GIGA, flops, "roce", ports * GIGA, tdp, source, ids, pcie
    )


INTEL: tuple[AcceleratorCard, ...] = (
    # 16 (Max 1550) and 6 (Max 1100, with bridge) Xe Links of 26.5 GB/s each way.
    _gpu("intel-max-1550-128gb", "Intel Data Center GPU Max 1550", 128, 131072, 3276.8, 832, 1664, 600,
         "Intel Data Center GPU Max Series product brief", ("8086:0bd5", "8086:0bd6"), PCIE5, 424),
    _gpu("intel-max-1100-48gb", "Intel Data Center GPU Max 1100", 48, 49152, 1228.8, 352, 704, 300,
         "Intel Data Center GPU Max Series product brief", ("8086:0bd9", "8086:0bda", "8086:0bdb"), PCIE5, 159),
    _gpu("intel-flex-170-16gb", "Intel Data Center GPU Flex 170", 16, 14248, 576, 128, 256, 150,
         "Intel Data Center GPU Flex 170 specification", ("8086:56c0",)),
    # The Flex 140 is two devices of 6 GB on one card: figures of one.
    _gpu("intel-flex-140-6gb", "Intel Data Center GPU Flex 140", 6, 5068, 168, 26, 52, 38,
         "Intel Data Center GPU Flex 140 specification", ("8086:56c1",), PCIE4 / 4),
    _gpu("intel-arc-a770-16gb", "Intel Arc A770 Graphics", 16, 15473, 560, 131, 262, 225,
         "Intel Arc A770 Graphics specification", ("8086:56a0",)),
    _gpu("intel-arc-a750-8gb", "Intel Arc A750 Graphics", 8, 7721, 512, 114.5, 229, 225,
         "Intel Arc A750 Graphics specification", ("8086:56a1",)),
    _gpu("intel-arc-b580-12gb", "Intel Arc B580 Graphics", 12, 11605, 456, 116.5, 233, 190,
         "Intel Arc B580 Graphics specification", ("8086:e20b",), PCIE4 / 2),
)  # fmt: skip

HABANA: tuple[AcceleratorCard, ...] = (
    # 21 of 24 ports (100 and 200 Gbit/s) join the eight accelerators of a host.
    _gaudi("intel-gaudi2-96gb", "Intel Gaudi 2 (HL-225)", 96, 98304, 2450, peaks(bfloat16=432, fp8=865), 262.5, 600,
           "Intel Gaudi 2 white paper", ("1da3:1020",), PCIE4),
    _gaudi("intel-gaudi3-128gb", "Intel Gaudi 3 (HL-325L)", 128, 131072, 3700, peaks(bfloat16=1835, fp8=1835), 525,
           900, "Intel Gaudi 3 white paper", ("1da3:1060",), PCIE5),
    _gaudi("intel-gaudi3-pcie-128gb", "Intel Gaudi 3 (HL-338)", 128, 131072, 3700, peaks(bfloat16=1835, fp8=1835),
           525, 600, "Intel Gaudi 3 PCIe product brief", ("1da3:1063",), PCIE5),
)  # fmt: skip
