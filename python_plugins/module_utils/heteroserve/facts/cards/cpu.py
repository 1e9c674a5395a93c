"""Memory channels of server processors: the stated estimate where the DIMMs cannot be read (dmidecode needs root).

Channels and rates are those of the generation with every channel filled, one DIMM each, from Intel's and AMD's
product pages. Some models of a generation run slower; ``dmidecode`` as root says what a host really has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CpuCard:
    """Memory of one socket."""

    codename: str
    channels: int
    mts: int  # mega-transfers a second
    names: str = ""  # text that the model name has to have, where a number is shared

    @property
    def bandwidth(self) -> float:
        """Bytes/s of one socket: every channel moves eight bytes a transfer."""
        return self.channels * self.mts * 8e6


# (vendor, family, model) as /proc/cpuinfo prints them.
CPUS: dict[tuple[str, int, int], tuple[CpuCard, ...]] = {
    ("intel", 6, 85): (CpuCard("Skylake or Cascade Lake", 6, 2666),),
    ("intel", 6, 106): (CpuCard("Ice Lake", 8, 3200),),
    ("intel", 6, 143): (CpuCard("Sapphire Rapids", 8, 4800),),
    ("intel", 6, 207): (CpuCard("Emerald Rapids", 8, 5600),),
    ("intel", 6, 173): (CpuCard("Granite Rapids AP", 12, 6400, " 69"), CpuCard("Granite Rapids SP", 8, 6400)),
    ("intel", 6, 175): (CpuCard("Sierra Forest", 8, 6400),),
    ("amd", 23, 1): (CpuCard("Naples", 8, 2666),),
    ("amd", 23, 49): (CpuCard("Rome", 8, 3200),),
    ("amd", 25, 1): (CpuCard("Milan", 8, 3200),),
    ("amd", 25, 17): (CpuCard("Genoa", 12, 4800),),
    ("amd", 25, 160): (CpuCard("Siena", 6, 4800, "EPYC 8"), CpuCard("Bergamo", 12, 4800)),
    ("amd", 26, 2): (CpuCard("Turin", 12, 6000),),
    ("amd", 26, 17): (CpuCard("Turin Dense", 12, 6000),),
}


def cpu_card(vendor: str, family: int | None, model: int | None, name: str) -> CpuCard | None:
    """The generation's memory, or None for a processor outside the table (desktops, laptops, older servers)."""
    if family is None or model is None or not any(word in name.upper() for word in ("XEON", "EPYC")):
        return None
    return next((card for card in CPUS.get((vendor, family, model), ()) if card.names in name), None)
