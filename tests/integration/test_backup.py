"""Backups through the playbooks: what a restore brings back, what it refuses, and that serving does not notice it."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from heteroserve.backup.manifest import KEPT
from heteroserve.common import processes

from tests.helpers.playbook_runs import changed, told

from .conftest import Installation, installation
from .test_updates import Two, two_cells

pytestmark = pytest.mark.integration
PASSWORD = "correct horse battery staple"
SAVED = {"secrets/ray-token": "a" * 64, "plan.json": '{"cells": [], "models": []}', "registry/ca.key": "an authority's"}


def backup_of(made: Installation, folder: Path, *words: str) -> Path:
    """Write a backup into a folder, with the password in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "password").write_text(f"{PASSWORD}\n")
    words = (*words, "-e", f"backup_dir={folder}", "-e", f"backup_password_file={folder / 'password'}")
    done = made.run("run", "playbooks/backup.yml", *words)
    assert done.returncode == 0, told(done)
    assert PASSWORD not in done.stdout
    (path,) = re.findall(r"backup +(/\S+\.vault)", done.stdout)
    return Path(path)


def restore(made: Installation, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["-e", f"backup={path}", "-e", f"backup_password_file={path.parent / 'password'}"]
    return made.run("run", "playbooks/restore.yml", *options, *words)


def kept(state: Path) -> dict[str, bytes]:
    """What a backup holds of a state directory."""
    paths = [path for name in KEPT for path in (state / name, *(state / name).rglob("*"))]
    return {str(path.relative_to(state)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def filled(empty: Installation) -> Installation:
    for name, text in {**SAVED, "logs/gateway.log": "not saved"}.items():
        (empty.state / name).parent.mkdir(parents=True, exist_ok=True)
        (empty.state / name).write_text(text)
    return empty


def test_a_backup_is_restored_where_nothing_is_and_refused_elsewhere(filled: Installation, tmp_path: Path) -> None:
    path = backup_of(filled, tmp_path / "backups")
    other = installation(filled.root, tmp_path / "other", 28000)
    done = restore(other, path)
    assert done.returncode == 0, told(done)
    assert kept(other.state) == {name: text.encode() for name, text in SAVED.items()}
    assert not (other.state / "logs").exists()
    assert changed(restore(other, path).stdout) == 0
    # All other sentences are in tests/unit/backup/test_state_backup.py; this is that the playbook says one and ends.
    third = installation(filled.root, tmp_path / "third", 28000)
    refused = restore(third, path, "-i", "inventory/rack")
    assert refused.returncode == 2
    assert "it is of the runtime ray, and this inventory has k3s. Nothing was changed" in refused.stdout
    assert kept(third.state) == {}


# It has the command line of K3s's snapshots, as far as playbooks/backup.yml uses it.
K3S = """#!/bin/bash
[[ "$*" == "etcd-snapshot save --name for-backup" ]] || exit 2
mkdir -p {data}/server/db/snapshots
echo "the database" > {data}/server/db/snapshots/for-backup-server-1764520000
"""
CHOOSE = """
- hosts: localhost
  tasks:
    - ansible.builtin.include_role: {name: k3s, tasks_from: restore_choose}
      vars: {k3s_snapshot_asked: "%s", k3s_snapshot_given: "%s"}
    - ansible.builtin.debug: {msg: "chosen {{ k3s_snapshot }}"}
"""


@pytest.mark.long("half a minute; units: test_state_backup.py")
def test_the_database_of_a_cluster_goes_along(filled: Installation, tmp_path: Path) -> None:
    """Up to the file that K3s is to restore: a stand-in for K3s's command, on this machine."""
    data, binary = tmp_path / "k3s", tmp_path / "bin" / "k3s"
    binary.parent.mkdir()
    binary.write_text(K3S.format(data=data))
    binary.chmod(0o755)
    host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    variables = {
        "runtime": "k3s",
        "state_dir": str(filled.state),
        "ansible_become": False,
        "_k3s_binary": str(binary),
        "_k3s_data": str(data),
    }
    groups = {name: {"hosts": {"server": None}} for name in ("serving", "gateway", "k3s_server")}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"server": host}, "children": groups}}))
    settings = ["-i", str(inventory), "-e", json.dumps(variables)]
    path = backup_of(filled, tmp_path / "backups", *settings)
    snapshots = data / "server" / "db" / "snapshots"
    assert list(snapshots.iterdir()) == []
    assert not (filled.state / "snapshots").exists()
    opened = tmp_path / "opened.tar.gz"
    words = ["--vault-password-file", str(path.parent / "password"), "--output", str(opened), str(path)]
    subprocess.run(["ansible-vault", "decrypt", *words], check=True, capture_output=True)
    with tarfile.open(opened) as archive:
        assert "database/for-backup-server-1764520000" in archive.getnames()
    # In a restore the playbook puts it where K3s keeps its own; what follows is `k3s server --cluster-reset`.
    given = tmp_path / "given"
    given.write_text("the database")
    book = tmp_path / "choose.yml"
    book.write_text(CHOOSE % ("for-backup-server-1764520000", given))
    chosen = filled.run("run", str(book), *settings)
    assert f"chosen {snapshots}/for-backup-server-1764520000" in chosen.stdout, told(chosen)
    assert stat.S_IMODE((snapshots / "for-backup-server-1764520000").stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def cells(root: Path, scratch: Path) -> Iterator[Two]:
    made = two_cells(root, scratch / "backup", 30000)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


@pytest.mark.long("three minutes; CI has a restored state directory without an installation")
def test_an_installation_does_not_notice_that_its_state_was_lost_and_restored(cells: Two, tmp_path: Path) -> None:
    """The controller's part is lost; what runs on the host stays. The next run finds all as it was."""
    cells.up()
    path = backup_of(cells, tmp_path)
    before, running = kept(cells.state), set(cells.members())
    for name in before:
        (cells.state / name).unlink()
    for folder in ("secrets", "configs"):
        shutil.rmtree(cells.state / folder, ignore_errors=True)
    done = restore(cells, path)
    assert done.returncode == 0, told(done)
    assert kept(cells.state) == before
    again = cells.up()
    assert changed(again.stdout) == 0, [line for line in again.stdout.splitlines() if "changed" in line]
    assert running <= set(cells.members())


@pytest.mark.long("two minutes")
def test_a_lost_disk_comes_back_with_the_same_secrets(cells: Two, tmp_path: Path) -> None:
    """All of the state directory, and all that ran: one restore and one run later the endpoint answers again."""
    path = backup_of(cells, tmp_path)
    before = kept(cells.state)
    processes.end(processes.INSTALLATION, str(cells.state), grace_s=0)
    shutil.rmtree(cells.state)
    assert restore(cells, path).returncode == 0
    cells.up()
    after = kept(cells.state)
    for name in ("secrets/ray-token", "secrets/health-key", "plan.json"):
        assert after[name] == before[name]
