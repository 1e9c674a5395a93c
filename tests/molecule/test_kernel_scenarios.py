"""Molecule scenarios that set values of the kernel, which all hosts of this machine share: one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SCENARIOS = ("gpu_device_plugin", "host_prep")


@pytest.mark.parametrize(
    "name",
    [
        "gpu_device_plugin",
        pytest.param(
            "host_prep", marks=pytest.mark.long("three minutes; the rack has it in check mode, twice and undone")
        ),
    ],
)
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    passes(name)
