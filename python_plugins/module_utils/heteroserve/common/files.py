"""Files that are whole or absent, and locks that end with their owner."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write ``text`` so that a reader, or a run that was killed, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(fresh, mode)
    os.replace(fresh, path)


def sha256_of(path: Path) -> str:
    """Hex digest of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:  # hashlib.file_digest is missing from Python 3.10
        while block := stream.read(4 * 1024 * 1024):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; ``waiting`` is called once if another process has it.

    A module whose ansible-playbook was killed goes on for a while: the next run must wait for it, not meet it.
    The kernel drops the lock when its owner dies, so it can never be left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def amount(size: int) -> str:
    """Bytes as an operator reads them."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def existing_parent(path: Path) -> Path:
    """``path`` itself, or the nearest parent that exists."""
    while not path.exists():
        path = path.parent
    return path


def missing_space(path: Path, needed: int, what: str, setting: str = "state_dir") -> str | None:
    """A sentence if the file system of ``path`` has fewer than ``needed`` bytes free for ``what``, else None."""
    place = existing_parent(path)
    free = shutil.disk_usage(place).free
    if free >= needed:
        return None
    return (
        f"{what} needs {amount(needed)} of disk and {place} has {amount(free)} free:"
        f" free {amount(needed - free)} there or set {setting} to a larger disk"
    )


def remove_tree(path: Path) -> None:
    """Remove a folder by first moving it aside, so that a half-removed one is never taken for a whole one."""
    if not path.exists():
        return
    aside = path.with_name(f".{path.name}.removed-{os.getpid()}-{time.monotonic_ns()}")
    os.rename(path, aside)
    shutil.rmtree(aside)
