"""./heteroserve in callers' environments; ansible-playbook is a stand-in that says how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

STUB = """#!/bin/sh
for word in "$@"; do echo "word $word"; done
env | sort
echo "charmap $(locale charmap 2>/dev/null)"
echo "cwd $PWD"
"""


def environment_in(venv: Path, root: Path, named: Path | None = None) -> None:
    """A complete environment, as the script finds it in a second run."""
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").write_text(f"VIRTUAL_ENV='{named or venv}'\nPATH='{venv}/bin':$PATH\n")
    (venv / "bin" / "ansible-playbook").write_text(STUB)
    (venv / "bin" / "ansible-playbook").chmod(0o755)
    lock = (root / "requirements" / "control.txt").read_bytes()
    (venv / ".installed").write_text(sha256(lock).hexdigest() + "\n")


def checkout(root: Path, place: Path) -> Path:
    for name in ("requirements", "playbooks", "inventory"):
        shutil.copytree(root / name, place / name)
    for name in ("heteroserve", "site.yml"):
        shutil.copy(root / name, place)
    return place


@pytest.fixture
def clone(root: Path, tmp_path: Path) -> Path:
    made = checkout(root, tmp_path / "clone")
    environment_in(made / ".venv", root)
    return made


def start(clone: Path, *words: str, cwd: Path | str = "/", **changes: str) -> subprocess.CompletedProcess[str]:
    known = {"PATH": os.environ["PATH"], "HOME": str(clone.parent), **changes}
    return subprocess.run(
        [str(clone / "heteroserve"), *words], env=known, cwd=cwd, capture_output=True, encoding="utf-8"
    )


def said(clone: Path, *words: str, cwd: Path | str = "/", **changes: str) -> list[str]:
    done = start(clone, *words, cwd=cwd, **changes)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_projects_configuration_is_taken_whatever_is_exported(clone: Path) -> None:
    """Also in a folder that everyone may write to, in which Ansible looks for none."""
    clone.chmod(0o777)
    lines = said(clone, "up", ANSIBLE_CONFIG="/home/me/ansible.cfg")
    assert f"ANSIBLE_CONFIG={clone}/ansible.cfg" in lines


@pytest.mark.parametrize(
    "given", [{"LC_ALL": "C"}, {"LC_ALL": "de_DE.UTF-8"}, {"LANG": "de_DE.ISO-8859-1"}, {"LC_ALL": "POSIX"}, {}]
)
def test_the_locale_has_utf_8(clone: Path, given: dict[str, str]) -> None:
    assert "charmap UTF-8" in said(clone, "up", **given)


def test_files_are_those_of_the_callers_folder(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    lines = said(
        clone, "up", "-i", "mine", "-i", "inventory/dell", "--inventory=inventory/rack", "-e", "@vars.yml",
        cwd=tmp_path, HETEROSERVE_STATE="state",
    )  # fmt: skip
    words = [line.removeprefix("word ") for line in lines if line.startswith("word ")]
    assert words[1:] == [
        *("-i", "mine", "-i", f"{clone}/inventory/dell", f"--inventory={clone}/inventory/rack", "-e", "@vars.yml")
    ]
    assert f"cwd {tmp_path}" in lines
    assert f"HETEROSERVE_STATE={tmp_path}/state" in lines


def test_a_playbook_of_the_project_is_found_from_anywhere(clone: Path) -> None:
    assert f"word {clone}/playbooks/health.yml" in said(clone, "run", "playbooks/health.yml")


def test_down_with_purge(clone: Path) -> None:
    words = [line for line in said(clone, "down", "--purge") if line.startswith("word ")]
    assert words == [f"word {clone}/playbooks/reset.yml", "word -e", "word reset_purge=true"]


def test_ansibles_files_lie_in_the_project_without_a_home(clone: Path) -> None:
    assert f"ANSIBLE_HOME={clone}/.cache/ansible" in said(clone, "up", HOME="/proc/nowhere")
    assert not any(line.startswith("ANSIBLE_HOME=") for line in said(clone, "up"))


def test_an_environment_of_a_checkout_that_was_moved_is_made_again(clone: Path) -> None:
    moved = clone.rename(clone.with_name("moved"))
    done = start(moved, "up", HETEROSERVE_PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert "need Python 3.11 to 3.13" in done.stderr


@pytest.mark.parametrize("name", ["two words", "größe", "人"])
def test_a_checkouts_path_may_have_spaces_and_letters_of_any_kind(root: Path, tmp_path: Path, name: str) -> None:
    """Its environment lies elsewhere: a script's first line takes no spaces."""
    made = checkout(root, tmp_path / name / "clone")
    place = sha256(str(made).encode()).hexdigest()[:12]
    environment_in(tmp_path / ".cache" / "heteroserve" / f"venv-{place}", root)
    lines = said(made, "up", HOME=str(tmp_path))
    assert f"word {made}/site.yml" in lines
    assert f"ANSIBLE_CONFIG={made}/ansible.cfg" in lines


@pytest.mark.parametrize("name", ["a[b]", "a*", "$HOME", "a:b"])
def test_a_path_that_means_something_else_is_refused_at_once(root: Path, tmp_path: Path, name: str) -> None:
    done = start(checkout(root, tmp_path / name), "up")
    assert done.returncode == 1
    assert "clone the project to another path" in done.stderr
