"""Reads the archive that playbooks/support.yml writes."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path


def unpacked(printed: str) -> dict[str, str]:
    """The files of the archive that a run has written, by what it printed."""
    (path,) = re.findall(r"support archive +([^\s\"\\]+)", printed)
    return opened(Path(path))


def opened(path: Path) -> dict[str, str]:
    """The files of an archive, which only its owner may read."""
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        files = {name: archive.extractfile(name) for name in archive.getnames()}
        return {name.partition("/")[2]: file.read().decode() for name, file in files.items() if file}


def leaks(files: dict[str, str], secrets: Iterable[str]) -> list[tuple[str, str]]:
    """Secrets that are in a file, and in which."""
    return [(secret, name) for name, text in files.items() for secret in secrets if secret in text]
