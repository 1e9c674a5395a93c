"""Every linter is clean. Each is one test, whose output is what the linter said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

CHECKS = {
    "ruff": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "--diff", "."],
    "yamllint": ["yamllint", "--strict", "."],
    "ansible-lint": ["ansible-lint", "--strict", "-q"],
    "mypy": ["mypy", "python_plugins", "serving", "dashboards"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_linter_is_clean(name: str, root: Path) -> None:
    program, *arguments = CHECKS[name]
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments], cwd=root, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_hooks_before_a_commit_run_the_same_linters(root: Path) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["id"]: hook["entry"].removeprefix(".venv/bin/").split() for hook in hooks} == CHECKS


def roles(root: Path) -> list[Path]:
    return sorted(path for path in (root / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", [path.name for path in roles(Path(__file__).parents[2])])
def test_arguments_equal_defaults(role: str, root: Path) -> None:
    """What a role says it takes is what it has defaults for, so that neither list can go stale."""
    folder = root / "roles" / role
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    options = specs["main"]["options"]
    defaults_file = folder / "defaults" / "main.yml"
    defaults = (yaml.safe_load(defaults_file.read_text()) or {}) if defaults_file.exists() else {}
    optional = {name for name, option in options.items() if not option.get("required")}
    assert optional == set(defaults)
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert stated == {name: defaults[name] for name in stated}
    # A role with nothing set must be one that its own specification lets start; what Jinja makes is known only later.
    literal = {name: value for name, value in defaults.items() if "{{" not in str(value)}
    wanted = {name: option for name, option in options.items() if name in literal}
    assert ArgumentSpecValidator(wanted).validate(literal).error_messages == []
