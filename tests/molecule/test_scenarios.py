"""Every role's Molecule scenario, on one set of hosts that all share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import ROOT, missing

SCENARIOS = sorted(
    path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml") if path.parent.name != "default"
)
ALONE = {"gateway"}  # its clients time how soon a lost host is noticed
# Steps that test_rack takes with the same roles on such hosts; --long takes them here too.
SHOWN_BY_THE_RACK = {
    "gateway": {"check", "idempotence"},
    "host_prep": {"check", "idempotence"},
    "stores": {"idempotence"},
}
STEPS = ("prepare", "check", "converge", "idempotence", "verify", "cleanup")
SET = "30"


def molecule(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("molecule")
    assert program
    return subprocess.run(
        [program, *words],
        cwd=ROOT,
        env={**os.environ, "HETEROSERVE_TEST_SET": SET, "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=1500,
    )


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    fault = missing()
    if fault:
        pytest.skip(fault)
    molecule("reset")
    molecule("destroy")
    yield
    done = molecule("destroy")
    assert done.returncode == 0, done.stdout[-3000:]
    shutil.rmtree(Path(ROOT) / ".cache" / "testcluster" / f"state-{SET}", ignore_errors=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.alone) if name in ALONE else name for name in SCENARIOS]
)
def test_scenario(name: str, hosts: None, pytestconfig: pytest.Config) -> None:
    """Check mode on bare hosts, converge, a second run without change, testinfra, and back to bare hosts."""
    molecule("reset")  # or the next scenario takes the hosts for prepared, because the one before has prepared them
    steps = [("test", "-s", name, "--destroy", "never")]
    if name in SHOWN_BY_THE_RACK and not pytestconfig.getoption("--long"):
        taken = [step for step in STEPS if step not in SHOWN_BY_THE_RACK[name]]
        steps = [("create",), *((step, "-s", name) for step in taken)]
    for step in steps:
        done = molecule(*step)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
