"""Roles' Molecule scenarios that may run beside another set of hosts; test_kernel_scenarios.py has the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import ROOT

from .test_kernel_scenarios import SCENARIOS as WITH_THE_KERNEL

SCENARIOS = sorted({path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"default"})
ALONE = {"gateway"}  # its clients time how soon a lost host is noticed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.alone) if name in ALONE else name
        for name in SCENARIOS
        if name not in WITH_THE_KERNEL
    ],
)
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    passes(name)
