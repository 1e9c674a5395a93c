"""LoRA adapters, draft models and parsers: what the plan makes of them, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import heteroserve.plan.schema as schema
import pytest
from heteroserve.inventory.models import DraftModel, LoraAdapter, ModelRequest, ModelSource
from heteroserve.plan.fit import want
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.parsers import parsers_for
from heteroserve.plan.planner import HostEntry
from heteroserve.plan.schema import Plan, cell_digest, plan_from_json, plan_to_json

from tests.unit.plan.estate import hosts, model, plan_of, reason_of, this_machine

HERE = {"here": HostEntry(this_machine())}
SQL = LoraAdapter("sql", ModelSource(path="/adapters/sql"), rank=12)
LAW = LoraAdapter("law", ModelSource(hub="site/law"), rank=8)
DRAFT = DraftModel(ModelSource(hub="meta-llama/Llama-3.2-1B-Instruct"), tokens=3)


def planned(card: str = "llama-3.1-8b", kind: str = "h200", **keys: Any) -> Plan:
    plan = plan_of(hosts(kind), model(card, context=4096, max_replicas=1, **keys))
    assert not plan.unplaced, plan.reasons
    return plan


def test_adapters_are_in_the_plan_and_vllm_has_a_place_for_each() -> None:
    plan = planned(lora_adapters=(SQL, LAW))
    args = plan.cells[0].engine_args
    assert {key: args[key] for key in args if "lora" in key} == {
        "enable_lora": True,
        "max_loras": 2,
        "max_lora_rank": 16,  # the least that vLLM knows and 12 fits into
    }
    assert [(one.name, one.folder, one.config, one.rank) for one in plan.models[0].adapters] == [
        ("sql", "sql", "adapter_config.json", 12),
        ("law", "law", "adapter_config.json", 8),
    ]
    assert plan_from_json(plan_to_json(plan)) == plan


def test_fewer_places_than_adapters_are_a_choice_of_the_entry() -> None:
    args = planned(lora_adapters=(SQL, LAW), engine_args={"max_loras": 1}).cells[0].engine_args
    assert (args["max_loras"], args["max_cpu_loras"]) == (1, 2)


def test_the_places_of_adapters_are_taken_from_the_kv_cache() -> None:
    """vLLM's tensors for q, k, v, o, gate, up and down of Llama 3.1 8B at rank 16: 84 MB a place."""
    shape = card_named("llama-3.1-8b")
    layer = (4096 + 4096) + 2 * (4096 + 1024) + (4096 + 4096) + 3 * (4096 + 14336)
    assert shape.lora_bytes(16, "bfloat16") == 32 * 16 * layer * 2
    # Divided by two: the outputs of q, k, v, gate and up, the inputs of o and down.
    half = (4096 + 2048) + 2 * (4096 + 512) + (2048 + 4096) + 2 * (4096 + 7168) + (7168 + 4096)
    assert shape.lora_bytes(16, "bfloat16", 2) == 32 * 16 * half * 2
    without, having = planned(max_num_seqs=64), planned(max_num_seqs=64, lora_adapters=(SQL, LAW))
    freed = without.cells[0].limits.kv_cache_bytes - having.cells[0].limits.kv_cache_bytes
    assert freed == 2 * shape.lora_bytes(16, "bfloat16")


def test_adapters_too_large_for_the_memory_are_named_in_the_reason() -> None:
    many = tuple(LoraAdapter(f"a{number}", ModelSource(path="/a"), rank=512) for number in range(40))
    plan = plan_of(hosts("h100"), model("llama-3.1-8b", lora_adapters=many, tensor_parallel_size=1))
    assert plan.unplaced == ("llama-3.1-8b",)
    assert "GB for adapters)" in reason_of(plan, "llama-3.1-8b")


def test_a_draft_model_is_planned_with_its_weights_and_its_keys_and_values() -> None:
    plan = planned(draft=DRAFT, max_num_seqs=64)
    args = plan.cells[0].engine_args
    assert args["speculative_config"] == {"method": "draft_model", "num_speculative_tokens": 3}
    draft = plan.models[0].draft
    assert draft is not None
    small, large = card_named("llama-3.2-1b"), card_named("llama-3.1-8b")
    assert (draft.name, draft.folder) == ("llama-3.1-8b+draft", "llama-3.1-8b+draft")
    assert draft.weight_bytes == small.weight_bytes("bfloat16")
    without, having = planned(max_num_seqs=64).cells[0].limits, plan.cells[0].limits
    assert without.kv_cache_bytes - having.kv_cache_bytes == draft.weight_bytes
    token = large.kv_bytes_per_token("bfloat16") + small.kv_bytes_per_token("bfloat16")
    assert having.kv_cache_tokens == having.kv_cache_bytes // token
    longer = replace(plan.models[0], beside=())
    assert cell_digest(plan.cells[0], longer) != plan.cells[0].digest


def test_a_model_with_neither_has_the_digest_that_it_had_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of before there were adapters: running cells are not restarted by an upgrade."""
    plan = planned()
    hashed: list[dict[str, Any]] = []
    real = schema.json.dumps
    monkeypatch.setattr(schema.json, "dumps", lambda value, **how: [hashed.append(value), real(value, **how)][1])
    assert cell_digest(plan.cells[0], plan.models[0]) == plan.cells[0].digest
    cell_digest(plan.cells[0], planned(draft=DRAFT).models[0])
    digested = [one["model"] for one in hashed if "model" in one]
    assert ("beside" in digested[0], "beside" in digested[-1]) == (False, True)


@pytest.mark.parametrize("keys", [{"lora_adapters": (SQL,)}, {"draft": DraftModel(card="smollm2-135m")}])
def test_what_only_vllm_has_chooses_vllm_on_processors_and_is_refused_elsewhere(keys: dict[str, Any]) -> None:
    old = {"here": HostEntry(this_machine(isa=("avx2",)))}
    (usual,) = plan_of(old, model("smollm2-135m"), runtime="ray").cells
    (cell,) = plan_of(old, model("smollm2-135m", **keys), runtime="ray").cells
    assert (usual.engine, cell.engine) == ("openvino", "vllm")
    for engine in ("openvino", "onnx", "bigdl"):
        refused = plan_of(HERE, model("smollm2-135m", engine=engine, **keys), runtime="ray")
        (key,) = keys
        said = reason_of(refused, "smollm2-135m")
        assert f"smollm2-135m asks for {key}, which {engine} does not support" in said
        assert f"remove `{key}`" in said


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"draft": DRAFT, "speculative_tokens": 4}, "draft: found with speculative_tokens"),
        ({"draft": DraftModel(card="tinyllama-1.1b")}, "32,000 tokens in its vocabulary, the model has 128,256"),
        ({"draft": DraftModel(card="llama-9")}, "llama-9"),
        ({"draft": DraftModel(ModelSource(path="/d"))}, "the draft of llama-3.1-8b: its size is unknown"),
        ({"lora_adapters": (replace(SQL, rank=None),)}, "the rank of sql is unknown, for no adapter_config.json"),
        ({"lora_adapters": (replace(SQL, rank=600),)}, "sql has rank 600, vLLM takes 512 at most"),
        ({"tools": True, "chat": False}, "asks for tools, and vLLM has no parser for it: it has no chat template"),
    ],
)
def test_what_cannot_work_is_one_sentence(keys: dict[str, Any], words: str) -> None:
    plan = plan_of(hosts("h200"), model("llama-3.1-8b", **keys))
    assert plan.unplaced == ("llama-3.1-8b",)
    assert words in reason_of(plan, "llama-3.1-8b")


def test_a_replica_over_several_hosts_has_neither() -> None:
    plan = plan_of(hosts("h100", "h100"), model("llama-3.1-405b", context=8192, draft=DRAFT))
    assert plan.unplaced == ("llama-3.1-405b",)


@pytest.mark.parametrize(
    ("request_", "tools", "reasoning"),
    [
        (ModelRequest("x", card="llama-3.1-8b", tools=True), "llama3_json", None),
        (ModelRequest("x", ModelSource(hub="meta-llama/Llama-3.3-70B-Instruct"), tools=True), "llama3_json", None),
        (ModelRequest("x", card="llama-3.1-8b"), None, None),
        (ModelRequest("x", ModelSource(hub="NousResearch/Hermes-3-Llama-3.1-8B"), tools=True), "hermes", None),
        (ModelRequest("x", ModelSource(hub="Salesforce/Llama-xLAM-2-8b-fc-r"), tools=True), "xlam", None),
        (ModelRequest("x", ModelSource(path="/m/ToolACE-8B/"), tools=True), "pythonic", None),
        (ModelRequest("x", ModelSource(hub="deepseek-ai/DeepSeek-R1-Distill-Llama-8B")), None, "deepseek_r1"),
        (ModelRequest("x", card="llama-2-7b", tools=True), None, None),
        (ModelRequest("llama-3.1-8b-base", tools=True, chat=False), None, None),
    ],
)
def test_a_parser_follows_from_the_family(request_: ModelRequest, tools: str | None, reasoning: str | None) -> None:
    found = parsers_for(request_)
    assert (found.tool_call_parser, found.reasoning_parser) == (tools, reasoning)
    assert found.reason


def test_tools_set_the_parser_send_every_token_and_are_explained() -> None:
    plan = planned(tools=True)
    args = plan.cells[0].engine_args
    assert (args["tool_call_parser"], args["enable_auto_tool_choice"]) == ("llama3_json", True)
    assert args["stream_interval"] == 1 < planned().cells[0].engine_args["stream_interval"]
    said = "Tool calls are read by llama3_json: it is of the family Llama 3.1 to 3.3"
    assert said in plan.pools[0].headroom
    own = planned(tools=True, engine_args={"tool_call_parser": "pythonic"})
    assert own.cells[0].engine_args["tool_call_parser"] == "pythonic"
    assert "Tool calls are read" not in own.pools[0].headroom


def test_tools_of_an_unknown_family_are_refused_with_what_is_known() -> None:
    plan = plan_of(hosts("h200"), model("llama-2-7b", tools=True))
    assert "its name is of none of DeepSeek R1 distilled into Llama, Hermes" in reason_of(plan, "llama-2-7b")
    assert not plan_of(hosts("h200"), model("llama-2-7b", tools=True, engine_args={"tool_call_parser": "x"})).unplaced


def test_the_draft_of_a_wanted_model_is_known_by_its_hubs_name() -> None:
    wanted = want(model("llama-3.1-8b", draft=DRAFT), card_named("llama-3.1-8b"))
    assert wanted.draft == card_named("llama-3.2-1b")
