"""Fixtures of the replay tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.machine import open_machine
from heteroserve.facts.collect import collect
from heteroserve.facts.hardware import Hardware

sys.path.insert(0, str(Path(__file__).parent))
import captured_machines as machines

PEERS = ("10.20.1.12", "10.20.1.13")


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., Hardware]:
    """Facts of a captured machine; keyword arguments change its description."""
    numbers = count()

    def run(name: str, peers: tuple[str, ...] | None = None, **changes: Any) -> Hardware:
        description = machines.describe(name)
        commands = {**description.get("commands", {}), **changes.pop("commands", {})}
        root = machines.materialise(
            {**description, **changes, "commands": commands}, tmp_path / f"{name}-{next(numbers)}"
        )
        if peers is None:
            peers = tuple(peer for peer in PEERS if f"ip -j route get {peer}" in commands)
        return collect(open_machine(root), "/srv/models", peers)

    return run
