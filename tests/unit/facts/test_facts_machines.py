"""Every captured machine gives the facts of the verdict beside it.

After a wanted change, ``HETEROSERVE_WRITE_VERDICTS=1 pytest tests/unit/facts`` rewrites them: read the difference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import captured_machines as machines
import pytest
from heteroserve.facts.accelerators import CARDS
from heteroserve.facts.hardware import Hardware, hardware_from_dict, hardware_to_dict


@pytest.mark.parametrize("name", machines.names())
def test_facts_equal_the_verdict(name: str, replay: Callable[..., Hardware]) -> None:
    facts = hardware_to_dict(replay(name))
    verdict = machines.MACHINES / name / "verdict.json"
    if os.environ.get("HETEROSERVE_WRITE_VERDICTS"):
        verdict.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    assert facts == json.loads(verdict.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", machines.names())
def test_verdicts_are_readable_facts(name: str) -> None:
    data = json.loads((machines.MACHINES / name / "verdict.json").read_text(encoding="utf-8"))
    hardware = hardware_from_dict(data)
    assert [item.index for item in hardware.accelerators] == list(range(len(hardware.accelerators)))
    assert all(item.usable == (item.why_not is None) for item in hardware.accelerators)


# What each machine is, written by hand: a verdict that was rewritten wrongly is caught here.
EXPECTED = {
    "xe9680-a100": ("nvidia-a100-sxm-80gb", 8, "nvswitch", 16, 4400),
    "xe8545-a100": ("nvidia-a100-sxm-80gb", 4, "nvlink", 16, 3200),
    "r760xa-h100": ("nvidia-h100-pcie-80gb", 4, "nvlink", 16, 4800),
    "r7625-mi210": ("amd-mi210-64gb", 1, "pcie", 24, 4800),
    "xe9680-h100": ("nvidia-h100-sxm-80gb", 8, "nvswitch", 16, 4400),
    "xe9680-h200": ("nvidia-h200-sxm-141gb", 8, "nvswitch", 16, 5600),
    "xe9680-mi300x": ("amd-mi300x-192gb", 8, "xgmi", 16, 4400),
    "xe9680-gaudi3": ("intel-gaudi3-128gb", 8, "roce", 16, 4400),
    "r760-flex170": ("intel-flex-170-16gb", 2, "pcie", 16, 4800),
    "vm-h100": ("nvidia-h100-sxm-80gb", 1, "pcie", None, None),
    "gpu-no-driver": ("nvidia-l40s-48gb", 2, "pcie", 16, 4800),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_machines_are_what_they_are(name: str, replay: Callable[..., Hardware]) -> None:
    kind, count, link, channels, mts = EXPECTED[name]
    facts = replay(name)
    assert [item.kind for item in facts.accelerators] == [kind] * count
    assert {item.link for item in facts.accelerators} == {link}
    assert (facts.cpu.memory_channels, facts.cpu.memory_mts) == (channels, mts)
    for item in facts.accelerators:
        assert item.memory is not None
        assert abs(item.memory - CARDS[kind].memory) < 0.01 * CARDS[kind].memory


@pytest.mark.parametrize("name", ["xe9680-a100", "xe8545-a100", "xe9680-mi300x"])
def test_boards_join_every_accelerator_with_every_other(name: str, replay: Callable[..., Hardware]) -> None:
    found = replay(name).accelerators
    for item in found:
        assert item.peers == tuple(other.index for other in found if other is not item)


def test_bridges_join_pairs(replay: Callable[..., Hardware]) -> None:
    assert [item.peers for item in replay("r760xa-h100").accelerators] == [(1,), (0,), (3,), (2,)]


def test_links_stay_the_same_when_the_driver_comes(replay: Callable[..., Hardware]) -> None:
    """The plan before the installation must not change by it: a board's link is known from PCI alone."""
    pci = [{**device, "driver": None} for device in machines.describe("xe9680-h100")["pci"]]
    before = replay("xe9680-h100", pci=pci, files={}, links={}).accelerators
    assert {(item.kind, item.link) for item in before} == {("nvidia-h100-sxm-80gb", "nvswitch")}


def test_cards_without_a_bridge_have_no_peers(replay: Callable[..., Hardware]) -> None:
    pci = machines.describe("r7625-mi210")["pci"]
    two = [*pci, {**pci[0], "addresses": ["0000:e5:00.0"]}]
    kfd = {"gpus": ["0000:e3:00.0", "0000:e5:00.0"], "processors": 2, "xgmi": False}
    assert [(item.link, item.peers) for item in replay("r7625-mi210", pci=two, kfd=kfd).accelerators] == [
        ("pcie", ())
    ] * 2
    joined = replay("r7625-mi210", pci=two, kfd={**kfd, "xgmi": True}).accelerators
    assert [(item.link, item.peers) for item in joined] == [("xgmi", (1,)), ("xgmi", (0,))]
