"""Runs of playbooks that end before anything is installed: what they refuse, and what they do whatever the limit."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Installation, installation

pytestmark = pytest.mark.integration


def run(where: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(where.root / "heteroserve"), *words],
        env=where.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        cwd="/",
    )


def test_a_tag_that_names_nothing_is_refused(empty: Installation) -> None:
    done = run(empty, "up", "--tags", "validate,palnn")
    assert done.returncode != 0
    assert "palnn: no such tag in " in done.stderr
    assert "cluster, facts, gateway, " in done.stderr


def test_a_run_that_does_nothing_is_no_success(empty: Installation) -> None:
    done = run(empty, "status", "-i", "/dev/null")
    assert done.returncode != 0
    assert "nothing was done: the inventory /dev/null has no host for gateway[0]" in done.stderr


def test_local_plays_run_whatever_the_limit(empty: Installation) -> None:
    """The plan of a limited run is that of all hosts."""
    words = ["up", "-i", "inventory/rack", "--tags", "validate,facts,plan"]
    done = run(empty, *words, "--limit", "cpu-1")
    assert done.returncode == 0, done.stdout
    assert "localhost: Check the inventory" in done.stdout
    limited = (empty.state / "plan.json").read_text()
    done = run(empty, *words, "--limit", "!cpu-1")
    assert done.returncode == 0, done.stdout
    assert (empty.state / "plan.json").read_text() == limited
    assert {host for cell in json.loads(limited)["cells"] for host in cell["hosts"]} > {"cpu-1"}


# A state directory is restored under every runtime, a database's snapshot is a cluster's.
@pytest.mark.parametrize("playbook", ["cis", "restore", "rotate"])
def test_playbooks_of_a_cluster_say_so(empty: Installation, playbook: str) -> None:
    done = run(empty, "run", f"playbooks/{playbook}.yml", *(["-e", "snapshot=latest"] if playbook == "restore" else []))
    assert done.returncode != 0
    assert "this playbook is for the runtime k3s, and that of " in " ".join(done.stdout.split())


def test_down_of_the_wrong_inventory_stops_nothing(empty: Installation) -> None:
    done = run(empty, "down", "-i", "/dev/null")
    assert done.returncode != 0
    assert "/dev/null: the group serving has no host; nothing was stopped." in done.stdout
    empty.state.mkdir()
    (empty.state / "plan.json").write_text('{"runtime": "k3s"}')
    done = run(empty, "down")
    assert done.returncode != 0
    assert "has the runtime k3s, and the inventory says ray" in " ".join(done.stdout.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount file systems")
def test_purge_in_a_folder_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    """The empty state directory stays, and that is no failure."""
    around = tmp_path / "around"
    made = installation(root, around, 28000)
    around.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(around)], check=True)
    try:
        made.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(made.state)], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(around)], check=True)
        (made.state / "plan.json").write_text('{"runtime": "ray"}')
        done = made.run("down", "--purge", ANSIBLE_CACHE_PLUGIN_CONNECTION=str(tmp_path / "facts"))
        assert done.returncode == 0, done.stdout
        assert list(made.state.iterdir()) == []
    finally:
        # Lazily: the process that holds the run's lock ends a moment after the run.
        subprocess.run(["umount", "-R", "--lazy", str(around)], check=True)


def test_a_run_in_another_container_or_on_another_host_keeps_the_state_directory(empty: Installation) -> None:
    """Its process cannot be seen from here; its lock can."""
    empty.state.mkdir()
    with (empty.state / "run.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        holder = {"host": "other", "namespace": "pid:[1]", "pid": 7, "started": "1", "since": "2026-11-01 10:00:00 UTC"}
        holder["job"] = "HeteroServe apply, job 12 of AWX, started by ann; "
        stream.write(json.dumps(holder))
        stream.flush()
        done = run(empty, "run", "playbooks/plan.yml", "-i", "inventory/rack")
    assert done.returncode != 0
    who = f"{holder['job']}process 7 on other, since {holder['since']}"
    assert f"another run ({who}) is working with" in " ".join(done.stdout.split())
    done = run(empty, "run", "playbooks/plan.yml", "-i", "inventory/rack")
    assert done.returncode == 0, done.stdout


def test_ports_of_another_installation_are_named(empty: Installation, tmp_path: Path) -> None:
    """A process that was started for another state directory has the gateway's port."""
    port = empty.ports["gateway_port"]
    script = f"import socket, time; server = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    known = {**os.environ, "HETEROSERVE_INSTALLATION": "/srv/other"}
    with subprocess.Popen([sys.executable, "-c", script], env=known, start_new_session=True) as other:
        try:
            for _ in range(50):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            done = empty.run("up", limit_s=60)
            assert done.returncode != 0
            said = (
                f"gateway_port: port {port} is used by the installation in /srv/other; set gateway_port to a free port"
            )
            assert said in " ".join(done.stdout.split())
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.long("half a minute; test_local.py checks a complete installation")
def test_a_check_run_of_a_fresh_clone_plans_in_memory(empty: Installation) -> None:
    done = empty.run("up", "--check", "--diff", limit_s=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Ensure the cell serves its model" in done.stdout
    assert not empty.state.exists()
