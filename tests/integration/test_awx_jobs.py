"""The job templates of awx/config, run by ansible-runner as AWX runs them. Tests run in order.

There is no AWX here; tests/helpers/awx_jobs.py says what stands for it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common import processes

from tests.helpers.awx_jobs import UID, Job, Node
from tests.helpers.echo_site import echo_site, set_model
from tests.helpers.playbook_runs import changed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run jobs in an account that has no name"),
]
WIDEST = 400  # characters of a line of a job's output


def readable(job: Job) -> None:
    """Nobody scrolls sideways, or past a heap of braces."""
    assert max(map(len, job.stdout.splitlines())) <= WIDEST, job.told()


@pytest.fixture(scope="module")
def estate(root: Path, scratch: Path) -> Node:
    """inventory/dell: nothing on a host is done with it here."""
    return Node(scratch / "estate", root / "inventory" / "dell")


@pytest.mark.parametrize("verbosity", [0, 1])
def test_the_plan_of_an_estate_can_be_read(estate: Node, verbosity: int) -> None:
    job = estate.run("facts and plan", verbosity)
    assert job.status == "successful", job.told()
    readable(job)
    table = job.stdout.split("What runs where")[1].split("What to expect")[0].splitlines()
    assert table[1].split()[:3] == ["MODEL", "CELL", "HOST"]
    assert sum("llama-3.3-70b" in line for line in table) > 2
    plan = job.statistics["heteroserve_plan"]
    assert plan["hosts"]["xe9680-gaudi3-1"].startswith("no engine here drives Intel Gaudi 3")
    assert plan["hosts"]["xe9680-h200-1"] == ["llama-3-1-405b-instruct-h200-sxm-141gb-0"]
    size = len(json.dumps(job.statistics))
    assert size < 20_000
    print(f"facts and plan of inventory/dell: {job.took_s:.0f} s, {size} bytes of artifacts")


def test_wrong_answers_are_refused_as_wrong_inventories_are(estate: Node) -> None:
    estate.refuse(
        "facts and plan", "serving_plan_replan: found 'perhaps'; set true or false", serving_plan_replan="perhaps"
    )
    estate.refuse(
        "drain a host", "drain_host: 'r760-9' is no host of the group serving: set it to one of ", drain_host="r760-9"
    )
    estate.refuse(
        "reset",
        "reset_confirm: found 'del', and the inventory of this job is dell: type that name",
        reset_confirm="del",
    )


def test_a_state_directory_that_is_lost_with_the_job_is_refused(estate: Node) -> None:
    lost = estate.folder / f"awx_{estate.jobs + 1}" / "state"
    said = "which AWX removes after the job; set it to a folder that lasts, or name a host in the group state, as"
    estate.refuse("validate", f"state_dir: {lost} lies in {lost.parent}", said, state_dir=str(lost))


@pytest.mark.long("a minute and a half; test_state_host.py has the same without ansible-runner")
def test_jobs_of_two_nodes_have_one_state_on_a_host_although_each_loses_its_own(root: Path, scratch: Path) -> None:
    kept = scratch / "state-host"
    kept.mkdir()
    os.chown(kept, UID, 0)
    one, two = (Node(scratch / name, root / "inventory" / "dell", kept=kept) for name in ("node-1", "node-2"))
    first = one.succeed("facts and plan")
    assert not list(one.state.iterdir())
    assert not (first.folder / "state").exists()
    second = two.succeed("facts and plan")
    assert changed(second.stdout) == 0
    assert second.statistics["heteroserve_plan"]["difference"] == ""
    # A job that takes its time, and one on the other node in the meantime.
    slow = one.start("facts and plan")
    slow.wait_for("── Plan")
    (player,) = players(slow)
    os.kill(player, signal.SIGSTOP)
    said = f"another run (HeteroServe facts and plan, job {one.jobs} of AWX, started by operator; process "
    two.refuse("facts and plan", said, f"is working with keeper:{kept}: wait until it has ended")
    os.kill(player, signal.SIGCONT)
    assert slow.wait().status == "successful", slow.told()
    canceled = one.start("facts and plan")
    canceled.wait_for("── Plan")
    canceled.cancel()
    assert canceled.status == "canceled", canceled.told()
    two.succeed("facts and plan")
    folder = scratch / "backups"
    folder.mkdir()
    os.chown(folder, UID, 0)
    two.succeed("backup", backup_dir=str(folder), backup_database="false")
    assert [path.suffix for path in sorted(folder.iterdir())] == [".vault", ".sha256"]


def players(job: Job) -> list[int]:
    """The ansible-playbook of a job, which has one process of this name that is nobody's worker."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"ansible-playbook" in (path / "cmdline").read_bytes() and os.readlink(path / "cwd") == str(
                job.folder / "project"
            ):
                found[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    return [number for number, parent in found.items() if parent not in found and parent != 1]


@pytest.fixture(scope="module")
def site(root: Path, scratch: Path) -> Iterator[Node]:
    """This machine, with a model of the engine for tests, for a node whose jobs may start processes on it."""
    inventory = echo_site(root, scratch / "site")
    set_model(inventory, max_replicas=1)
    variables = {"gateway_port": 26500, "gateway_stats_port": 26501, "cell_port_base": 26510}
    # The engine for tests ends its answers itself.
    variables |= {"benchmark_clients": [4], "benchmark_seconds": 5, "benchmark_options": ["--stop-at-eos"]}
    made = Node(scratch / "site" / "node", inventory, variables)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


DEPLOY = ["validate", "facts and plan", "apply", "health", "benchmark"]


@pytest.mark.long("four minutes; the plan of an estate is made in the same way, and test_local.py deploys")
def test_deploy(site: Node) -> None:
    """The workflow, its plan approved at once: AWX hands each job the artifacts of those before."""
    artifacts: dict[str, Any] = {}
    for template in DEPLOY:
        job = site.succeed(template, artifacts)
        readable(job)
        artifacts |= job.statistics
    assert artifacts["heteroserve_plan"]["hosts"] == {"local": ["echo-cpu-0"]}
    assert artifacts["heteroserve_health"]["healthy"] is True
    assert artifacts["heteroserve_health"]["endpoint"] == "http://127.0.0.1:26500"
    (point,) = artifacts["heteroserve_benchmark"]["points"].values()
    assert point["tokens_per_s"] > 1
    assert changed(site.succeed("apply").stdout) == 0


@pytest.mark.long("three minutes, and needs what test_deploy has made")
def test_each_template_does_what_it_says_or_says_why_not(site: Node) -> None:
    assert "http://127.0.0.1:26500/v1" in site.succeed("status").stdout
    site.succeed("add hosts")
    site.succeed("update models")
    site.refuse(
        "update models", "upgrade_cells: there is no cell nobody; the plan has echo-cpu-0", upgrade_cells="nobody"
    )
    site.refuse("drain a host", "echo-cpu-0 is the only cell that answers for echo. Nothing was", drain_host="local")
    site.succeed("drain a host", drain_host="local", drain_force="true")
    site.succeed("drain a host", drain_host="local", drain_state="absent")
    said = (
        f"this playbook is for the runtime k3s, and that of {site.inventory.name} is ray: take the inventory of a K3s"
    )
    site.refuse("rotate", said)
    site.refuse("upgrade K3s", said)
    site.succeed("health")


@pytest.mark.long("ten seconds, and needs what test_deploy has made; test_faults.py has two runs without AWX")
def test_the_second_job_says_who_is_at_work(site: Node) -> None:
    first = site.start("add hosts")
    first.wait_for("── Plan")
    said = f"another run (HeteroServe add hosts, job {site.jobs} of AWX, started by operator; process "
    site.refuse("apply", said, f"is working with {site.state}: wait until it has ended")
    assert first.wait().status == "successful", first.told()


@pytest.mark.long("ten seconds, and needs what test_deploy has made; test_local.py resets")
def test_reset_ends_everything_of_the_site_that_was_typed(site: Node) -> None:
    site.refuse(
        "reset",
        f"reset_confirm: found 'dell', and the inventory of this job is {site.inventory.name}",
        reset_confirm="dell",
    )
    assert processes.members(processes.INSTALLATION, str(site.state))
    site.succeed("reset", reset_confirm=site.inventory.name, reset_purge="true")
    assert processes.members(processes.INSTALLATION, str(site.state)) == {}
    assert [path.name for path in site.state.iterdir() if path.name != "run.lock"] == []


# Where a job is canceled, by what it has printed: while it installs the engine, plans, ...
MOMENTS = {
    "cluster": r"echo: installing \d+ packages",
    "facts": "── Validate",
    "plan": "── Plan",
    "models": "── Models",
    "serving": r"deploying \(",
    "gateway": "── Gateway",
}


@pytest.mark.long("fifteen minutes; test_local.py has a run that is killed while it converts weights")
@pytest.mark.parametrize("stage", MOMENTS)
def test_a_canceled_job_completes_when_it_is_started_again(site: Node, stage: str) -> None:
    canceled = site.start("add hosts")
    canceled.wait_for(MOMENTS[stage])
    canceled.cancel()
    assert canceled.status == "canceled", canceled.told()
    again = site.succeed("add hosts")
    assert again.statistics["heteroserve_health"]["healthy"] is True
    site.succeed("reset", reset_confirm=site.inventory.name)


@pytest.mark.long("six minutes; test_local.py has the same without AWX")
def test_a_job_that_is_canceled_while_it_converts_weights_completes(root: Path, scratch: Path) -> None:
    """inventory/local as it is, with vLLM."""
    variables = {"gateway_port": 26600, "gateway_stats_port": 26601, "cell_port_base": 26610}
    node = Node(scratch / "local", root / "inventory" / "local", variables)
    try:
        canceled = node.start("add hosts")
        canceled.wait_for("converting", 1200)
        canceled.cancel()
        assert canceled.status == "canceled", canceled.told()
        again = node.succeed("add hosts")
        readable(again)
        assert again.statistics["heteroserve_health"]["healthy"] is True
        node.succeed("reset", reset_confirm="local", reset_purge="true")
    finally:
        processes.end(processes.INSTALLATION, str(node.state), grace_s=5)
