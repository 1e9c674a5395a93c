"""The state host through the playbooks: runs whose state directory is thrown away, one killed, two at once.

The host is a folder of this machine, as a local connection sees it; over SSH where sshd is installed.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from heteroserve.backup.lease import LEASE_S

from tests.helpers.playbook_runs import changed

pytestmark = pytest.mark.integration
PASSWORD = "correct horse battery staple"
# The secret is made, and the run hangs before a host has it, or the next task begins.
HANGS = """
- hosts: serving[0]
  gather_facts: false
  tasks:
    - run_state: {path: "{{ state_dir }}"}
    - ansible.builtin.command:
        argv: [echo, "{{ lookup('kept_password', state_dir ~ '/secrets/one', length=32, chars=['hexdigits']) }}",
               "{{ lookup('pipe', 'touch ' ~ state_dir ~ '/hangs; sleep 300') }}"]
      delegate_to: localhost
"""


@dataclass
class Site:
    """Runs of one site, each with a state directory of its own."""

    root: Path
    folder: Path
    host: dict[str, Any]
    kept: Path
    runs: int = 0

    def start(self, playbook: str, *words: str) -> tuple[Path, subprocess.Popen[str]]:
        """Start a run; its state directory."""
        self.runs += 1
        state, inventory = self.folder / f"run-{self.runs}" / "state", self.folder / "state.yml"
        group = {"hosts": {"keeper": self.host}, "vars": {"state_path": str(self.kept)}}
        inventory.write_text(yaml.safe_dump({"all": {"children": {"state": group}}}))
        given = json.dumps({"state_dir": str(state), "backup_password": PASSWORD})
        command = ["ansible-playbook", playbook, "-i", "inventory/rack", "-i", str(inventory), "-e", given, *words]
        environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_HOST_KEY_CHECKING": "False"}
        environment["ANSIBLE_CONFIG"] = str(self.root / "ansible.cfg")
        environment["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = str(state.parent / "facts")
        return state, subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )

    def run(self, playbook: str, *words: str) -> tuple[Path, str]:
        """A whole run; its state directory, and what it printed."""
        state, process = self.start(playbook, *words)
        return state, process.communicate(timeout=300)[0]


def hold_of(state: Path) -> list[int]:
    """Every process of a run, as its container would have them: with the state directory on its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(state).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def hanging(site: Site) -> tuple[Path, subprocess.Popen[str]]:
    """A run that has made a secret and given it to nobody."""
    book = site.folder / "hangs.yml"
    book.write_text(HANGS)
    state, process = site.start(str(book))
    until = time.monotonic() + 60
    while not (state / "hangs").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    return state, process


def nothing_is_lost(site: Site) -> None:
    state, process = hanging(site)
    plan = ["site.yml", "--tags", "plan"]
    lease = json.loads((site.kept / "lease.json").read_text())
    _, refused = site.run(*plan)
    assert f"another run ({lease['who']}, since {lease['since']}) is working with keeper:{site.kept}" in refused, (
        refused
    )
    for number in hold_of(state):
        os.kill(number, signal.SIGKILL)
    process.wait()
    age = (site.kept / "lease.json").stat().st_mtime - LEASE_S
    os.utime(site.kept / "lease.json", times=(age, age))
    secret = (state / "secrets" / "one").read_text()
    shutil.rmtree(state.parent)
    assert secret.strip() not in "".join(path.read_text() for path in site.kept.iterdir())
    first, planned = site.run(*plan)
    assert (first / "secrets" / "one").read_text() == secret, planned
    shutil.move(first / "plan.json", site.folder / "plan.json")
    again, printed = site.run(*plan)
    assert changed(printed) == 0, printed
    assert (again / "plan.json").read_text() == (site.folder / "plan.json").read_text()
    assert not (site.kept / "lease.json").exists()


def test_a_run_that_is_killed_before_a_host_has_its_secret_loses_nothing(root: Path, tmp_path: Path) -> None:
    """Another one in the meantime says who is at work. Later runs find the secret, and the plan as it is."""
    nothing_is_lost(Site(root, tmp_path, {"ansible_connection": "local"}, tmp_path / "kept"))


SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.fixture
def over_ssh(root: Path, tmp_path: Path) -> Iterator[Site]:
    """A site whose state host is this machine, by SSH."""
    for name in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    log = tmp_path / "sshd.log"
    options = ["ListenAddress=127.0.0.1", "PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes"]
    options += [f"AuthorizedKeysFile={tmp_path / 'id.pub'}"]
    words = ["-D", "-E", str(log), "-f", "/dev/null", "-h", str(tmp_path / "host"), "-p", "26790"]
    sshd = subprocess.Popen([str(SSHD), *words, *(part for one in options for part in ("-o", one))])
    for _ in range(100):
        if log.exists() and re.search("Server listening", log.read_text()):
            break
        time.sleep(0.1)
    host = {"ansible_host": "127.0.0.1", "ansible_port": 26790, "ansible_user": getpass.getuser()}
    host["ansible_ssh_private_key_file"] = str(tmp_path / "id")
    yield Site(root, tmp_path, host, tmp_path / "kept")
    sshd.terminate()
    sshd.wait()


@pytest.mark.long("half a minute; the same with a local connection")
@pytest.mark.skipif(SSHD is None, reason="needs sshd")
def test_the_same_over_ssh(over_ssh: Site) -> None:
    nothing_is_lost(over_ssh)
