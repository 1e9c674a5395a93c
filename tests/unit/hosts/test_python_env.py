"""An environment is whole or made again, and says what it could not install."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from python_plugins.modules.hosts import python_env
from tests.helpers.module_runs import run_module

# Writes down what it is asked and told. "Installs" a module for each word of the file `modules`, or prints `fails`.
UV = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >>asked
env | grep ^UV_ >variables
[ -f fails ] && { cat fails; exit 1; }
echo "Resolved 1 package in 2ms"
site=$(echo "$4" | sed s,bin/python,lib/python*/site-packages,)
for module in $(cat modules); do echo "${module#*:}" >$(echo $site)/${module%%:*}.py; done
"""


class Host:
    """A host that has uv already."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "envs" / "uv" / "bin"
        self.bin.mkdir(parents=True)
        (folder / "engine.txt").write_text("engine==1 \\\n    --hash=sha256:00\n")
        (folder / "uv.txt").write_text("uv==1\n")
        (self.bin / "modules").write_text("engine:")
        (self.bin / "uv").write_text(UV)
        (self.bin / "uv").chmod(0o755)
        (self.bin / "python").symlink_to(sys.executable)
        (self.bin / "activate").write_text(f"VIRTUAL_ENV={self.bin.parent}\n")
        (self.bin.parent / python_env.MARK).write_text(python_env.digest_of(sys.executable, folder / "uv.txt"))

    def read(self, name: str) -> str:
        path = self.bin / name
        return path.read_text() if path.exists() else ""

    def run(self, **options: Any) -> dict[str, Any]:
        given = {
            "path": str(self.folder / "envs" / "engine"),
            "lock": str(self.folder / "engine.txt"),
            "uv_lock": str(self.folder / "uv.txt"),
            "python": sys.executable,
            "imports": ["json", "engine"],
        }
        return run_module(python_env.main, {**given, **options})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(python_env.os, "umask", lambda mask: mask)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Host(tmp_path)


def test_a_second_run_changes_nothing_and_another_lock_everything(host: Host) -> None:
    assert host.run()["changed"]
    assert not host.run()["changed"]
    assert host.read("asked").count("--require-hashes") == 1
    (host.folder / "engine.txt").write_text("engine==2\n")
    assert host.run()["changed"]
    assert host.read("asked").count("--require-hashes") == 2


def test_an_environment_that_was_moved_is_made_again(host: Host) -> None:
    """Its scripts name the folder that they were made in."""
    host.run()
    made = host.folder / "envs" / "engine"
    moved = made.rename(made.with_name("moved"))
    assert host.run(path=str(moved))["changed"]
    assert not host.run(path=str(moved))["changed"]


def test_uvs_cache_lies_beside_the_environments_without_a_home(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    host.run()
    assert f"UV_CACHE_DIR={host.folder}/envs/.uv-cache" in host.read("variables")


def test_what_was_cut_short_is_made_again(host: Host) -> None:
    host.run()
    env = host.folder / "envs" / "engine"
    (env / python_env.MARK).unlink()
    (env / "half").touch()
    assert host.run()["changed"]
    assert not (env / "half").exists()


def test_uv_looks_where_pip_would_unless_the_user_says_otherwise(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://more.example/simple file:///none/simple")
    monkeypatch.setenv("UV_INDEX", "https://mine.example/simple")
    host.run()
    told = host.read("variables").splitlines()
    assert "UV_DEFAULT_INDEX=https://mirror.example/simple" in told
    assert "UV_INDEX=https://mine.example/simple" in told


def test_torch_comes_first_by_itself_from_an_index_that_answers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_env, "answers", lambda url: url == "https://torch.example")
    host.run(torch="2.13.0", torch_index="https://torch.example")
    first, second = host.read("asked").splitlines()
    assert first.endswith("--no-deps --default-index https://torch.example torch==2.13.0")
    assert "--require-hashes" in second
    host.run(torch="2.13.1", torch_index="https://other.example")
    assert host.read("asked").splitlines()[2].endswith("--no-deps torch==2.13.1")


def test_what_uv_cannot_install_is_one_sentence(host: Host) -> None:
    (host.bin / "fails").write_text(
        "error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`\n\n  Expected:\n"
    )
    results = host.run()
    assert results["msg"] == "engine: uv failed: Failed to download `a==1`: Hash mismatch for `a==1`"
    (host.bin / "fails").unlink()
    assert host.run()["changed"]


def test_a_package_that_does_not_load_is_named(host: Host) -> None:
    (host.bin / "modules").write_text("engine:0/0")
    assert host.run()["msg"] == "engine: installed, but 'import engine' fails: ZeroDivisionError: division by zero"


def test_what_is_imported_is_compiled_whatever_the_shell_says(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    host.run()
    assert list((host.folder / "envs" / "engine").rglob("engine.*.pyc"))


def test_an_environment_can_be_shared_with_a_services_account(host: Host) -> None:
    """Whatever modes uv's cache has: it links its files."""
    host.run(shared=True)
    made = host.folder / "envs" / "engine"
    closed = [path.name for path in made.rglob("*") if not path.is_symlink() and not path.stat().st_mode & 0o004]
    assert closed == [python_env.MARK]
    assert (made.stat().st_mode & 0o777) == 0o755
    assert not host.run(shared=True)["changed"]
    assert host.run()["changed"]
