"""Which firmware is too old."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .machine import IDRAC, Machine

# Short names, which stand in the inventory.
NAMES = {"idrac": IDRAC, "bios": "BIOS"}


@dataclass(frozen=True)
class Rule:
    """What the inventory asks of a component."""

    minimum: str
    file: str = ""  # in the local repository


@dataclass(frozen=True)
class Old:
    """A component that is older than asked for."""

    component: str  # as the inventory calls it
    found: str
    wanted: str
    file: str

    @property
    def restarts(self) -> bool:
        """Whether the host has to be restarted for its update. The iDRAC restarts itself."""
        return self.component.lower() != "idrac"

    def __str__(self) -> str:
        return f"{self.component} firmware is too old: found {self.found}, wanted {self.wanted} or newer"


def parts(version: str) -> tuple[int, ...]:
    """A version's numbers, to be compared. Zeros in front and at the end do not count."""
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def old(machine: Machine, rules: Mapping[str, Rule]) -> Iterable[Old]:
    """Components that are too old, the iDRAC first: it takes the others' files."""
    for name, rule in sorted(rules.items(), key=lambda item: item[0].lower() != "idrac"):
        for version in sorted({version for _, version in _of(machine, name)}):
            if parts(version) < parts(rule.minimum):
                yield Old(name, version, rule.minimum, rule.file)


def unknown(machine: Machine, rules: Mapping[str, Rule]) -> Iterable[str]:
    """Components that the host has not got; a group of hosts may name those of some."""
    return (name for name in rules if not _of(machine, name))


def _of(machine: Machine, name: str) -> list[tuple[str, str]]:
    wanted = NAMES.get(name.lower(), name).lower()
    exact = name.lower() in NAMES
    return [
        (component, version)
        for component, version in machine.firmware.items()
        if (component.lower() == wanted if exact else wanted in component.lower())
    ]
