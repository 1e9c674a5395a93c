"""Which of some units systemd has, from what ``systemctl show`` prints (systemctl(1))."""

from __future__ import annotations

IDLE = frozenset({"inactive", "failed", ""})
# States in which ``systemctl disable`` has nothing to take away.
NOT_ENABLED = frozenset({"", "disabled", "static", "indirect", "generated", "transient", "masked", "alias"})


def of_systemctl(printed: str) -> dict[str, dict[str, str]]:
    """Properties of each unit by its Id: paragraphs of ``NAME=VALUE`` with an empty line between units."""
    units = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in printed.strip().split("\n\n")
    ]
    return {unit["Id"]: unit for unit in units if "Id" in unit}


def runs(unit: dict[str, str]) -> bool:
    """Whether there is something to stop, also where the unit's file is gone."""
    return unit.get("ActiveState", "") not in IDLE


def enabled(unit: dict[str, str]) -> bool:
    """Whether ``systemctl disable`` has something to take away."""
    return unit.get("LoadState") == "loaded" and unit.get("UnitFileState", "") not in NOT_ENABLED


def in_use(names: list[str], found: dict[str, dict[str, str]]) -> list[str]:
    """Those that run or are enabled."""
    return [name for name in names if (unit := found.get(name)) and (runs(unit) or enabled(unit))]
