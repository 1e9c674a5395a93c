"""The stage ``facts``: one fact for every host, and what the inventory declares wins over what was found before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PLAYBOOK = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
NOWHERE = {"ansible_host": "192.0.2.1"}  # must not be contacted
DECLARED = {"server": "r7615", "memory_gib": 256}
# What a stage that is run by itself finds, of hosts that it has no play for.
LOOK = [
    {
        "hosts": "localhost",
        "connection": "local",
        "tasks": [
            {
                "name": "Note the hardware of all hosts",
                "ansible.builtin.copy": {
                    "content": "{{ dict(groups['serving'] | zip(groups['serving'] | map('extract', hostvars, "
                    "['ansible_facts', 'host_hardware']))) | to_json }}",
                    "dest": "{{ noted }}",
                    "mode": "0600",
                },
            }
        ],
    }
]


@pytest.mark.skipif(not PLAYBOOK, reason="ansible-playbook is not in this environment")
def test_every_host_has_the_one_fact_and_a_declaration_wins(root: Path, tmp_path: Path) -> None:
    (tmp_path / "look.yml").write_text(yaml.safe_dump(LOOK))

    def play(file: Path | str) -> None:
        variables = {"state_dir": str(tmp_path / "state"), "noted": str(tmp_path / "noted.json")}
        done = subprocess.run(
            [str(PLAYBOOK), str(file), "-i", str(tmp_path / "hosts.yml"), "-e", json.dumps(variables)],
            cwd=root,
            env={**os.environ, "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "facts")},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def facts(**hosts: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"serving": {"hosts": hosts}}}}))
        play("playbooks/facts.yml")
        play(tmp_path / "look.yml")
        return dict(json.loads((tmp_path / "noted.json").read_text()))

    first = facts(here=HERE, there={**NOWHERE, "hardware": DECLARED})
    assert first["here"]["sources"]["cpu"] == "/proc/cpuinfo"
    assert first["there"] == DECLARED
    # What is cached does not hide an edited declaration, nor one that came later; without it the host is read again.
    more = {**DECLARED, "memory_gib": 512}
    assert facts(here={**HERE, "hardware": more}, there={**NOWHERE, "hardware": more}) == {"here": more, "there": more}
    assert facts(here=HERE)["here"]["cpu"] == first["here"]["cpu"]
