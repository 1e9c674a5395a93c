"""Two cells of one model under the runtime ray: updated, restarted and killed under load. Tests run in order.

The engine is the one for tests: what happens to a cell does not depend on it, and two of it fit on this machine.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from heteroserve.common import processes

from tests.helpers.echo_site import echo_site, set_model
from tests.helpers.playbook_runs import changed
from tests.helpers.requests_load import Load

from .conftest import Installation, installation

pytestmark = pytest.mark.integration
# Declared, so that there are two sockets, and on each of them a cell.
HARDWARE = {"cpu": "xeon-8480+", "sockets": 2, "memory_gib": 256}


class Two(Installation):
    """An installation with an inventory of its own."""

    inventory: Path

    def command(self, *words: str) -> list[str]:
        return [*super().command(*words), "-i", str(self.inventory)]

    def set(self, **options: object) -> None:
        """Write the model with these options."""
        set_model(self.inventory, max_replicas=2, **options)


def two_cells(root: Path, folder: Path, base: int) -> Two:
    """An inventory with two cells of the engine for tests, in ports from ``base``."""
    made = installation(root, folder, base)
    made = Two(made.root, made.state, made.cache, made.ports)
    made.inventory = echo_site(root, folder, HARDWARE)
    made.set(engine_args={"token_s": 0.1})
    return made


@pytest.fixture(scope="module")
def two(root: Path, scratch: Path) -> Iterator[Two]:
    made = two_cells(root, scratch / "two", 27000)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


def unharmed(load: Load, cut: int = 0) -> None:
    """Requests were sent all the time, and none was refused, hung, or failed before its answer began."""
    print(load.report())
    assert load.plain.sent > 5
    assert load.streamed.sent > 5
    assert load.plain.failed == load.streamed.failed == []
    assert load.plain.hung + load.streamed.hung == 0
    assert len(load.streamed.cut) <= cut, load.streamed.cut


def test_two_cells_answer(two: Two) -> None:
    two.up()
    assert [cell["name"] for cell in two.plan()["cells"]] == ["echo-cpu-0", "echo-cpu-1"]


def test_an_update_costs_no_request(two: Two) -> None:
    two.set(engine_args={"token_s": 0.11})
    with Load(two.gateway, "echo", 0.3) as load:
        printed = two.up().stdout
    unharmed(load)
    done = re.findall(r"(Drain the cell|Return the cell to the gateways): (echo-cpu-\d)", printed)
    cells = ("echo-cpu-0", "echo-cpu-1")
    assert done == [(what, cell) for cell in cells for what in ("Drain the cell", "Return the cell to the gateways")]


@pytest.mark.long("two minutes; an update is drained by the same tasks")
def test_a_restart_costs_no_request(two: Two) -> None:
    """Another setting of Ray's own, for which its processes have to start again."""
    with Load(two.gateway, "echo", 0.3) as load:
        printed = two.up("-e", "ray_host_object_store_mib=120").stdout
    unharmed(load)
    assert len(re.findall(r"changed .*Ensure Ray has the current configuration", printed)) == 2
    assert changed(two.up("-e", "ray_host_object_store_mib=120").stdout) == 0


def test_a_replica_that_dies_costs_no_request_but_the_stream_it_sends(two: Two) -> None:
    (victim, *_) = sorted(pid for pid, name in two.members().items() if name.startswith("ray::ServeRepl"))
    with Load(two.gateway, "echo", 0.3) as load:
        time.sleep(3)
        os.kill(victim, signal.SIGKILL)
        time.sleep(15)
    unharmed(load, cut=1)
    assert two.run("status").returncode == 0
