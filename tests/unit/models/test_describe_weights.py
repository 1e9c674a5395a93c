"""The stage models keeps config.json of weights that it has fetched, for plans that cannot ask the hub."""

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
from heteroserve.plan.descriptions import describe

PLAYBOOK = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
SOURCE = {"hub": "someone/llama", "revision": None, "path": None, "package": None}
CONFIG = {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}


@pytest.mark.skipif(not PLAYBOOK, reason="ansible-playbook is not in this environment")
def test_the_next_plan_reads_what_the_weights_say(root: Path, tmp_path: Path) -> None:
    weights, state = tmp_path / "models", tmp_path / "state"
    (weights / "m--x").mkdir(parents=True)
    (weights / "m--x" / "config.json").write_text(json.dumps(CONFIG))
    state.mkdir()
    role = {"name": "model_store", "tasks_from": "describe"}
    variables = {
        "ansible_python_interpreter": sys.executable,
        "state_dir": str(state),
        "model_store_folder": str(weights),
        "model_store_described": [{"name": "m/x", "folder": "m--x", "source": SOURCE}],
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables,
            "tasks": [{"name": "Describe the weights", "ansible.builtin.include_role": role}]}  # fmt: skip
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))

    def run() -> str:
        done = subprocess.run(
            [str(PLAYBOOK), str(tmp_path / "play.yml"), "-i", "localhost,"],
            cwd=root,
            env={**os.environ, "ANSIBLE_ROLES_PATH": str(root / "roles")},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "changed=2" in run()
    assert "changed=0" in run()
    assert sorted(path.name for path in (state / "configs").iterdir()) == ["m--x.store.json"]
    model: dict[str, Any] = {"name": "m/x", "source": {"hub": "someone/llama"}}
    (found,) = describe([model], None, str(state / "configs"))
    assert (found.entry["config"], found.origin) == (CONFIG, "config.json of the weights")
