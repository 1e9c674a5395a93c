"""Processes of a unit are found and ended, whoever their parent is, and nobody else's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from heteroserve.common import processes

# Starts a grandchild that hides the mark, as a process that rewrites its title does, and ends at once.
ORPHAN = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={"PATH": os.environ["PATH"]})
"""


@pytest.fixture
def unit() -> Iterator[str]:
    name = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    processes.end(processes.UNIT, name, grace_s=0)


def start(unit: str, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, processes.UNIT: unit}, start_new_session=True
    )


def wait_for(unit: str, count: int) -> None:
    for _ in range(50):
        if len(processes.members(processes.UNIT, unit)) == count:
            return
        time.sleep(0.1)
    pytest.fail(f"{processes.members(processes.UNIT, unit)}")


def test_all_of_a_unit_is_ended_and_nothing_else(unit: str) -> None:
    start(unit, "import time; time.sleep(60)")
    other = start(f"{unit}-other", "import time; time.sleep(60)")
    wait_for(unit, 1)
    assert processes.end(processes.UNIT, unit, grace_s=5) == 1
    assert processes.members(processes.UNIT, unit) == {}
    assert other.poll() is None
    other.kill()
    other.wait()


def test_an_orphan_without_the_mark_is_found_by_its_session(unit: str) -> None:
    leader = start(unit, ORPHAN + "\nimport time; time.sleep(60)")
    wait_for(unit, 2)
    assert processes.end(processes.UNIT, unit, grace_s=5) == 2
    leader.wait()


def test_a_process_that_ignores_the_request_is_killed(unit: str) -> None:
    deaf = start(unit, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    wait_for(unit, 1)
    time.sleep(0.5)
    processes.end(processes.UNIT, unit, grace_s=0.5)
    assert deaf.wait() == -9


def test_a_cell_of_the_same_name_in_another_installation_goes_on(unit: str) -> None:
    """Marks are folders: of the cell in its state directory."""
    mine, other = f"/srv/{unit}/one/cells/llama-cpu-0", f"/srv/{unit}/two/cells/llama-cpu-0"
    first, second = (start(mark, "import time; time.sleep(60)") for mark in (mine, other))
    wait_for(mine, 1)
    wait_for(other, 1)
    assert processes.end(processes.UNIT, mine, grace_s=5) == 1
    assert second.poll() is None
    assert list(processes.members(processes.UNIT, other)) == [second.pid]
    processes.end(processes.UNIT, other, grace_s=5)
    first.wait()
    second.wait()


def test_the_mark_of_a_cell_names_its_installation(root: Path) -> None:
    text = (root / "roles" / "ray_host" / "templates" / "cell.json.j2").read_text()
    assert "\"unit\": {{ (installation ~ '/cells/' ~ ray_host_cell.name) | to_json }}" in text


def test_ports_are_told_by_owner() -> None:
    taken = {18003: "the installation in /srv/a", 18001: "the installation in /srv/a", 8080: "process 7 (nginx)"}
    assert processes.clashes(taken) == [
        "port 8080 is used by process 7 (nginx)",
        "ports 18001 and 18003 are used by the installation in /srv/a",
    ]


def test_a_port_that_another_process_has_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (owner,) = processes.taken_ports([port], "/nowhere").values()
        assert owner.startswith(f"process {os.getpid()} (")
    assert processes.taken_ports([port], "/nowhere") == {}


def test_a_port_of_the_same_installation_is_not_taken() -> None:
    script = (
        "import socket, time; server = socket.create_server(('127.0.0.1', 0));"
        " print(server.getsockname()[1], flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, processes.INSTALLATION: "/my/state"},
        start_new_session=True,
        stdout=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        assert processes.taken_ports([port], "/my/state") == {}
        assert processes.taken_ports([port], "/other/state") == {port: "the installation in /my/state"}
        server.kill()
