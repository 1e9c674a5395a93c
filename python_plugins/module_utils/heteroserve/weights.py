"""What a folder must hold for an engine to load a model from it."""

from __future__ import annotations

from pathlib import Path


def fault_of_folder(name: str, folder: Path) -> str | None:
    """What is wrong with a folder of weights that the operator named, as one sentence; None if it can be loaded."""
    if not folder.is_dir():
        return f"models: {name}: source.path {folder} is not a folder on this host"
    if not (folder / "config.json").is_file():
        return f"models: {name}: source.path {folder} has no config.json: name the folder of a safetensors checkpoint"
    if not any(folder.glob("*.safetensors")):
        return f"models: {name}: source.path {folder} has no *.safetensors file, which the engines load"
    return None
