"""Accelerators that an inventory describes (``serving_plan_cards``), where no card of ours does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..common.records import bounded, from_dict
from .accelerators import CARDS, VENDORS, AcceleratorCard
from .cards.card import GIB, GIGA, PCIE4, TERA
from .hardware import Accelerator, Hardware

FORMATS = ("bfloat16", "float16", "fp8", "int8")
PCI_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


@dataclass(frozen=True)
class Description:
    """What the planner needs to know of an accelerator. Rates are those of the datasheet, without sparsity."""

    kind: str  # the planner's key, which begins with the vendor: "nvidia-rtx-4080-16gb"
    vendor: Literal["nvidia", "amd", "intel"]
    name: str  # as the vendor's tool prints it
    memory_gib: float = bounded(0, above=0)  # that a process sees; what the tool prints wins
    bandwidth_gbs: float = bounded(0, above=0)  # GB/s of its memory
    tflops: dict[str, float] | None = None  # by format: bfloat16, float16, fp8, int8
    pci_ids: tuple[str, ...] = ()  # "10de:2704"
    link: Literal["pcie", "nvlink", "xgmi", "xe-link"] = "pcie"  # between the accelerators of a host
    link_gbs: float | None = bounded(None, above=0)  # GB/s one way, all links together
    pcie_gbs: float = bounded(PCIE4 / GIGA, above=0)  # GB/s one way to the host


def cards_of(given: Sequence[dict[str, Any]], where: str = "serving_plan_cards") -> dict[str, AcceleratorCard]:
    """All cards by kind: ours, and those that the inventory describes. Raises ``ValueError`` that names the key."""
    cards = dict(CARDS)
    for number, entry in enumerate(given):
        place = f"{where}[{number}]"
        card = _card(from_dict(Description, entry, place, texts=True), place)
        if card.kind in cards:
            raise ValueError(f"{place}.kind: found {card.kind!r}, which is known already: give it another name")
        taken = {pci_id: other.kind for other in cards.values() for pci_id in other.pci_ids if not other.subsystems}
        for pci_id in card.pci_ids:
            if pci_id in taken:
                raise ValueError(f"{place}.pci_ids: found {pci_id!r}, which is {taken[pci_id]}")
        cards[card.kind] = card
    return cards


def recognised(hardware: Hardware, cards: Mapping[str, AcceleratorCard]) -> Hardware:
    """The hardware with unknown accelerators named after the cards that describe them, by PCI id or by product name."""
    return replace(hardware, accelerators=tuple(_recognised(item, cards) for item in hardware.accelerators))


def _recognised(item: Accelerator, cards: Mapping[str, AcceleratorCard]) -> Accelerator:
    if item.kind in cards:
        return item
    own = [card for kind, card in cards.items() if kind not in CARDS and card.vendor == item.vendor]
    found = next((card for card in own if item.pci_id in card.pci_ids), None)
    found = found or next((card for card in own if card.name.lower() == item.model.lower()), None)
    if found is None:
        return item
    link = item.link if item.link != "pcie" else (found.link if item.peers else "pcie")
    return replace(item, kind=found.kind, memory=item.memory or found.memory, link=link)


def _card(given: Description, where: str) -> AcceleratorCard:
    if not re.fullmatch(rf"{given.vendor}-[a-z0-9-]+", given.kind):
        raise ValueError(f"{where}.kind: found {given.kind!r}, expected {given.vendor}- and small letters or digits")
    for key in ("memory_gib", "bandwidth_gbs"):
        if not getattr(given, key):
            raise ValueError(f"{where}.{key}: missing")
    flops = given.tflops or {}
    unknown = sorted(set(flops) - set(FORMATS))
    if unknown:
        raise ValueError(f"{where}.tflops.{unknown[0]}: unknown key; known are {', '.join(FORMATS)}")
    if not {"bfloat16", "float16"} & set(flops) or not all(value > 0 for value in flops.values()):
        raise ValueError(f"{where}.tflops: found {flops!r}, expected numbers above 0, bfloat16 or float16 among them")
    vendors = {number for number, vendor in VENDORS.items() if vendor == given.vendor}
    for pci_id in given.pci_ids:
        if not PCI_ID.fullmatch(pci_id) or pci_id.split(":")[0] not in vendors:
            example = f"{next(iter(vendors))}:1234"
            raise ValueError(f"{where}.pci_ids: found {pci_id!r}, expected ids such as {example!r}")
    if given.link != "pcie" and given.link_gbs is None:
        raise ValueError(f"{where}.link_gbs: missing, {given.link} needs it")
    memory, pcie = int(given.memory_gib * GIB), given.pcie_gbs * GIGA
    return AcceleratorCard(
        kind=given.kind,
        vendor=given.vendor,
        name=given.name,
        memory_sold=memory,
        memory=memory,
        bandwidth=given.bandwidth_gbs * GIGA,
        flops={name: value * TERA for name, value in flops.items()},
        link=given.link,
        link_bandwidth=given.link_gbs * GIGA if given.link_gbs else pcie,
        tdp=0,
        source="the inventory",
        pci_ids=given.pci_ids,
        pcie_bandwidth=pcie,
    )
