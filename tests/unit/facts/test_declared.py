"""Hardware declared in a few words."""

from __future__ import annotations

from typing import Any

import pytest
from heteroserve.facts.accelerators import CARDS
from heteroserve.facts.declared import CPU_CARDS, SERVER_CARDS, hardware_of
from heteroserve.facts.hardware import hardware_to_dict

from tests.unit.plan.estate import DECLARED, this_machine


def test_short_declaration_has_every_fact_that_the_planner_reads() -> None:
    found = hardware_of(DECLARED["h100"])
    assert found.server_model == "PowerEdge XE9680"
    assert (found.cpu.sockets, found.cpu.cores, found.cpu.memory_channels) == (2, 112, 16)
    assert found.cpu.memory_bandwidth == pytest.approx(614.4e9)
    assert "amx_bf16" in found.cpu.isa
    assert len(found.accelerators) == 8
    assert found.accelerators[3].peers == (0, 1, 2, 4, 5, 6, 7)
    assert found.memory == 2048 * 1024**3


def test_bridges_join_pairs() -> None:
    assert [item.peers for item in hardware_of(DECLARED["bridged"]).accelerators] == [(1,), (0,), (3,), (2,)]


def test_indices_go_on_over_kinds() -> None:
    found = hardware_of(DECLARED["mixed"]).accelerators
    assert [(item.index, item.vendor) for item in found] == [(0, "nvidia"), (1, "amd")]


def test_own_processor_and_full_facts() -> None:
    found = hardware_of({"cpu": {"model": "Own", "cores": 8, "isa": ["avx2"]}, "memory_gib": 16})
    assert (found.cpu.cores, found.cpu.memory_bandwidth) == (8, None)
    whole = this_machine()
    assert hardware_of(hardware_to_dict(whole)) == whole


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"server": "xe9860", "memory_gib": 1}, r"hardware.server: found 'xe9860', did you mean 'xe9680'"),
        ({"server": "r760", "memory_gb": 1}, r"hardware.memory_gb: unknown key, did you mean 'memory_gib'"),
        ({"server": "r760"}, r"hardware.memory_gib: missing"),
        ({"memory_gib": 1}, r"hardware.cpu: missing"),
        ({"cpu": "xeon-8480", "memory_gib": 1}, r"did you mean 'xeon-8480\+'"),
        (
            {"server": "r760", "memory_gib": 1, "accelerators": {"kind": "nvidia-l40-s", "count": 1}},
            r"accelerators\[0\].kind: found 'nvidia-l40-s', did you mean 'nvidia-l40-48gb'",
        ),
        ({"server": "r760", "memory_gib": 1, "accelerators": {"kind": "nvidia-l4-24gb"}}, r"count: missing"),
        ({"memory": "24", "cpu": {}}, r"hardware\."),
    ],
)
def test_faults_name_the_key(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        hardware_of(given, cards=CARDS)


def test_every_server_has_a_processor() -> None:
    assert all(card.cpu in CPU_CARDS for card in SERVER_CARDS.values())
