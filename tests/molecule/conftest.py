"""Molecule's scenarios: each worker of pytest has a set of hosts of its own, which the scenarios of a file share."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import ROOT, missing

SET = str(30 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))
MADE = ROOT / ".cache" / "testcluster"


def molecule(*words: str, long: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Molecule on this worker's hosts and keep what it printed."""
    program = shutil.which("molecule")
    assert program
    return subprocess.run(
        [program, *words],
        cwd=ROOT,
        env={
            **os.environ,
            "HETEROSERVE_TEST_SET": SET,
            "HETEROSERVE_TEST_LONG": str(int(long)),
            "NO_COLOR": "1",
            # `molecule reset` removes the folder that it lies in.
            "MOLECULE_EPHEMERAL_DIRECTORY": str(MADE / f"molecule-{SET}" / "state"),
        },
        capture_output=True,
        encoding="utf-8",
        timeout=1500,
    )


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    """Bare hosts, made once for the scenarios of a file."""
    fault = missing()
    if fault:
        pytest.skip(fault)
    molecule("reset")
    molecule("destroy")
    MADE.mkdir(parents=True, exist_ok=True)
    # The first worker unpacks and builds what all sets share.
    with (MADE / "molecule.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = molecule("create")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield
    done = molecule("destroy")
    assert done.returncode == 0, done.stdout[-3000:]
    for folder in (f"state-{SET}", f"molecule-{SET}"):
        shutil.rmtree(MADE / folder, ignore_errors=True)


@pytest.fixture
def passes(hosts: None, pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Run a scenario: check mode on bare hosts, converge, a second run without change, testinfra, and bare hosts."""

    def run(name: str) -> None:
        molecule("reset")  # or the next scenario takes the hosts for prepared, because the one before has prepared them
        done = molecule("test", "-s", name, "--destroy", "never", long=bool(pytestconfig.getoption("--long")))
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]

    return run
