"""Molecule scenarios that set values of the kernel, which all hosts of this machine share: one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SCENARIOS = ("gpu_device_plugin", "host_prep")
MARKS = {
    "gpu_device_plugin": pytest.mark.long(
        "five minutes, a cluster of its own; units have charts, counts and sentences"
    ),
    "host_prep": pytest.mark.long("three minutes; the rack runs the role in check mode, twice, and its reset"),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) for name in SCENARIOS])
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    passes(name)
