"""Roles' Molecule scenarios that may run beside another set of hosts; test_kernel_scenarios.py has the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cluster.conftest import ROOT

from .test_kernel_scenarios import SCENARIOS as WITH_THE_KERNEL

SCENARIOS = sorted({path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"default"})
MARKS = {
    "chatbot": pytest.mark.long("four minutes; test_chatbot.py has the role and the page under ray"),
    "gateway": [  # its clients time how soon a lost host is noticed
        pytest.mark.alone,
        pytest.mark.long("five minutes; the rack has the role on hosts, test_gateway.py its rules and a lost host"),
    ],
    "grafana": pytest.mark.long("three minutes; units run the role in check mode and read its files back"),
    "monitoring": pytest.mark.long("four minutes; units and test_monitoring.py have rules, targets and the guard"),
    "stores": pytest.mark.long(
        "eight minutes; the rack has both stores, units the copy of weights and who copies from whom"
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=MARKS.get(name, ())) for name in SCENARIOS if name not in WITH_THE_KERNEL],
)
def test_scenario(name: str, passes: Callable[[str], None]) -> None:
    passes(name)
