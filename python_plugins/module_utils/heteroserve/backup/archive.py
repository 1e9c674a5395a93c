"""What a backup holds of a state directory: read from its files, packed, unpacked and written again."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from ..common.records import from_dict
from .manifest import KEPT, MANIFEST, STATE, Entry, Manifest, digest, missing

# Raised by ``unpacked`` for what is no archive of a backup.
BROKEN = (tarfile.TarError, ValueError, KeyError, OSError)


def put(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that a reader, or a run that was killed, sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(fresh, mode)
    os.replace(fresh, path)


def files_below(state: Path) -> dict[str, Path]:
    """Regular files of the state directory that a backup holds, by their path below it; links are not followed."""
    paths = sorted(path for name in KEPT for path in (state / name, *(state / name).rglob("*")))
    return {
        str(path.relative_to(state)): path
        for path in paths
        if path.is_file() and not path.is_symlink() and not (path.name.startswith(".") and path.suffix == ".new")
    }


def present(state: Path) -> dict[str, str]:
    """SHA-256 of each of these files, by its path below the state directory."""
    return {name: digest(path.read_bytes()) for name, path in files_below(state).items()}


def described(contents: Mapping[str, Path], made: datetime, **of: Any) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest of files, by their names in the archive, and what is in them."""
    data = {name: path.read_bytes() for name, path in contents.items()}
    files = {name: Entry(digest(text), f"{contents[name].stat().st_mode & 0o777:o}") for name, text in data.items()}
    return Manifest(made=f"{made:%Y-%m-%d %H:%M:%S}", files=files, **of), data


def packed(manifest: Manifest, data: Mapping[str, bytes]) -> bytes:
    """An archive with the manifest as its first file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in {MANIFEST: json.dumps(asdict(manifest), indent=1).encode(), **data}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o600
            archive.addfile(entry, io.BytesIO(text))
    return stream.getvalue()


def unpacked(data: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of an archive. Raises one of ``BROKEN`` if it is none."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive.getmembers() if entry.isfile()}
        contents = {name: stream.read() for name, stream in found.items() if stream is not None}
    return from_dict(Manifest, json.loads(contents.pop(MANIFEST)), "manifest"), contents


def write(manifest: Manifest, contents: Mapping[str, bytes], state: Path) -> list[str]:
    """Write files of the state directory that are not there or differ; their paths below it."""
    names = missing(manifest, present(state))
    for name in names:
        put(state / name, contents[f"{STATE}{name}"], int(manifest.files[f"{STATE}{name}"].mode, 8))
    return names
