"""The archive for somebody who helps: secrets are not in it, and why a cell is down is. Tests run in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from heteroserve.common import processes

from tests.helpers.playbook_runs import changed, told
from tests.helpers.support_archive import leaks, opened, unpacked

from .conftest import Installation
from .test_updates import Two, two_cells

pytestmark = pytest.mark.integration
# In every place that the archive is made of. None has the shape of a secret: their place, or their name, says it.
PLANTED = {
    "state": "planted in the state directory",
    "kubeconfig": "planted-in-the-kubeconfig",
    "vault": "planted in a vault",
    "plain": "planted in plain text",
    "nested": "planted beside a name",
    "typed": "planted-on-the-command-line",
    "environment": "planted in the environment",
}
# Known by nothing but their shape.
SHAPED = ["hf_plantedplantedplanted", "plantedpw", "planted.bearer.token"]
LOG = f"got {SHAPED[0]}, http://user:{SHAPED[1]}@proxy:3128, Authorization: Bearer {SHAPED[2]}\n"


@pytest.fixture
def rack(root: Path, empty: Installation, tmp_path: Path) -> Path:
    """An inventory of hosts on which nothing listens, with secrets in it, and a state directory with others."""
    inventory = tmp_path / "inventory"
    shutil.copytree(root / "inventory" / "rack", inventory)
    hosts = inventory / "hosts.yml"
    hosts.write_text(re.sub(r"ansible_host: \S+", "ansible_host: 127.0.0.1", hosts.read_text()))
    password = tmp_path / "vault-password"
    password.write_text("opens it")
    sealed = subprocess.run(
        [
            "ansible-vault",
            "encrypt_string",
            "--vault-password-file",
            str(password),
            PLANTED["vault"],
            "--name",
            "site_note",
        ],
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    (inventory / "group_vars" / "all" / "planted.yml").write_text(
        f"{sealed}\nansible_port: 1\nregistry_password: {PLANTED['plain']}\n"
        f"site_accounts: [{{user: me, password: {PLANTED['nested']}}}]\nsite_text: it is {PLANTED['plain']} here\n"
    )
    secrets = empty.state / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "ray-token").write_text(PLANTED["state"])
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": PLANTED["kubeconfig"]}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (empty.state / "kubeconfig").write_text(yaml.safe_dump(config))
    return inventory


def test_a_rack_that_nobody_reaches(empty: Installation, rack: Path, tmp_path: Path) -> None:
    """Hosts and API are down: the archive says so, and has the plan and the inventory without their secrets."""
    words = ["-i", str(rack), "--vault-password-file", str(tmp_path / "vault-password")]
    planned = empty.run("run", "playbooks/plan.yml", *words)
    assert planned.returncode == 0, told(planned)
    said = " ".join(PLANTED.values())
    (empty.state / "images.json").write_text(f'{{"note": "{said}", "log": "{LOG.strip()}"}}')
    words += ["-e", f"site_token={PLANTED['typed']}", "-e", "ansible_ssh_retries=0", "-vvv"]
    done = empty.run("run", "playbooks/support.yml", *words, SITE_PASSWORD=PLANTED["environment"])
    assert done.returncode == 0, told(done)
    # With -vvv Ansible's own output takes over.
    (path,) = (empty.state / "support").iterdir()
    files = opened(path)
    assert leaks(files, [*PLANTED.values(), *SHAPED]) == []
    assert files["images.json"].count("[removed]") == len(PLANTED) + len(SHAPED)
    assert '"site_note": "[removed]"' in files["inventory.json"]
    assert "accelerator" in files["plan.json"]
    for host in ("nvidia-1", "amd-1", "cpu-1", "cpu-2"):
        assert re.search(rf"- {host} could not be read: .*Connection refused", files["findings.md"])
    assert "the cluster's API cannot be asked with" in files["findings.md"]
    assert "4, of which 4 could not be read" in files["README.md"]
    assert changed(done.stdout) == 0
    assert [secret for secret in [*PLANTED.values(), *SHAPED] if secret in done.stdout] == []


@pytest.fixture(scope="module")
def cells(root: Path, scratch: Path) -> Iterator[Two]:
    made = two_cells(root, scratch / "support", 29000)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


def collected(cells: Two) -> dict[str, str]:
    done = cells.run("run", "playbooks/support.yml")
    assert done.returncode == 0, told(done)
    files = unpacked(done.stdout)
    assert changed(done.stdout) == 0
    secrets = [path.read_text().strip() for path in (cells.state / "secrets").iterdir()]
    assert secrets
    assert leaks(files, secrets) == []
    return files


@pytest.mark.long("two minutes to serve; CI has the archive of hosts that are not reached")
def test_what_runs_has_no_findings(cells: Two) -> None:
    cells.up()
    token = (cells.state / "secrets" / "ray-token").read_text().strip()
    for log in ("gateway", "echo-cpu-0"):
        with (cells.state / "logs" / f"{log}.log").open("a") as stream:
            stream.write(f"{LOG}the token is {token}\n")
    files = collected(cells)
    assert leaks(files, SHAPED) == []
    assert files["findings.md"].count("Nothing.") == 4
    assert "the token is [removed]" in files["hosts/local/logs/echo-cpu-0.log"]
    assert re.search(r"echo-cpu-1 +echo .* up ", files["status.txt"])
    assert {"plan.json", "health.json", "facts.json", "hosts/local/logs/supervisord.log"} <= set(files)
    assert any(re.match(r"hosts/local/cells/echo-cpu-1/replica_.*\.log", name) for name in files)
    assert sum(map(len, files.values())) < 4 * 1024**2


@pytest.mark.long("ten seconds of an installation that is long; units: tests/unit/hosts/test_versions.py")
def test_planted_differences_of_versions_are_found_and_nothing_else_is(cells: Two) -> None:
    (packages,) = (cells.state / "envs" / "echo").glob("lib/python3.*/site-packages")
    (other,) = packages.glob("aiohttp-*.dist-info")
    (gone,) = packages.glob("starlette-*.dist-info")
    (packages / "planted-1.0.dist-info").mkdir()
    other.rename(packages / "aiohttp-0.1.dist-info")
    gone.rename(packages / "removed")
    done = cells.run("run", "playbooks/drift.yml")
    (packages / "planted-1.0.dist-info").rmdir()
    (packages / "aiohttp-0.1.dist-info").rename(other)
    (packages / "removed").rename(gone)
    assert done.returncode == 2
    found = re.findall(r"^ +(echo: .*|host: .*)$", done.stdout, re.MULTILINE)
    version, absent = (path.name.removesuffix(".dist-info").rpartition("-")[2] for path in (other, gone))
    assert found == [
        f"echo: aiohttp is 0.1, and the lock has {version}",
        "echo: planted 1.0 is installed, and the lock has none",
        f"echo: starlette is not installed, and the lock has {absent}",
    ]
    done = cells.run("run", "playbooks/drift.yml")
    assert done.returncode == 0, told(done)
    assert changed(done.stdout) == 0


@pytest.mark.long("half a minute; units: test_ray_diagnosis.py")
def test_a_wrong_argument_of_the_engine_is_named(cells: Two) -> None:
    """The question of a stranger: why is this cell down?"""
    cells.set(engine_args={"token_s": 0.1, "tokens_s": 1})
    assert cells.run("up").returncode != 0
    (said,) = [
        line for line in collected(cells)["findings.md"].splitlines() if line.startswith("- echo-cpu-0: Deploying")
    ]
    assert "Unknown engine argument: tokens_s" in said
    assert "see the model's engine_args" in said


@pytest.mark.long("a minute; units: test_ray_diagnosis.py")
def test_a_killed_cell_and_a_restarted_host_are_told(cells: Two) -> None:
    cells.set(engine_args={"token_s": 0.1})
    cells.up()
    (victim,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and f"{cells.state}/cells/echo-cpu-1/cell.json\0".encode() in path.read_bytes()
    ]
    os.kill(victim, signal.SIGKILL)
    findings = collected(cells)["findings.md"]
    assert re.search(r"- echo-cpu-1: ended 1 time by itself .*terminated by SIGKILL", findings)
    assert "- echo-cpu-1 is down" in findings
    # As after a power cut: nothing of it runs any more.
    processes.end(processes.INSTALLATION, str(cells.state), grace_s=0)
    findings = collected(cells)["findings.md"]
    for cell in ("echo-cpu-0", "echo-cpu-1"):
        assert f"- {cell}: supervisord does not run" in findings
    assert "- the gateway does not run" in findings
