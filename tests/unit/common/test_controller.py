"""The plugins that every run loads: what they refuse, and what holds for the machine that runs Ansible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from python_plugins.action import with_progress
from python_plugins.callback import heteroserve, whole_run
from python_plugins.filter.proxy_variables import proxy_variables


def test_the_version_that_is_needed_is_that_of_the_roles(root: Path) -> None:
    needed = {
        yaml.safe_load(path.read_text())["galaxy_info"]["min_ansible_version"]
        for path in root.glob("roles/*/meta/main.yml")
    }
    assert needed == {".".join(map(str, whole_run.NEEDED))}


@pytest.mark.parametrize("found", ["2.9.27", "2.16.14", "2.18.6rc1"])
def test_an_older_ansible_is_told_which_one_is_needed(found: str) -> None:
    assert str(whole_run.version_fault(found)).startswith(
        f"found ansible-core {found}, need 2.19 or newer: run ./heteroserve"
    )


@pytest.mark.parametrize("found", ["2.19.0", "2.20.1", "3.0.0"])
def test_a_newer_ansible_is_taken(found: str) -> None:
    assert whole_run.version_fault(found) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Premature end of stream waiting for become success.\n>>> sudo: a password is required", "run with -K"),
        ("Missing sudo password", "run with -K"),
        ("Incorrect sudo password", "does not take the password"),
        ("admin is not in the sudoers file.", "may not use sudo"),
        ("/bin/sh: 1: sudo: not found", "is not installed"),
    ],
)
def test_what_sudo_refuses_is_one_sentence(words: str, said: str) -> None:
    found = heteroserve.sudo_fault(words, "admin")
    assert found is not None
    assert said in found
    assert "\n" not in found


def test_other_failures_keep_their_words() -> None:
    assert heteroserve.sudo_fault("the disk is full", "admin") is None


def test_the_sites_proxy_leaves_the_cluster_out() -> None:
    found = proxy_variables(
        {"http": "http://proxy:3128", "no_proxy": "corp.example, 10.0.0.0/8"}, ["10.42.0.0/16", "gpu1"]
    )
    assert found["http_proxy"] == found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["NO_PROXY"] == found["no_proxy"]
    assert found["NO_PROXY"].split(",") == [
        *("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local"),
        *("10.42.0.0/16", "gpu1", "corp.example", "10.0.0.0/8"),
    ]
    assert proxy_variables({"no_proxy": "x"}, ["y"]) == {}


def test_hosts_are_reached_without_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.delenv("no_proxy", raising=False)
    whole_run.spare(["gpu1", "10.1.0.2", "{{ address }}"])
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "corp.example,localhost,127.0.0.1,::1,gpu1,10.1.0.2"


# Tasks on localhost and on a host with a local connection: in whose name they run, where, and with what.
PLAY = """
- hosts: localhost, there
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "{{ inventory_hostname }} {{ ansible_connection }} {{ ansible_become }} {{ ansible_remote_tmp }}"
    - ansible.builtin.copy: {content: "x", dest: "{{ playbook_dir }}/{{ inventory_hostname }}", mode: "0600"}
"""


def play(root: Path, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the play with the project's configuration, and nothing of this process's environment but what is named."""
    (folder / "play.yml").write_text(PLAY)
    known = {"PATH": os.environ["PATH"], "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
    known["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = str(folder / "facts")
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(folder / "play.yml"), *words],
        env={**known, "HOME": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


# As AWX has it, localhost is a host of the inventory; and everything is to become root with a password.
AWX = """
localhost ansible_connection=ssh
there ansible_connection=local ansible_become=false
[all:vars]
ansible_become=true
"""


def test_local_tasks_do_not_depend_on_who_starts_the_run(root: Path, tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(AWX)
    done = play(root, tmp_path, "-i", "hosts.ini", "-u", "nobody-here", "--become", HOME="/proc/nowhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "localhost local False /tmp/ansible-local-" in done.stdout
    assert "there local false /tmp/ansible-local-" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"play.yml", "hosts.ini", "facts", "localhost", "there"}


def test_the_result_of_a_long_module_does_not_go_with_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible removes the folder a while after the module has ended, on a busy machine before the result was read."""
    options: dict[str, str] = {}
    shell = SimpleNamespace(tmpdir="", join_path=os.path.join, set_option=options.__setitem__)
    task = SimpleNamespace(action="ray_app", args={}, async_val=0, check_mode=False, diff=False, environment=[])
    plugin = with_progress.ActionModule(
        task, SimpleNamespace(_shell=shell), SimpleNamespace(), SimpleNamespace(), SimpleNamespace(), SimpleNamespace()
    )
    monkeypatch.setattr(plugin, "_make_tmp_path", lambda: "/tmp/run/ansible-tmp-1/")
    monkeypatch.setattr(plugin, "_execute_module", lambda **given: {"failed": True})
    plugin.run(task_vars={})
    assert options == {"async_dir": "/tmp/run"}
