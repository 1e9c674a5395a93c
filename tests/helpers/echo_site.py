"""An inventory of this machine with a model of the engine for tests: what happens to a cell does not depend on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml


def echo_site(root: Path, folder: Path, hardware: dict[str, Any] | None = None) -> Path:
    """inventory/local with the engine for tests, and ``hardware`` declared; ``set_model`` says which model."""
    inventory = Path(shutil.copytree(root / "inventory" / "local", folder / "inventory"))
    # The engine reads no weights; the stage hosts looks whether there are any.
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (weights / "model.safetensors").touch()
    if hardware:
        (inventory / "host_vars").mkdir()
        (inventory / "host_vars" / "local.yml").write_text(yaml.safe_dump({"hardware": hardware}))
    cluster = inventory / "group_vars" / "all" / "cluster.yml"
    cluster.write_text(f"{cluster.read_text()}\nserving_plan_options: {{builds: [vllm-cpu, echo]}}\n")
    return inventory


def set_model(inventory: Path, **options: Any) -> None:
    """Write the model with these options."""
    model = {
        "name": "echo",
        "engine": "echo",
        "source": {"path": str(inventory.with_name("weights"))},
        "card": "smollm2-135m",
        "context": 512,
        "max_num_seqs": 4,
        **options,
    }
    (inventory / "group_vars" / "all" / "models.yml").write_text(yaml.safe_dump({"models": [model]}))
