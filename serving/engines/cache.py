"""What engines keep on a host between their starts: kernels that were compiled, and weights in their own formats.

``HETEROSERVE_CACHE`` names the folder: of the installation under ``ray``, a volume of the host under ``k3s``. Whatever
no start has used for a month is removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

logger = logging.getLogger("ray.serve")

CACHE = "HETEROSERVE_CACHE"
UNUSED_S = 30 * 24 * 3600
# Variable -> part of the folder. torch.compile's is inside vLLM's.
COMPILERS = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
}
PACKAGES = ("vllm", "torch", "triton", "flashinfer-python", "transformers")
DRIVERS = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version")


def folder(kind: str) -> Path:
    """Where everything of one kind lies; the user's own cache where nobody named a folder."""
    given = os.environ.get(CACHE)
    return (Path(given) if given else Path.home() / ".cache" / "heteroserve") / kind


def usage_book(cell: str) -> Path:
    """Where the replicas of a cell count their tokens (serving/usage.py)."""
    return folder("usage") / f"{cell}.sqlite3"


def keep_compiled(weights: Path) -> Path | None:
    """Let the compilers of this process and its children keep what they make; returns where, None if nowhere.

    The folder is one of this shape of model, these versions and this driver: nothing that others made is met. To be
    called before the engine is imported. Variables that are set already stay.
    """
    parent = folder("compiled")
    place = parent / _key(weights)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        used(place)
        prune(parent)
    except OSError as fault:
        logger.warning("Nothing that is compiled can be kept in %s: %s", parent, fault)
        return None
    for variable, part in COMPILERS.items():
        os.environ.setdefault(variable, str(place / part))
    return place


def used(place: Path) -> None:
    """Note that a start has used it."""
    os.utime(place)


def prune(parent: Path) -> None:
    """Remove folders that no start has used for a month."""
    for place in parent.iterdir():
        if place.is_dir() and time.time() - place.stat().st_mtime > UNUSED_S:
            logger.info("Removing %s, which nothing has used for a month", place)
            shutil.rmtree(place, ignore_errors=True)


def _key(weights: Path) -> str:
    """Of everything that decides what a compiler makes."""
    parts = [sys.version, (weights / "config.json").read_text() if (weights / "config.json").is_file() else ""]
    parts += [f"{name} {_version(name)}" for name in PACKAGES]
    parts += [Path(name).read_text() for name in DRIVERS if Path(name).is_file()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
