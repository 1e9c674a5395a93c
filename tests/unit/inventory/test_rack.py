"""The rack that the docs tell people to copy is valid, and its plan uses all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_rack_to_copy_is_valid_and_every_host_serves(root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HETEROSERVE_STATE": str(tmp_path), "ANSIBLE_CACHE_PLUGIN": "memory"}
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "playbooks/validate.yml", "playbooks/plan.yml", "-i", "inventory/rack"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((tmp_path / "plan.json").read_text())["cells"]
    placed = {(cell["model"], host) for cell in cells for host in cell["hosts"]}
    assert {host for _, host in placed} == {"nvidia-1", "amd-1", "cpu-1", "cpu-2"}
    # One model over both vendors is what the inventory promises.
    assert {host for model, host in placed if model == "llama-3.1-8b-instruct"} == {"nvidia-1", "amd-1"}
