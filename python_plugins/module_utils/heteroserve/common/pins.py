"""Files that are pinned: each by its SHA-256, from a table, from its user, or from the first time it was fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The words of the Go world, which names of releases are made of, for those of Python's platform module.
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Pin:
    """The digest that a file must have, and who says so; empty for a file that nobody knows yet."""

    digest: str
    origin: str = ""


def fill(text: str, system: str, machine: str) -> str:
    """Put the running machine into a name with ``{os}`` and ``{arch}``, such as helm-v3.19.0-{os}-{arch}.tar.gz."""
    architecture = ARCHITECTURES.get(machine.lower(), machine.lower())
    return text.replace("{os}", system.lower()).replace("{arch}", architecture)


def pin_of(name: str, given: str, table: Mapping[str, str], lock: Mapping[str, str]) -> Pin:
    """What the file called ``name`` must be: the user's word first, then the table, then the lock file."""
    if given:
        return Pin(given.lower(), "the settings")
    if table.get(name):
        return Pin(table[name].lower(), "the table of pinned versions")
    if lock.get(name):
        return Pin(lock[name].lower(), "the first time it was fetched")
    return Pin("")


def digest_fault(source: str, found: str, pin: Pin, setting: str) -> str | None:
    """A sentence if a file is not the pinned one."""
    if not pin.digest or found == pin.digest:
        return None
    return (
        f"{source} has the SHA-256 {found}, and {pin.digest} is pinned by {pin.origin}: it was changed on its way or is"
        f" another build; fetch it again, or set {setting} if you trust it"
    )


def no_source(name: str, paths: Sequence[str], url: str) -> str:
    """A sentence for a file that is nowhere, or cannot be downloaded."""
    if url:
        return f"{name} cannot be downloaded from {url}: let this machine reach it, or put it into airgap_dir"
    return f"{name} is not in the airgap folder: put {' or '.join(paths)} there"
