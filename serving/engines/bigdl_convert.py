"""Prepare a Llama checkpoint for BigDL.

``python -m serving.engines.bigdl_convert WEIGHTS TARGET PRECISION``

BigDL 2.4 reads checkpoints as transformers 4.31 wrote them; what has another form today is given the old one first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def old_config(config: dict[str, Any]) -> dict[str, Any]:
    """config.json as transformers 4.31 reads it. Raises ``ValueError`` for a model that it cannot compute."""
    old = dict(config)
    rope = dict(old.pop("rope_parameters", None) or old.pop("rope_scaling", None) or {})
    old["rope_theta"] = rope.pop("rope_theta", old.get("rope_theta", 10000.0))
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    if kind in ("linear", "dynamic"):
        old["rope_scaling"] = {"type": kind, "factor": rope["factor"]}
    elif kind != "default":
        raise ValueError(
            f"BigDL 2.4 cannot compute this model: its positions are scaled as {kind!r} (Llama 3.1 and later)"
        )
    heads = int(old["num_attention_heads"])
    if int(old.get("head_dim") or old["hidden_size"] // heads) != int(old["hidden_size"]) // heads:
        raise ValueError("BigDL 2.4 cannot compute this model: head_dim is not hidden_size / num_attention_heads")
    if old.get("attention_bias") or old.get("mlp_bias"):
        raise ValueError("BigDL 2.4 cannot compute this model: its layers have biases")
    ends = old.get("eos_token_id")
    if isinstance(ends, list):
        old["eos_token_id"] = ends[0]  # only for the library's own loop, which is not used
    old["torch_dtype"] = old.pop("dtype", None) or old.get("torch_dtype") or "bfloat16"
    return old


def old_tokenizer(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json as tokenizers 0.13 reads it: merges are "a b" and not ["a", "b"]."""
    model = dict(tokenizer["model"])
    merges = model.get("merges")
    if merges and isinstance(merges[0], list):
        model["merges"] = [" ".join(pair) for pair in merges]
    model.pop("ignore_merges", None)
    return {**tokenizer, "model": model}


def convert(weights: Path, target: Path, precision: str) -> None:
    """Make the folder that ``serving.engines.bigdl`` loads and quantises.

    The weights in it are links. BigDL can save what it has quantised (save_low_bit), but what it loads from that is
    another model: the one of inventory/local no longer named the capital of France, with logits that were 1 lower.
    """
    config = old_config(json.loads((weights / "config.json").read_text()))
    tokenizer = old_tokenizer(json.loads((weights / "tokenizer.json").read_text()))
    target.mkdir(parents=True)
    for file in weights.iterdir():
        if file.suffix == ".safetensors" or file.name == "model.safetensors.index.json":
            (target / file.name).symlink_to(file.resolve())
    (target / "config.json").write_text(json.dumps(config))
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))


if __name__ == "__main__":
    source, goal, form = sys.argv[1:4]
    try:
        convert(Path(source), Path(goal), form)
    except ValueError as fault:
        sys.exit(str(fault))
