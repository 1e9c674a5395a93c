"""Accelerators that no card of ours describes: the inventory does, and they are planned for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heteroserve.facts.accelerators import CARDS
from heteroserve.facts.declared import hardware_of
from heteroserve.facts.described import cards_of, recognised
from heteroserve.facts.hardware import Accelerator, Hardware
from heteroserve.plan.planner import HostEntry, PlanRequest, make_plan

from tests.unit.plan.estate import gpu_host, model, reason_of

GIB = 1024**3
CARD: dict[str, Any] = {
    "kind": "nvidia-rtx-4080-16gb",
    "vendor": "nvidia",
    "name": "NVIDIA GeForce RTX 4080",
    "memory_gib": 15.6,
    "bandwidth_gbs": 716.8,
    "tflops": {"bfloat16": 97.5, "float16": 97.5, "fp8": 194.9},
    "pci_ids": ["10de:2704"],
}


def host_with(**unknown: Any) -> Hardware:
    """A host with two GPUs as the facts have one that no card describes."""
    facts = {"vendor": "nvidia", "model": CARD["name"], "kind": "unknown-10de:2704", "memory": None,
             "pci_id": "10de:2704", **unknown}  # fmt: skip
    plain = gpu_host("nvidia-l4-24gb", 2)
    return replace(plain, accelerators=tuple(Accelerator(index=index, **facts) for index in (0, 1)))


def plan(hardware: Hardware, *cards: dict[str, Any]) -> Any:
    request = PlanRequest("ray", {"h": HostEntry(hardware)}, (model("smollm2-135m", cpu=False),), cards=cards_of(cards))
    return make_plan(request)


def test_without_a_card_the_refusal_says_what_to_do() -> None:
    found = reason_of(plan(host_with()), "h")
    assert "NVIDIA GeForce RTX 4080 (unknown-10de:2704) has no card with its memory and bandwidth" in found
    assert "describe it under `serving_plan_cards` (docs/add-an-accelerator.md)" in found


@pytest.mark.parametrize("by", [{}, {"pci_id": "10de:ffff", "kind": "unknown-10de:ffff"}, {"model": "something"}])
def test_it_is_planned_for(by: dict[str, Any]) -> None:
    """Recognised by its PCI id, or by its name."""
    made = plan(host_with(**by), CARD)
    assert {cell.accelerator for cell in made.cells} == {"nvidia-rtx-4080-16gb"}
    assert sum(len(cell.replicas) for cell in made.cells) == 2


def test_what_the_tool_prints_wins() -> None:
    cards = cards_of([CARD])
    assert [item.memory for item in recognised(host_with(), cards).accelerators] == [int(15.6 * GIB)] * 2
    assert [item.memory for item in recognised(host_with(memory=GIB), cards).accelerators] == [GIB] * 2


def test_another_vendors_device_is_not_taken_for_it() -> None:
    facts = host_with(vendor="amd", pci_id="1002:aaaa", kind="unknown-1002:aaaa")
    assert recognised(facts, cards_of([CARD])) == facts


def test_it_can_be_declared() -> None:
    declared = {"server": "r760", "accelerators": {"kind": CARD["kind"], "count": 2}, "memory_gib": 256}
    hardware = hardware_of(declared, "hardware", cards_of([CARD]))
    assert {cell.accelerator for cell in plan(hardware, CARD).cells} == {CARD["kind"]}
    assert [item.vendor for item in hardware_of(declared).accelerators] == ["nvidia"] * 2  # for who only counts
    with pytest.raises(ValueError, match=r"accelerators\[0\].kind: found 'nvidia-rtx-4080-16gb'"):
        hardware_of(declared, "hardware", CARDS)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "rtx-4080"}, r"serving_plan_cards\[0\].kind: found 'rtx-4080', expected nvidia- and"),
        ({"kind": "nvidia-l4-24gb"}, "which is known already"),
        ({"vendor": "matrox"}, r"serving_plan_cards\[0\].vendor: found 'matrox'"),
        ({"memory_gib": 0}, "memory_gib: found 0, expected"),
        ({"memory_gib": ...}, "memory_gib: missing"),
        ({"bandwidth_gbs": ...}, "bandwidth_gbs: missing"),
        ({"tflops": ...}, "tflops: found {}, expected numbers above 0"),
        ({"tflops": {"fp8": 1}}, "bfloat16 or float16 among them"),
        ({"tflops": {"bfloat16": 0}}, "expected numbers above 0"),
        ({"tflops": {"bf16": 1}}, "tflops.bf16: unknown key"),
        ({"pci_ids": ["2704"]}, "pci_ids: found '2704', expected ids such as '10de:1234'"),
        ({"pci_ids": ["1002:2704"]}, "pci_ids: found '1002:2704'"),
        ({"pci_ids": ["10de:2330"]}, "found '10de:2330', which is nvidia-h100-sxm-80gb"),
        ({"link": "nvlink"}, "link_gbs: missing, nvlink needs it"),
        ({"bandwith": 1}, "bandwith: unknown key, did you mean 'bandwidth_gbs'"),
    ],
)
def test_each_fault_names_its_key(change: dict[str, Any], text: str) -> None:
    entry = {key: value for key, value in {**CARD, **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=text):
        cards_of([entry])


def test_numbers_may_be_texts() -> None:
    assert cards_of([{**CARD, "memory_gib": "15.6", "bandwidth_gbs": "700"}])[CARD["kind"]].bandwidth == 700e9


@pytest.mark.parametrize(
    ("pci_id", "kind"),
    [("2e12", "nvidia-gb10-128gb"), ("2941", "nvidia-gb200-186gb"), ("2342", "nvidia-gh200-96gb"),
     ("2684", "nvidia-rtx-4090-24gb"), ("2204", "nvidia-rtx-3090-24gb"), ("2bb1", "nvidia-rtx-pro-6000-96gb")],
)  # fmt: skip
def test_gpus_that_were_unknown_have_cards(pci_id: str, kind: str) -> None:
    assert f"10de:{pci_id}" in CARDS[kind].pci_ids
