"""What of a host differs from the versions that belong together. Pure functions.

A lock is pip's format with hashes; an installed distribution is a folder NAME-VERSION.dist-info.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)[ \t]*(;)?", re.MULTILINE)
_VERSION = re.compile(r"\d+(?:\.\d+)+(?:\+k3s\d+)?")


@dataclass(frozen=True)
class Pin:
    """What a lock has of a distribution. With conditions it is one of the versions, or rightly none of them."""

    versions: tuple[str, ...]
    conditional: bool = False


def distribution(name: str) -> str:
    """A distribution's name in the one spelling that package indexes compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, Pin]:
    """Versions of a lock by the distribution's name."""
    found: dict[str, Pin] = {}
    for name, version, condition in _PIN.findall(lock):
        before = found.get(distribution(name), Pin(()))
        found[distribution(name)] = Pin((*before.versions, version), bool(condition))
    return found


def installed(folders: Iterable[str]) -> dict[str, str]:
    """Versions by the distribution's name, from the names of ``*.dist-info`` folders."""
    found = (folder.removesuffix(".dist-info").rpartition("-") for folder in folders if folder.endswith(".dist-info"))
    return {distribution(name): version for name, _, version in found}


def of_environment(name: str, lock: str, torch: str, folders: Iterable[str] | None) -> list[str]:
    """What an environment has that its lock has not, and the other way round; ``folders`` is None where it is missing.

    ``torch`` is the version that is installed beside the lock; "" for none.
    """
    if folders is None:
        return [f"the environment {name} is not there"]
    wanted, found = pins(lock), installed(folders)
    if torch:
        wanted["torch"] = Pin((torch,))
    lines = []
    for package in sorted({*wanted, *found}):
        pin, version = wanted.get(package), found.get(package)
        if pin is None:
            lines.append(f"{name}: {package} {version} is installed, and the lock has none")
        elif version is None and not pin.conditional:
            lines.append(f"{name}: {package} is not installed, and the lock has {' or '.join(pin.versions)}")
        elif version is not None and _public(version) not in map(_public, pin.versions):
            lines.append(f"{name}: {package} is {version}, and the lock has {' or '.join(pin.versions)}")
    return lines


def version_in(printed: str | None) -> str:
    """The first version in what a program prints of itself, such as "v1.34.2+k3s1"; "" where there is none."""
    match = _VERSION.search(printed or "")
    return match[0] if match else ""


def of_components(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Components that run in another version. A wanted "580" is met by every version that begins with it.

    Components that are not installed are skipped: the stages decide what a host needs.
    """
    lines = []
    for name, version in wanted.items():
        has, asked = found.get(name, ""), version_in(version) or version
        if has and asked and has != asked and not has.startswith(f"{asked}."):
            lines.append(f"{name} is {has}, and the recipe has {asked}")
    return lines


def _public(version: str) -> str:
    """A version without its build, as in "2.13.0+cpu"."""
    return version.partition("+")[0]
