"""Accelerators that HeteroServe knows: their memory, bandwidth, peaks and links, by the planner's key ``kind``.

The figures stand in ``cards/``, a file a vendor, each with the vendor's document as its source.
To teach HeteroServe a new accelerator, add its card there: probe, planner and documentation read the same table.
"""

from __future__ import annotations

from .cards.amd import AMD
from .cards.card import AcceleratorCard
from .cards.intel import HABANA, INTEL
from .cards.nvidia import NVIDIA

__all__ = ["CARDS", "VENDORS", "AcceleratorCard", "card_for_name", "card_for_pci"]

CARDS: dict[str, AcceleratorCard] = {card.kind: card for card in (*NVIDIA, *AMD, *INTEL, *HABANA)}

VENDORS: dict[str, str] = {"10de": "nvidia", "1002": "amd", "8086": "intel", "1da3": "habana"}

_BY_PCI: dict[str, AcceleratorCard] = {pci_id: card for card in CARDS.values() for pci_id in card.pci_ids}


def card_for_pci(vendor_id: str | int, device_id: str | int, subsystem: str | None = None) -> AcceleratorCard | None:
    """The card of a PCI device, or None for one that the table does not know.

    Ids may be numbers or text with or without ``0x``; ``subsystem`` is "vendor:device" in hexadecimal digits.
    An id that several products share counts only with a subsystem of the card's (or where none is given).
    """
    pci_id = f"{_hex(vendor_id)}:{_hex(device_id)}"
    card = _BY_PCI.get(pci_id)
    if card is None:
        return None
    allowed = card.subsystems.get(pci_id)
    if subsystem and allowed and ":".join(_hex(part) for part in subsystem.split(":")) not in allowed:
        return None
    return card


def card_for_name(name: str) -> AcceleratorCard | None:
    """The card whose product name is ``name``, as tools print it; for ids that several products share."""
    wanted = _plain(name)
    return next((card for card in CARDS.values() if _plain(card.name) == wanted), None)


def _hex(value: str | int) -> str:
    number = value if isinstance(value, int) else int(value, 16)
    return f"{number:04x}"


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").split())
