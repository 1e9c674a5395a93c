"""The shape of a card, and the units that the tables are written in."""

from __future__ import annotations

from dataclasses import dataclass, field

GIB = 1024**3
MIB = 1024**2
TERA = 1e12
GIGA = 1e9

# One way over 16 lanes after 128b/130b coding: 8, 16 and 32 GT/s a lane.
PCIE3 = 15.75e9
PCIE4 = 31.5e9
PCIE5 = 63.0e9


@dataclass(frozen=True)
class AcceleratorCard:
    """What the vendor says of one accelerator as the operating system sees it.

    A product that shows up as two devices (MI250X, Flex 140) has the figures of one of them.
    """

    kind: str  # the planner's key
    vendor: str  # "nvidia" | "amd" | "intel" | "habana"
    name: str  # the vendor's product name
    memory_sold: int  # bytes, as the datasheet counts them (binary gigabytes)
    memory: int  # bytes that a process sees: after ECC and the driver's reserve, within 0.5 %
    bandwidth: float  # bytes/s of its memory
    flops: dict[str, float]  # dense peak FLOP/s (OP/s for int8): "bfloat16", "float16", "fp8", "int8"
    link: str  # widest link that it has by itself: "nvlink" | "xgmi" | "xe-link" | "roce" | "pcie"
    link_bandwidth: float  # bytes/s one way, all links of the accelerator together
    tdp: int  # watts
    source: str  # the vendor's document
    pci_ids: tuple[str, ...] = ()  # "10de:2330"; ids that no public list confirms are left out
    pcie_bandwidth: float = PCIE4  # bytes/s one way to the host
    bridge: str | None = None  # link that an optional bridge between two or four cards adds
    bridge_bandwidth: float | None = None  # bytes/s one way over it
    subsystems: dict[str, tuple[str, ...]] = field(default_factory=dict)  # where an id is shared: its subsystem ids

    def link_rate(self, link: str) -> float:
        """Bytes/s one way over ``link`` as a host reports it ("nvswitch" counts as the card's NVLink)."""
        link = "nvlink" if link == "nvswitch" else link
        if link == self.link:
            return self.link_bandwidth
        if link == self.bridge and self.bridge_bandwidth:
            return self.bridge_bandwidth
        return self.pcie_bandwidth


def peaks(
    bfloat16: float | None = None, float16: float | None = None, fp8: float | None = None, int8: float | None = None
) -> dict[str, float]:
    """Dense peaks in units of 10^12 a second; formats that the hardware lacks are left out."""
    given = {"bfloat16": bfloat16, "float16": float16, "fp8": fp8, "int8": int8}
    return {name: value * TERA for name, value in given.items() if value is not None}
