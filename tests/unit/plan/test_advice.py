"""Every advice of the planner is followed until it ends, on every machine that is known: none leads to a refusal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from heteroserve.facts.hardware import hardware_from_dict
from heteroserve.plan.planner import HostEntry, ModelRequest
from heteroserve.plan.schema import Plan, Reason

from tests.unit.plan.estate import DECLARED, host, model, plan_of

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
HOSTS = {path.parent.name: path for path in sorted(MACHINES.glob("*/verdict.json"))}
CARDS = ("smollm2-135m", "llama-2-13b", "llama-3.3-70b")
WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"engine": "onnx"},
    {"engine": "bigdl"},
    {"engine": "vllm"},
    {"engine": "typo"},
    {"quantization": "fp8"},
    {"quantization": "awq"},
    {"quantization": "sym_int8"},
    {"quantization": "quark", "cpu": True},
    {"dtype": "float16"},
    {"dtype": "float32", "accelerator": "cpu"},
    {"accelerator": "nvidia"},
    {"accelerator": "amd", "quantization": "fp8"},
    {"accelerator": "typo"},
    {"cpu": False},
    {"cpu": True},
    {"tensor_parallel_size": 2},
    {"tensor_parallel_size": 3},
    {"tensor_parallel_size": 16, "quantization": "fp8"},
    {"kv_cache_gib": 0.001},
    {"kv_cache_gib": 4000},
    {"accelerator": "cpu", "cpu": False},
    {"min_replicas": 100},
    {"min_replicas": 0},
    {"max_num_seqs": 100_000},
)
# What names a setting of a model as something to set; the texts of other settings name their whole path.
NAMES_A_SETTING = re.compile(r"(set|remove|change|correct) `(?!serving_plan|serving_limits|hardware|card)")


def known_host(name: str) -> HostEntry:
    """A machine of the fixtures as its facts show it, with memory that nobody uses; or a declared one."""
    if name in DECLARED:
        return host(name)
    hardware = hardware_from_dict(json.loads(HOSTS[name].read_text()))
    return HostEntry(replace(hardware, memory_available=None))


def with_settings(request: ModelRequest, settings: dict[str, Any]) -> ModelRequest:
    """The entry with a reason's settings; what is removed has the default again."""
    plain = ModelRequest(request.name, card=request.card)
    return replace(request, **{key: getattr(plain, key) if value is None else value for key, value in settings.items()})


def solved(plan: Plan, reason: Reason, request: ModelRequest) -> bool:
    """Whether the host carries something, or the model has replicas: as many as it must, where that was the advice."""
    if reason.kind == "host":
        return any(reason.subject in cell.hosts for cell in plan.cells)
    least = request.min_replicas if "min_replicas" in reason.settings else 1
    return sum(len(cell.replicas) for cell in plan.cells) >= max(1, least)


def follow(estate: dict[str, HostEntry], card: str) -> None:
    """Ask for the model in every way, and do what each reason says."""
    for wish in WISHES:
        request = model(card, **wish)
        for reason in plan_of(estate, request).reasons:
            if reason.settings:
                changed = with_settings(request, reason.settings)
                assert solved(plan_of(estate, changed), reason, changed), (wish, reason)
            else:
                assert not NAMES_A_SETTING.search(reason.change), (wish, reason)


@pytest.mark.parametrize("name", [*HOSTS, *DECLARED])
def test_no_advice_leads_to_another_refusal(name: str) -> None:
    for card in CARDS:
        follow({name: known_host(name)}, card)


@pytest.mark.parametrize("card", CARDS)
def test_nor_does_it_where_all_of_them_stand_side_by_side(card: str) -> None:
    follow({name: known_host(name) for name in [*HOSTS, *DECLARED]}, card)
