"""The tables of accelerators and processors: consistent, sourced, and found by every spelling of an id."""

from __future__ import annotations

import re

import pytest
from heteroserve.facts.accelerators import CARDS, VENDORS, card_for_name, card_for_pci
from heteroserve.facts.cards.card import PCIE3, PCIE5, AcceleratorCard
from heteroserve.facts.cards.cpu import CPUS, cpu_card

EVERY = pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))


@EVERY
def test_figures_are_in_their_units(card: AcceleratorCard) -> None:
    assert 0.8 * card.memory_sold < card.memory <= card.memory_sold
    assert 1e11 < card.bandwidth < 1e13
    assert all(1e13 < peak < 1e16 for peak in card.flops.values())
    assert "float16" in card.flops or "bfloat16" in card.flops
    assert card.flops.get("fp8", 1e16) >= max(card.flops.get("bfloat16", 0), card.flops.get("float16", 0))
    assert 5e9 < card.link_bandwidth < 1e12
    assert PCIE3 / 4 <= card.pcie_bandwidth <= PCIE5
    assert 30 <= card.tdp <= 1500


@EVERY
def test_every_card_has_a_source_and_a_telling_kind(card: AcceleratorCard) -> None:
    assert card.source.startswith(("NVIDIA", "AMD", "Intel"))
    assert re.fullmatch(r"(nvidia|amd|intel)-[a-z0-9-]+-\d+gb", card.kind)
    assert f"-{card.memory_sold >> 30}gb" in card.kind
    assert card.vendor in VENDORS.values()
    assert all(VENDORS[pci_id.split(":")[0]] == card.vendor for pci_id in card.pci_ids)
    assert (card.bridge is None) == (card.bridge_bandwidth is None)


def test_no_id_and_no_name_is_used_twice() -> None:
    ids = [pci_id for card in CARDS.values() for pci_id in card.pci_ids]
    assert len(ids) == len(set(ids))
    assert len({card.name for card in CARDS.values()}) == len(CARDS)
    assert all(pci_id in ids for card in CARDS.values() for pci_id in card.subsystems)


def test_required_accelerators_are_there() -> None:
    wanted = (
        "nvidia-a100-sxm-40gb nvidia-a100-sxm-80gb nvidia-a100-pcie-40gb nvidia-a100-pcie-80gb nvidia-a30-24gb "
        "nvidia-a10-24gb nvidia-a40-48gb nvidia-a2-16gb nvidia-t4-16gb nvidia-v100-sxm-32gb nvidia-l4-24gb "
        "nvidia-l40-48gb nvidia-l40s-48gb nvidia-h100-sxm-80gb nvidia-h100-pcie-80gb nvidia-h100-nvl-94gb "
        "nvidia-h200-sxm-141gb nvidia-h200-nvl-141gb nvidia-b200-sxm-180gb nvidia-rtx-6000-ada-48gb "
        "nvidia-rtx-pro-6000-server-96gb amd-mi100-32gb amd-mi210-64gb amd-mi250-gcd-64gb amd-mi250x-gcd-64gb "
        "amd-mi300a-128gb amd-mi300x-192gb amd-mi325x-256gb amd-mi350x-288gb amd-mi355x-288gb intel-max-1100-48gb "
        "intel-max-1550-128gb intel-flex-170-16gb intel-flex-140-6gb intel-arc-a770-16gb intel-gaudi2-96gb "
        "intel-gaudi3-128gb"
    )
    assert set(wanted.split()) <= set(CARDS)


@pytest.mark.parametrize(("vendor", "device"), [("10de", "2330"), ("0x10DE", "0x2330"), (0x10DE, 0x2330)])
def test_ids_in_every_spelling(vendor: str | int, device: str | int) -> None:
    card = card_for_pci(vendor, device)
    assert card is not None
    assert card.kind == "nvidia-h100-sxm-80gb"


def test_shared_ids_need_their_subsystem() -> None:
    assert card_for_pci("10de", "25b6", "10de:14a9") is None  # an A16
    assert card_for_pci("10de", "25b6", "10DE:157E") == card_for_pci("10de", "25b6") == CARDS["nvidia-a2-16gb"]
    assert card_for_pci("10de", "ffff") is None


def test_names_tell_products_of_one_id_apart() -> None:
    assert card_for_name("AMD Instinct MI250X") == CARDS["amd-mi250x-gcd-64gb"]
    assert card_for_name("nvidia a100 sxm4 80gb") == CARDS["nvidia-a100-sxm-80gb"]
    assert card_for_name("something else") is None


def test_rate_of_each_link() -> None:
    assert CARDS["nvidia-h100-sxm-80gb"].link_rate("nvswitch") == 450e9
    assert CARDS["nvidia-h100-pcie-80gb"].link_rate("nvlink") == 300e9
    assert CARDS["nvidia-h100-pcie-80gb"].link_rate("pcie") == PCIE5
    assert CARDS["nvidia-h100-sxm-80gb"].link_rate("pcie") == PCIE5


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name", "bandwidth"),
    [
        ("intel", 6, 143, "Intel(R) Xeon(R) Platinum 8480+", 307.2e9),
        ("amd", 25, 17, "AMD EPYC 9354 32-Core Processor", 460.8e9),
        ("amd", 25, 160, "AMD EPYC 9754 128-Core Processor", 460.8e9),
        ("amd", 25, 160, "AMD EPYC 8534P 64-Core Processor", 230.4e9),
        ("intel", 6, 207, "INTEL(R) XEON(R) PLATINUM 8592+", 716.8e9 / 2),
        ("intel", 6, 173, "Intel(R) Xeon(R) 6972P", 614.4e9),
        ("intel", 6, 173, "Intel(R) Xeon(R) 6787P", 409.6e9),
    ],
)
def test_memory_of_processors(vendor: str, family: int, model: int, name: str, bandwidth: float) -> None:
    card = cpu_card(vendor, family, model, name)
    assert card is not None
    assert card.bandwidth == pytest.approx(bandwidth)


def test_other_processors_have_no_estimate() -> None:
    assert cpu_card("intel", 6, 143, "Intel(R) Core(TM) i9") is None
    assert cpu_card("intel", None, None, "Intel(R) Xeon(R)") is None
    assert all(cards for cards in CPUS.values())
