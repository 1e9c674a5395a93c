"""What the planner would refuse from the inventory alone, validate refuses, and says where it stands."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from heteroserve.facts.declared import hardware_of
from heteroserve.inventory.schema import Inventory, check
from heteroserve.plan.builds import engines_of
from heteroserve.plan.planner import ModelRequest, PlanRequest, make_plan
from heteroserve.plan.refusals import builds_of, refusals
from heteroserve.plan.request import model_entry
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.inventory.test_inventory_schema import inventory
from tests.unit.plan.estate import host

MODEL: dict[str, Any] = {"name": "m", "card": "llama-3.1-8b", "source": {"path": "/m"}}
ODD = st.sampled_from(
    (None, 0, -1, 1, -0.5, float("inf"), float("nan"), 2, 3,
     4096, 10**7, 1.5, True, "", "1", "4096", "4096x", "true", "fp8", "awq", "int3", "bfloat16",
     "vllm", "onnx", "cpu", "llama-3.1-8b", "llama-9", [], ["a"], ["z"], {}, {"x": 1})
)  # fmt: skip
KEYS = (
    *(item.name for item in dataclasses.fields(ModelRequest) if item.name not in MODEL or item.name == "card"),
    "typo",
)
ESTATE = {"a": host("h100")}


def sentences(given: Inventory) -> list[str]:
    """What validate says of an inventory."""
    builds = builds_of(given)
    return list(dict.fromkeys(map(str, [*check(given, engines_of(builds)), *refusals(given, builds)])))


def refusal(entry: dict[str, Any]) -> str | None:
    """The planner's refusal of an entry's form, whatever hosts there are."""
    try:
        request = model_entry(entry, "models[0]")
    except ValueError as error:
        return str(error)
    plan = make_plan(PlanRequest("ray", ESTATE, (request,)))
    texts = [reason.text for reason in plan.reasons if reason.kind == "model"]
    return next((text for text in texts for key in KEYS if text.startswith((f"m: {key}: ", f"{key}: "))), None)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=3))
def test_what_plan_refuses_validate_refuses(changes: dict[str, Any]) -> None:
    entry = {**MODEL, **changes}
    if fault := refusal(entry):
        assert sentences(inventory(models=[entry])), fault


@pytest.mark.parametrize("value", [-1, 0, "-1", float("inf"), float("nan")])
@pytest.mark.parametrize("key", [item.name for item in dataclasses.fields(ModelRequest) if item.metadata])
def test_a_number_that_cannot_be_is_refused_by_both(key: str, value: Any) -> None:
    if (key, value) == ("min_replicas", 0):
        return  # which lets a model stay unplaced
    with pytest.raises(ValueError, match=rf"models\[0\]\.{key}: found "):
        model_entry({**MODEL, key: value}, "models[0]")
    (found,) = sentences(inventory(models=[{**MODEL, key: value}]))
    assert f"models[0].{key}: found {value!r}; set " in found


@pytest.mark.parametrize(
    ("options", "limits", "sentence"),
    [
        ({"output_tokens": 0}, {}, "serving_plan_options.output_tokens: found 0, expected at least 1"),
        ({"reserve_memory_gib": -1}, {}, "serving_plan_options.reserve_memory_gib: found -1, expected at least 0"),
        ({"port_base": 80}, {}, "serving_plan_options.port_base: found 80, expected at least 1024"),
        ({}, {"cores": 0}, "a: serving_limits.cores: found 0, expected at least 1"),
        ({}, {"memory_gib": "-4"}, "a: serving_limits.memory_gib: found '-4', expected more than 0"),
    ],
)
def test_nor_may_the_numbers_of_options_and_hosts(options: Any, limits: Any, sentence: str) -> None:
    given = inventory(serving_plan_options=options)
    assert [text for text in sentences(replace(given, hosts={"a": {"serving_limits": limits}})) if sentence in text]


HARDWARE = {"server": "r760", "memory_gib": 64}


@pytest.mark.parametrize(
    "own", [{**HARDWARE, "server": "xe9681"}, {**HARDWARE, "memory_gib": "much"}, {"server": "r760"}, {}, [], None]
)
def test_declared_hardware_that_plan_cannot_read_is_refused(own: Any) -> None:
    with pytest.raises(ValueError, match="hardware"):
        hardware_of(own)
    (found,) = sentences(replace(inventory(), hosts={"a": {"hardware": own}}))
    assert "a: hardware" in found


def test_a_number_may_be_text_for_validate_and_plan() -> None:
    assert sentences(inventory(models=[{**MODEL, "context": "4096"}])) == []
    assert model_entry({**MODEL, "context": "4096"}, "m").context == 4096
    assert hardware_of({**HARDWARE, "memory_gib": "64"}) == hardware_of(HARDWARE)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"context": 200_000}, "x.yml:9: models[0].context: found 200000, the model knows 131072"),
        ({"quantization": "int3"}, "x.yml:7: models[0].quantization: found 'int3'"),
        ({"card": "llama-9"}, "x.yml:7: models[0].card: found 'llama-9'"),
    ],
)
def test_a_fault_of_a_model_has_the_line_of_its_key(changes: dict[str, Any], expected: str) -> None:
    lines = {"models[0]": "x.yml:7", "models[0].context": "x.yml:9"}
    (found,) = sentences(replace(inventory(models=[{**MODEL, **changes}]), lines=lines))
    assert expected in found


def test_models_whose_cells_would_be_called_alike_are_refused() -> None:
    (found,) = sentences(inventory(models=[{**MODEL, "name": name} for name in ("llama-3.1", "llama-3-1")]))
    assert "models[1].name: the cells of 'llama-3-1' would be called like those of 'llama-3.1'" in found


def test_limits_and_names_of_hosts() -> None:
    own = {
        "a": {"rack": 12, "reserved_ports": ["x"]},
        "b": {"serving_limits": {"core": 1, "memory_gib": "much"}},
        "c": {"rack": "B1"},
    }
    first, second, third = sentences(replace(inventory(), hosts=own))
    assert "a: reserved_ports[0]: found text 'x'" in first
    assert "b: serving_limits.core: unknown key" in second
    assert "b: serving_limits.memory_gib: found text 'much'" in third
    groups = {"serving": ["Node_01"], "gateway": ["Node_01"], "k3s_server": ["Node_01"]}
    (found,) = sentences(replace(inventory(runtime="k3s"), groups=groups))
    assert "Node_01: a Kubernetes node's name has lower case letters" in found
