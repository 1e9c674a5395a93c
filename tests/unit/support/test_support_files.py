"""The module reads logs from their end, and says what it cannot read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from python_plugins.modules.support import support_files
from tests.helpers.module_runs import run_module


def collected(**arguments: object) -> dict[str, dict[str, str]]:
    return run_module(support_files.main, arguments)


def test_logs_are_read_from_their_end_the_newest_ones_only(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.log").write_text(f"beginning{'.' * 2000}end of {number}")
        os.utime(tmp_path / f"{number}.log", (number, number))
    (tmp_path / "folder.log").mkdir()
    found = collected(logs={"logs": [f"{tmp_path}/*.log"]}, newest=2, log_kib=1)
    assert list(found["files"]) == ["logs/2.log", "logs/3.log"]
    assert found["files"]["logs/3.log"].endswith("end of 3")
    assert "beginning" not in found["files"]["logs/3.log"]
    assert found["cut"] == ["logs/2.log", "logs/3.log"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for pod in ("ns_a", "ns_b"):
        (tmp_path / pod / "head").mkdir(parents=True)
        (tmp_path / pod / "head" / "0.log").write_text(pod)
    (tmp_path / "raylet.err").write_text("a file without a pattern")
    found = collected(logs={"pods": [f"{tmp_path}/ns_*/*/*.log", f"{tmp_path}/raylet.err"]})["files"]
    assert found == {
        "pods/ns_a/head/0.log": "ns_a",
        "pods/ns_b/head/0.log": "ns_b",
        "pods/raylet.err": "a file without a pattern",
    }


def test_a_host_has_no_more_than_its_limit(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.log").write_text("x" * 10_000)
    found = collected(logs={"logs": [f"{tmp_path}/*.log"]}, total_kib=8)
    assert sum(map(len, found["files"].values())) <= 8 * 1024
    assert len(found["cut"]) == 20


def test_commands_say_what_they_print_and_why_they_do_not(tmp_path: Path) -> None:
    commands = {
        "ok.txt": [sys.executable, "-c", "print('7 GPUs')"],
        "failed.txt": ["cat", str(tmp_path / "none")],
        "hangs.txt": [sys.executable, "-c", "import time; time.sleep(60)"],
        "missing.txt": ["no-such-command-here"],
    }
    files = collected(commands=commands, timeout=2)["files"]
    assert files["ok.txt"].splitlines()[1:] == ["7 GPUs"]
    assert "No such file" in files["failed.txt"]
    assert "did not answer within 2 s" in files["hangs.txt"]
    assert "missing.txt" not in files
