"""An inventory, or a machine, that cannot work: one clear sentence, a status that is not 0, nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Installation

pytestmark = pytest.mark.integration


def refuse(where: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    """A run that must end before anything is installed, which takes seconds."""
    return where.run("up", *words, limit_s=60)


def refused(done: subprocess.CompletedProcess[str], where: Installation, *expected: str) -> None:
    """The run failed, said what was expected in one place, and installed nothing."""
    text = " ".join(done.stdout.split())
    assert done.returncode != 0, done.stdout
    for words in expected:
        assert words in text, done.stdout
    assert done.stdout.count("FAILED") <= 1, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (where.state / "envs").exists()
    assert where.members() == {}


def models(**keys: object) -> str:
    return json.dumps({"models": [{"name": "m", **keys}]})


@pytest.fixture
def inventory(root: Path, tmp_path: Path) -> Path:
    """A copy of inventory/local, to spoil."""
    return Path(shutil.copytree(root / "inventory" / "local", tmp_path / "inventory"))


def test_an_inventory_says_all_its_faults_at_once(empty: Installation, inventory: Path) -> None:
    """Each single fault: tests/unit/inventory."""
    file = inventory / "group_vars" / "all" / "gateway.yml"
    file.write_text(file.read_text().replace("gateway_port: 8080", "gatewayport: 8080"))
    lines = file.read_text().splitlines()
    number = next(index for index, line in enumerate(lines, 1) if line.startswith("gatewayport"))
    with socket.create_server(("127.0.0.1", empty.ports["gateway_port"])):
        done = refuse(empty, "-i", str(inventory), "-e", "runtime=rey", "-e", models(name="m"))
    refused(
        done,
        empty,
        "The inventory has 4 faults",
        f"group_vars/all/gateway.yml:{number}: gatewayport: unknown key; did you mean gateway_port?",
        "did you mean ray?",
        "models[0].source: missing",
        f"gateway_port: port {empty.ports['gateway_port']} is used by process {os.getpid()}",
        "set gateway_port to a free port",
    )


def test_model_too_large(empty: Installation) -> None:
    source = {"hub": "meta-llama/Llama-3.1-405B-Instruct"}
    done = refuse(empty, "-e", models(source=source, context=4096))
    refused(done, empty, "m needs 811.7 GB at bfloat16", "GB of RAM to give and lack", "add a host with more memory")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_host_says_all_that_it_lacks_at_once(empty: Installation) -> None:
    """A port of a cell, the weights and disk space."""
    empty.state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "tmpfs", str(empty.state)], check=True)
    try:
        with socket.create_server(("127.0.0.1", empty.ports["cell_port_base"] + 3)):
            done = refuse(empty, "-e", models(source={"path": "/nowhere/llama"}, card="smollm2-135m", engine="vllm"))
        refused(
            done,
            empty,
            f"port 28013 is used by process {os.getpid()}",
            "set cell_port_base to a free range",
            "models: m: source.path /nowhere/llama is not a folder on this host",
            "needs 3.5 GB of disk and",
            "has 0.1 GB free",
            "set state_dir to a larger disk",
        )
    finally:
        # The process that holds the lock of the state directory ends a moment after the run.
        subprocess.run(["umount", "--lazy", str(empty.state)], check=True)


def old_python(folder: Path) -> Path:
    """A stand-in for an interpreter that is too old: it says so, and does nothing else."""
    script = folder / "python-too-old"
    script.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.2" ;; *) echo "3 9"; exit 1 ;; esac\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_python_too_old(empty: Installation, root: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    shutil.copy(root / "heteroserve", checkout)
    shutil.copytree(root / "requirements", checkout / "requirements")
    done = subprocess.run(
        [str(checkout / "heteroserve"), "up"],
        env={**os.environ, "HETEROSERVE_PYTHON": str(old_python(tmp_path))},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode != 0
    assert "found Python 3.9.2, need Python 3.11 to 3.13; install one, or name it" in done.stderr
    assert not (checkout / ".venv").exists()


def test_two_runs_at_once(empty: Installation) -> None:
    with subprocess.Popen(
        empty.command("up"), env=empty.environment, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True
    ) as first:
        try:
            lock = empty.state / "run.lock"
            for _ in range(200):
                if lock.exists() and lock.read_text():
                    break
                time.sleep(0.1)
            second = refuse(empty)
            text = " ".join(second.stdout.split())
            assert second.returncode != 0
            assert f"is working with {empty.state}: wait until it has ended, or use another state_dir" in text
        finally:
            os.killpg(first.pid, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a read-only file system")
def test_read_only_state_directory(empty: Installation) -> None:
    empty.state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(empty.state)], check=True)
    try:
        refused(refuse(empty), empty, f"state_dir: {empty.state} cannot be written (Read-only file system)")
    finally:
        subprocess.run(["umount", "--lazy", str(empty.state)], check=True)
