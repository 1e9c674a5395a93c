"""What a backup holds, and why it must not be restored. Pure functions.

A backup is a tar archive with ``manifest.json`` first, encrypted as a whole with Ansible Vault, which also notices any
change of it. It can be opened without HeteroServe: ``ansible-vault decrypt --output - FILE | tar tzv``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state/"  # files of the state directory
DATABASE = "database/"  # the snapshot of etcd
# What a run cannot recreate. It can recreate environments, weights, logs and programs.
KEPT = (
    "secrets/",
    "registry/",
    "configs/",
    "benchmarks/",
    "plan.json",
    "plan.html",
    "health.json",
    "images.json",
    "engine-images.json",
    "charts.lock.json",
    "cis.json",
    "kubeconfig",
)
SHORTEST_PASSWORD = 16  # characters: Ansible Vault makes a key of it with 10,000 rounds of PBKDF2


@dataclass(frozen=True)
class Entry:
    """A file: its digest, and its mode as ``chmod`` takes it ("600")."""

    sha256: str
    mode: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is of."""

    made: str  # UTC
    version: str  # of HeteroServe
    runtime: str
    hosts: tuple[str, ...]
    files: dict[str, Entry] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def snapshot(self) -> str:
        """Name of the snapshot of etcd; "" if there is none."""
        return next((name.removeprefix(DATABASE) for name in self.files if name.startswith(DATABASE)), "")


def is_kept(name: str) -> bool:
    """Whether a file, by its path below the state directory, belongs into a backup."""
    return name in KEPT or any(name.startswith(one) for one in KEPT if one.endswith("/"))


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def password_fault(password: str) -> str:
    """Why a password does not do; "" if it does."""
    if not password:
        return "no password is given: set backup_password_file to a file that holds it, or backup_password in a vault"
    if len(password) < SHORTEST_PASSWORD:
        return (
            f"the password has {len(password)} characters: take {SHORTEST_PASSWORD} or more (openssl rand -base64 24)"
        )
    return ""


def content_fault(manifest: Manifest, contents: Mapping[str, bytes]) -> str:
    """Why an archive that was opened is not what its manifest says; "" if it is."""
    if manifest.format != FORMAT:
        return f"it has format {manifest.format}, and here {FORMAT} is read: take the version {manifest.version}"
    strange = [name for name in contents if not _is_proper(name)]
    differing = [name for name, entry in manifest.files.items() if digest(contents.get(name, b"")) != entry.sha256]
    wrong = sorted({*strange, *differing, *(set(contents) ^ set(manifest.files))})
    return f"what it holds is not what its manifest says: {listed(wrong)}" if wrong else ""


def other_inventory(manifest: Manifest, runtime: str, hosts: Sequence[str]) -> str:
    """Why a backup is not of this inventory; "" if it may be: some of its hosts may have gone, and others come."""
    if manifest.runtime != runtime:
        return f"it is of the runtime {manifest.runtime}, and this inventory has {runtime}"
    if not set(manifest.hosts) & set(hosts):
        return f"it is of another inventory: none of its hosts ({listed(manifest.hosts)}) is one of {listed(hosts)}"
    return ""


def differing(manifest: Manifest, present: Mapping[str, str]) -> list[str]:
    """Files of the state directory, by their path below it, that are there (SHA-256) and are not as in the backup."""
    return sorted(set(missing(manifest, present)) & set(present))


def missing(manifest: Manifest, present: Mapping[str, str]) -> list[str]:
    """Files of the state directory, by their path below it, that have to be written: they are not there, or differ."""
    wanted = {name.removeprefix(STATE): entry for name, entry in manifest.files.items() if name.startswith(STATE)}
    return [name for name, entry in wanted.items() if present.get(name) != entry.sha256]


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in a sentence, of many the first ones."""
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _is_proper(name: str) -> bool:
    """Whether a file of an archive may be written: below the state directory, and of those that a backup holds."""
    parts = name.split("/")
    if "" in parts or ".." in parts or "." in parts:
        return False
    return name.startswith(DATABASE) or (name.startswith(STATE) and is_kept(name.removeprefix(STATE)))
