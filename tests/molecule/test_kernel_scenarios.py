"""Molecule scenarios that set values of the kernel, which all hosts of this machine share: one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SCENARIOS = ("gpu_device_plugin", "host_prep")


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    passes(name)
