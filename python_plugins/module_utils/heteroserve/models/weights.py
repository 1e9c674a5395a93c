"""What a folder must hold for an engine to load a model from it, and whether its files are what they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..common.files import sha256_of
from ..plan.schema import Beside, PlannedModel

# In a folder of weights that HeteroServe made: where they come from, and size, time and SHA-256 of each file.
MANIFEST = "heteroserve-weights.json"
# Files are read by several threads: one core computes SHA-256 at a GB/s or so, and a good disk gives more.
READERS = 4


def fault_of_folder(name: str, folder: Path, config: str = "config.json") -> str | None:
    """What is wrong with a folder of weights that the operator named, as one sentence; None if it can be loaded.

    ``config`` is the file that says what the weights are.
    """
    if not folder.is_dir():
        return f"models: {name}: source.path {folder} is not a folder on this host"
    if not (folder / config).is_file():
        what = "a safetensors checkpoint" if config == "config.json" else "an adapter in peft's format"
        return f"models: {name}: source.path {folder} has no {config}: name the folder of {what}"
    if not any(folder.glob("*.safetensors")):
        return f"models: {name}: source.path {folder} has no *.safetensors file, which the engines load"
    return None


def cut_short(path: Path) -> str | None:
    """A sentence if a safetensors file is shorter or longer than its own header says; None if it is not."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= size - 8:
            return f"{path} is no safetensors file, or was cut short: copy it again"
        try:
            header = json.loads(stream.read(length))
            data = max([entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"], default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return f"{path} has no readable safetensors header: copy it again"
    expected = 8 + length + data
    return None if size == expected else f"{path} has {size} bytes and its header says {expected}: copy it again"


def fault_of_files(name: str, folder: Path, config: str = "config.json") -> str | None:
    """As fault_of_folder, and looks into the checkpoint: every file that its index names, at its full length."""
    fault = fault_of_folder(name, folder, config)
    if fault:
        return fault
    index = folder / "model.safetensors.index.json"
    named: set[str] = set()
    if index.is_file():
        try:
            named = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return f"models: {name}: {index} cannot be read: copy it again"
    for file in sorted(named):
        if not (folder / file).is_file():
            return f"models: {name}: {folder / file} is missing, which {index.name} names: copy it there"
    for path in sorted(folder.glob("*.safetensors")):
        fault = cut_short(path)
        if fault:
            return f"models: {name}: {fault}"
    return None


def unreadable(name: str, folder: Path, user: int) -> str | None:
    """One sentence if a user (uid and gid) cannot read a folder of weights; None if it can.

    Parent folders are not checked: only the folder itself is mounted into the pod.
    """
    for path in (folder, *sorted(folder.rglob("*"))):
        found = path.stat()
        needed = 0o5 if path.is_dir() else 0o4
        shift = 6 if found.st_uid == user else 3 if found.st_gid == user else 0
        if found.st_mode >> shift & needed != needed:
            return (
                f"models: {name}: user {user}, who runs the engines, cannot read {path}: run chmod -R a+rX {folder} on"
                " this host"
            )
    return None


def contents(folder: Path) -> list[Path]:
    """The files of a folder of weights that count, in a fixed order."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.relative_to(folder).parts[0].startswith(".")
    ]


def read_manifest(path: Path) -> dict[str, Any]:
    """What was noted of a folder; {"source": None, "files": {}} if nothing was."""
    try:
        manifest = json.loads(path.read_text())
        return {"source": manifest.get("source"), "files": dict(manifest["files"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"source": None, "files": {}}


def note(path: Path, sha256: str) -> dict[str, Any]:
    """What a manifest says of one file."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256}


def unchanged(path: Path, known: dict[str, Any]) -> bool:
    """Whether size and time of a file are as noted, so that it need not be read again."""
    try:
        found = path.stat()
    except OSError:
        return False
    return bool(found.st_size == known["size"] and found.st_mtime_ns == known["mtime_ns"])


def checksums(paths: list[Path], tell: Callable[[int, int], None]) -> dict[Path, str]:
    """SHA-256 of each file. ``tell`` is called with the bytes that are done and those that there are."""
    total, done = sum(path.stat().st_size for path in paths), 0
    found: dict[Path, str] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for path, digest in zip(paths, pool.map(sha256_of, paths), strict=True):
            found[path] = digest
            done += path.stat().st_size
            tell(done, total)
    return found


def differing(folder: Path, wanted: dict[str, Any], noted: dict[str, Any], verify: bool) -> tuple[list[str], list[str]]:
    """Files that are not there in the wanted size, and files that must be read to know whether they are right.

    ``noted`` is what this host found when it last read the folder. ``verify`` trusts no note.
    """
    wrong, unsure = [], []
    for name, file in wanted.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["size"]:
            wrong.append(name)
        elif verify or noted.get(name, {}).get("sha256") != file["sha256"] or not unchanged(path, noted[name]):
            unsure.append(name)
    return wrong, unsure


def with_beside(model: dict[str, Any]) -> list[dict[str, Any]]:
    """A model of plan.json, and what an engine loads beside it: each has a name, a source, a folder and a size."""
    return [model, *model.get("beside", ())]


def weights_path(models_path: str, model: PlannedModel | Beside) -> str:
    """Where model_store puts the weights on a host, and where a pod finds them."""
    return f"{models_path.rstrip('/')}/{model.folder}"
