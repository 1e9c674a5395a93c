"""The one disk that an installer may write to, by a rule."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .machine import Drive

RULE = re.compile(r"boss|smallest|largest|serial:[\w.-]{4,}|model:[\w .*-]*\w[\w .*-]*")


@dataclass(frozen=True)
class Match:
    """How the installer finds the disk: udev's ID_SERIAL or ID_MODEL fits a pattern."""

    by: str  # serial or model
    pattern: str


def choose(drives: Iterable[Drive], rule: str) -> Match | str:
    """The disk, or one sentence why it cannot be told. What is wiped must never be a guess."""
    known = list(drives)
    kind, _, value = rule.partition(":")
    if kind == "model":
        # A RAID controller's volume is no drive that the BMC would list.
        return Match("model", value.strip().replace(" ", "_"))
    if kind == "boss":
        if not any("BOSS" in drive.controller.upper() for drive in known):
            return f"bare_metal_disk is boss, and the BMC lists no BOSS controller; it lists {_listed(known)}"
        return Match("model", "*BOSS*")
    if kind == "serial":
        if value not in [drive.serial for drive in known]:
            return f"bare_metal_disk: no drive has the serial number {value}; the BMC lists {_listed(known)}"
        return Match("serial", f"*{value}*")
    return _by_size(known, kind)


def _by_size(drives: list[Drive], rule: str) -> Match | str:
    sized = [drive for drive in drives if drive.gib and drive.serial]
    if not sized:
        return f"bare_metal_disk is {rule}, and the BMC lists {_listed(drives)}"
    size = (min if rule == "smallest" else max)(drive.gib for drive in sized)
    found = [drive for drive in sized if drive.gib == size]
    if len(found) > 1:
        numbers = " or ".join(f"serial:{drive.serial}" for drive in found)
        return f"bare_metal_disk is {rule}, and {len(found)} drives have {size} GiB; set {numbers}"
    return Match("serial", f"*{found[0].serial}*")


def _listed(drives: list[Drive]) -> str:
    return ", ".join(f"{drive.model} {drive.gib} GiB serial:{drive.serial}" for drive in drives) or "no drives"
