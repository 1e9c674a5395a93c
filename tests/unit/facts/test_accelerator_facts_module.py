"""The module: its documentation matches what it takes and gives, and Ansible runs it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import captured_machines as machines
import pytest
import yaml

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "python_plugins" / "modules" / "facts" / "accelerator_facts.py"
UTILS = ROOT / "python_plugins" / "module_utils"
ANSIBLE = shutil.which("ansible", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def literal(name: str) -> Any:
    """A constant of the module's source, without importing it."""
    for node in ast.parse(MODULE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise KeyError(name)


def argument_spec() -> dict[str, Any]:
    """The dictionary that is handed to AnsibleModule."""
    for node in ast.walk(ast.parse(MODULE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            return dict(ast.literal_eval(node.value))
    raise KeyError("argument_spec")


def test_documentation_equals_the_arguments() -> None:
    documented = literal("DOCUMENTATION")["options"]
    taken = argument_spec()
    assert set(documented) == set(taken)
    for name, option in documented.items():
        assert (option["type"], option["default"]) == (taken[name]["type"], taken[name]["default"])
        assert option.get("elements") == taken[name].get("elements")


def test_every_problem_is_documented() -> None:
    used: set[str] = set()
    for path in (UTILS / "heteroserve" / "facts").glob("*.py"):
        used.update(re.findall(r'Problem\(\s*f?"([a-z{}-]+)"', path.read_text(encoding="utf-8")))
    used = {code.replace("{tool}", tool) for code in used for tool in ("xpu-smi", "hl-smi")}
    text = literal("RETURN")["ansible_facts"]["contains"]["host_hardware"]["contains"]["problems"]["description"]
    codes = set(re.findall(r"[a-z]+(?:-[a-z]+)+", text.split("Codes are")[1]))
    assert codes == used


def test_examples_are_tasks_of_this_module() -> None:
    tasks = literal("EXAMPLES")
    given = [task["accelerator_facts"] for task in tasks if "accelerator_facts" in task]
    assert given
    assert all(set(arguments) <= set(argument_spec()) for arguments in given)


def run_module(tmp_path: Path, arguments: dict[str, Any], *flags: str) -> dict[str, Any]:
    """The module through the ``ansible`` command, apart from any configuration of this project or user."""
    assert ANSIBLE
    config = tmp_path / "ansible.cfg"
    config.touch()
    inventory = ("localhost", "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
    environment = {
        **os.environ,
        "ANSIBLE_MODULE_UTILS": str(UTILS),
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = (ANSIBLE, *inventory, "-M", str(MODULE.parent), "-m", MODULE.stem, "-a", json.dumps(arguments), *flags)
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False, env=environment)
    assert "=>" in done.stdout, done.stdout + done.stderr
    return dict(json.loads(done.stdout.split("=>", 1)[1]))


@pytest.mark.skipif(not ANSIBLE, reason="ansible is not installed beside this Python")
def test_ansible_runs_it_on_a_capture_and_changes_nothing(tmp_path: Path) -> None:
    root = machines.materialise(machines.describe("mig"), tmp_path / "mig")
    arguments = {"root": root, "model_path": "/srv/models", "cluster_addresses": ["10.20.1.12", "10.20.1.13"]}
    result = run_module(tmp_path, arguments, "--check")
    assert result["changed"] is False
    verdict = json.loads((machines.MACHINES / "mig" / "verdict.json").read_text(encoding="utf-8"))
    assert result["ansible_facts"]["host_hardware"] == verdict


@pytest.mark.skipif(not ANSIBLE, reason="ansible is not installed beside this Python")
def test_a_wrong_root_fails_and_says_why(tmp_path: Path) -> None:
    result = run_module(tmp_path, {"root": str(tmp_path)})
    assert "ansible_facts" not in result
    assert "no capture of a machine" in result["msg"]
