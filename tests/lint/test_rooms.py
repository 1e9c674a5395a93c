"""The rooms of the code are the stages of site.yml, and no room imports from a later one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

SHARED = "python_plugins/module_utils/heteroserve"
PREFIXES = ("ansible.module_utils.heteroserve", "heteroserve")
# Each line may import from the lines above it.
LEVELS = (
    ("common",),
    ("inventory", "facts"),
    ("plan",),
    ("hosts", "cluster", "images", "models", "metal"),
    ("serving",),
    ("gateway", "health", "monitoring"),
    ("support", "backup"),
)
# Between rooms of one level: who may import whom, and why.
BESIDE = {
    ("hosts", "models"): "host_check tells of weights that are broken before anything is installed",
    ("monitoring", "health"): "the known-answer check is asked all the time, and by whoever returns a drained cell",
    ("monitoring", "gateway"): "cells on broken GPUs are drained in HAProxy",
    ("health", "gateway"): "the status table shows what the gateway says of each cell",
}

# The one module that asks later rooms: validate refuses what the plan would, by the plan's own rules, before hosts are
# touched. The inventory's room itself is handed what it needs.
ASKS_LATER_ROOMS = "modules/inventory/inventory_check.py"

Arrows = dict[tuple[str, str], set[str]]


def imported(text: str, package: list[str]) -> set[str]:
    """Modules below heteroserve that a file imports; ``package`` is its own, [] outside of heteroserve."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            own = ".".join(["heteroserve", *base, *([node.module] if node.module else [])])
            names = [f"{own}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            prefix = next((one for one in PREFIXES if name.startswith(f"{one}.")), None)
            if prefix:
                found.add(name.removeprefix(f"{prefix}."))
    return found


def arrows(root: Path) -> Arrows:
    """(importing room, imported room) -> "file: module" of each import. A room's modules belong to it."""
    found: Arrows = defaultdict(set)
    shared, modules = root / SHARED, root / "python_plugins" / "modules"
    for path in sorted(shared.rglob("*.py")):
        package = list(path.relative_to(shared).parent.parts)
        if package:
            for module in imported(path.read_text(), package):
                found[package[0], module.partition(".")[0]].add(f"{path.relative_to(shared)}: {module}")
    for path in sorted(modules.rglob("*.py")):
        for module in imported(path.read_text(), []):
            room = path.relative_to(modules).parts[0]
            if f"modules/{path.relative_to(modules)}" != ASKS_LATER_ROOMS:
                found[room, module.partition(".")[0]].add(f"modules/{path.relative_to(modules)}: {module}")
    for path in sorted((root / "serving").rglob("*.py")):
        for module in imported(path.read_text(), []):
            found["serving", module.partition(".")[0]].add(f"{path.relative_to(root)}: {module}")
    return {pair: files for pair, files in found.items() if pair[0] != pair[1]}


def fault(here: str, there: str) -> str | None:
    """Why a room must not import from another; None if it may."""
    level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    if here not in level or there not in level:
        return f"{here if here not in level else there} is no room"
    if level[there] < level[here] or (here, there) in BESIDE:
        return None
    return "is on the same level" if level[there] == level[here] else "belongs to a later stage"


def circle(found: Arrows) -> list[str]:
    """Rooms that import from each other in a circle; empty if there is none."""
    targets: dict[str, set[str]] = defaultdict(set)
    for here, there in found:
        targets[here].add(there)
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return [*way[way.index(room) :], room]
        if room in done:
            return []
        for there in sorted(targets[room]):
            if found_circle := walk(there, [*way, room]):
                return found_circle
        done.add(room)
        return []

    return next((way for room in sorted(targets) if (way := walk(room, []))), [])


def test_no_room_imports_from_a_later_one(root: Path) -> None:
    found = arrows(root)
    assert found
    for here in sorted({pair[0] for pair in found}):
        print(f"{here:<10} imports {', '.join(sorted(there for room, there in found if room == here))}")
    faults = [
        f"{here} -> {there} ({why}): {'; '.join(sorted(files))}"
        for (here, there), files in sorted(found.items())
        if (why := fault(here, there))
    ]
    assert not faults, "\n".join(faults)
    assert circle(found) == []


def test_pairs_that_are_allowed_are_in_use(root: Path) -> None:
    found = arrows(root)
    assert [pair for pair in BESIDE if pair not in found] == []


@pytest.mark.parametrize("folder", [SHARED, "python_plugins/modules", "tests/unit"])
def test_files_lie_in_rooms(folder: str, root: Path) -> None:
    rooms = {room for level in LEVELS for room in level}
    stray = [
        str(path.relative_to(root / folder))
        for path in (root / folder).rglob("*.py")
        if path.relative_to(root / folder).parts[0] not in {*rooms, "__init__.py", "repository"}
    ]
    assert stray == []
