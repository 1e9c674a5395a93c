"""A LoRA adapter in peft's format, with small random weights.

Standard library only. The adapter changes its model's answers and says nothing sensible: it shows whether an adapter is
used, not what a trained one is good for. By hand, with config.json in MODEL:
``python -m tests.helpers.lora_adapter MODEL FOLDER``
"""

from __future__ import annotations

import array
import json
import random
import sys
from pathlib import Path
from typing import Any

MODULES = ("q_proj", "v_proj")


def tensors(config: dict[str, Any], rank: int, seed: int, size: float) -> dict[str, tuple[list[int], list[float]]]:
    """Shape and values of the two matrices of each module: A as peft initialises it, B not zero as after training."""
    chance = random.Random(seed)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    rows = {"q_proj": heads * head, "v_proj": config["num_key_value_heads"] * head}
    found = {}
    for layer in range(config["num_hidden_layers"]):
        for module in MODULES:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            first = [chance.gauss(0, hidden**-0.5) for _ in range(rank * hidden)]
            second = [chance.gauss(0, size) for _ in range(rows[module] * rank)]
            found[f"{name}.lora_A.weight"] = ([rank, hidden], first)
            found[f"{name}.lora_B.weight"] = ([rows[module], rank], second)
    return found


def write_safetensors(path: Path, values: dict[str, tuple[list[int], list[float]]]) -> None:
    """The format: the length of a JSON header in 8 bytes, the header, and the tensors' bytes one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blocks, end = [], 0
    for name, (shape, numbers) in values.items():
        block = array.array("f", numbers).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(block)]}
        blocks.append(block)
        end += len(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blocks))


def make_adapter(config: dict[str, Any], folder: Path, rank: int = 8, seed: int = 1, size: float = 0.2) -> None:
    """Write ``folder``, for a Llama with this config.json. The larger ``size``, the more it changes the answers."""
    folder.mkdir(parents=True)
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(MODULES),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=1) + "\n")
    write_safetensors(folder / "adapter_model.safetensors", tensors(config, rank, seed, size))


if __name__ == "__main__":
    make_adapter(json.loads((Path(sys.argv[1]) / "config.json").read_text()), Path(sys.argv[2]))
