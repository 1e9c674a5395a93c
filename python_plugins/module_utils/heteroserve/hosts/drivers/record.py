"""What a role noted of a host before it changed it, so that its way back leaves the host as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Change:
    """What a role is about to do. ``files`` are those that it writes, with what they hold now (None: nothing);
    ``groups`` those that are not there; ``hold`` what upgrades will leave alone, ``services`` what it enables.
    """

    files: dict[str, str | None] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    installing: bool = False


def begin(record: dict[str, Any], packages: tuple[str, ...], change: Change) -> dict[str, Any]:
    """The record before a change. Packages are noted until ``end``: a run may be killed in between.

    The way back must not depend on what would be planned by then, so all of the change is noted.
    """
    fresh = dict(record)
    fresh["files"] = {**change.files, **record.get("files", {})}
    for name in ("groups", "hold", "services"):
        fresh[name] = sorted({*record.get(name, []), *getattr(change, name)})
    if change.installing and "before" not in record:
        fresh["before"] = sorted(packages)
    return fresh


def end(record: dict[str, Any], packages: tuple[str, ...], restart: dict[str, str] | None) -> dict[str, Any]:
    """The record after a change: packages that came are the role's, and so are those of a run that was killed."""
    fresh = {key: value for key, value in record.items() if key not in ("before", "restart")}
    came = set(packages) - set(record["before"]) if "before" in record else set()
    fresh["packages"] = sorted((came | set(record.get("packages", []))) & set(packages))
    asked = record.get("restart")
    if restart and (asked is None or asked.get("installed") != restart["installed"]):
        asked = restart
    if restart and asked:
        fresh["restart"] = asked
    return fresh


def leftovers(record: dict[str, Any], packages: tuple[str, ...]) -> list[str]:
    """Packages that the role's way back removes."""
    came = set(packages) - set(record["before"]) if "before" in record else set()
    return sorted((came | set(record.get("packages", []))) & set(packages))
