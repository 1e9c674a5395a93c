"""Weights in an engine's own format: made once, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from serving.engines import bigdl_convert, onnx_convert
from serving.engines.cache import CACHE
from serving.engines.converted import converted

CONVERTER = """
import os, pathlib, sys, time
weights, target, precision = sys.argv[1:]
pathlib.Path(target).mkdir()
with open(os.environ["RUNS"], "a") as runs:
    runs.write("x")
time.sleep(float(os.environ.get("TAKES", "0")))
if precision == "wrong":
    sys.exit("ValueError: this model is not for us")
pathlib.Path(target, "model").write_text(precision)
"""

PROGRAM = """
import pathlib, sys
from serving.engines.converted import converted
print(converted(pathlib.Path(sys.argv[1]), "onnx", "1", "int8", "made_up"))
"""


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, a cache folder, and a converter named ``made_up`` that counts its runs."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "model.safetensors").write_text("weights")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "made_up.py").write_text(CONVERTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    return folder


def convert(weights: Path, precision: str = "int8", version: str = "1") -> Path:
    return converted(weights, "onnx", version, precision, "made_up")


def test_it_is_made_once_for_a_checkpoint_a_format_and_a_precision(weights: Path, tmp_path: Path) -> None:
    first = convert(weights)
    assert (first / "model").read_text() == "int8"
    assert convert(weights) == first
    others = {convert(weights, "int4"), convert(weights, version="2")}
    (weights / "model.safetensors").write_text("other weights")
    others.add(convert(weights))
    assert len(others | {first}) == 4
    assert (tmp_path / "runs").read_text() == "xxxx"


def test_the_stores_checksums_tell_checkpoints_apart_and_not_their_times(weights: Path) -> None:
    manifest = weights / "heteroserve-weights.json"
    manifest.write_text(json.dumps({"source": {}, "files": {"model.safetensors": {"sha256": "a"}}}))
    first = convert(weights)
    os.utime(weights / "model.safetensors", (1, 1))
    assert convert(weights) == first
    manifest.write_text(json.dumps({"source": {}, "files": {"model.safetensors": {"sha256": "b"}}}))
    assert convert(weights) != first


def test_why_it_failed_is_said_and_nothing_is_left(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="this model is not for us"):
        convert(weights, "wrong")
    left = [
        path.name
        for path in (tmp_path / "cache" / "converted").iterdir()
        if not path.name.endswith((".lock", ".partial"))
    ]
    assert left == []


def test_a_run_that_was_killed_is_repeated(weights: Path, tmp_path: Path, root: Path) -> None:
    library = os.pathsep.join([str(root), str(tmp_path / "library")])
    variables = {**os.environ, "PYTHONPATH": library, "TAKES": "60"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(weights)], env=variables, start_new_session=True)
    until = time.monotonic() + 30
    while not (tmp_path / "runs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder = convert(weights)
    assert (folder / "model").read_text() == "int8"
    assert (tmp_path / "runs").read_text() == "xx"


def test_two_that_start_at_once_convert_once(weights: Path, tmp_path: Path, root: Path) -> None:
    library = os.pathsep.join([str(root), str(tmp_path / "library")])
    variables = {**os.environ, "PYTHONPATH": library, "TAKES": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(weights)], env=variables, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = {process.communicate(timeout=60)[0] for process in both}
    assert len(said) == 1
    assert (tmp_path / "runs").read_text() == "x"


LLAMA = {"hidden_size": 64, "num_attention_heads": 4, "dtype": "bfloat16", "eos_token_id": [2, 3]}


def test_bigdl_is_given_a_config_of_its_time() -> None:
    old = bigdl_convert.old_config({**LLAMA, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})
    assert (old["rope_theta"], old["torch_dtype"], old["eos_token_id"]) == (5e5, "bfloat16", 2)
    assert not {"rope_parameters", "dtype"} & set(old)
    scaled = bigdl_convert.old_config({**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 2.0}})
    assert scaled["rope_scaling"] == {"type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "positions are scaled as 'llama3'"),
        ({"head_dim": 32}, "head_dim"),
        ({"attention_bias": True}, "biases"),
    ],
)
def test_a_model_that_bigdl_would_compute_wrongly_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bigdl_convert.old_config({**LLAMA, **keys})


def test_bigdl_is_given_a_tokenizer_of_its_time() -> None:
    old = bigdl_convert.old_tokenizer({"model": {"merges": [["a", "b"]], "ignore_merges": True}, "x": 1})
    assert old == {"model": {"merges": ["a b"]}, "x": 1}


@pytest.mark.parametrize(
    ("precision", "named", "more"),
    [
        ("int8", "int8", {"algo_config=k_quant", "accuracy_level=4"}),
        ("int4", "int4", {"algo_config=k_quant_mixed", "accuracy_level=4"}),
        ("float32", "fp32", set()),
    ],
)
def test_onnx_weights_are_quantised_as_was_measured(precision: str, named: str, more: set[str]) -> None:
    told = onnx_convert.arguments("/w", "/t", precision, "/c")
    assert told[told.index("-p") + 1] == named
    assert set(told[told.index("--extra_options") + 1 :]) == {"prune_lm_head=true", *more}
