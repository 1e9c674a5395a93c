"""Weights in an engine's own format, converted once from the safetensors of the model store.

A folder of the cache belongs to one checkpoint, engine and precision, and appears when it is whole. A run that was
killed leaves a folder that the next one throws away; two replicas that start at once convert once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.engines import cache

logger = logging.getLogger("ray.serve")

MANIFEST = "heteroserve-weights.json"


def fingerprint(weights: Path) -> str:
    """What the checkpoint is: the model store's checksums; names, sizes and times of files where there are none."""
    try:
        noted = json.loads((weights / MANIFEST).read_text())["files"]
        found = sorted((name, file["sha256"]) for name, file in noted.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = sorted(
            (path.name, f"{path.stat().st_size} {path.stat().st_mtime_ns}")
            for path in weights.iterdir()
            if path.is_file()
        )
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def converted(weights: Path, engine: str, version: str, precision: str, module: str) -> Path:
    """The folder with converted weights; ``python -m MODULE WEIGHTS TARGET PRECISION`` makes it where there is none.

    ``version`` is that of the format: another one is another folder. The conversion has a process of its own, whose
    memory and libraries are gone when the engine runs. Raises ``RuntimeError`` with its last words if it fails.
    """
    key = hashlib.sha256("\n".join([fingerprint(weights), engine, version, precision]).encode()).hexdigest()[:16]
    folder = cache.folder("converted") / f"{weights.name}-{engine}-{precision}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        # The kernel gives the lock back when its holder dies.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            cache.used(folder)
            return folder
        part = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(part, ignore_errors=True)
        logger.info("Converting %s for %s as %s", weights, engine, precision)
        _run([sys.executable, "-m", module, str(weights), str(part), precision])
        os.replace(part, folder)
    cache.prune(folder.parent)
    return folder


def _run(command: Sequence[str]) -> None:
    library = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": library, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["it said nothing"]
        raise RuntimeError(f"The weights could not be converted (status {done.returncode}): {words[-1][:400]}")
