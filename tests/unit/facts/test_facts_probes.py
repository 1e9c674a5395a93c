"""The edge to the real machine: time-outs that hold, tools that are missing, files that cannot be read."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest
from heteroserve.common import machine
from heteroserve.common.machine import Machine, open_machine
from heteroserve.facts.nvidia_smi import QUERY


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts that comes first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_hanging_tool_is_killed_with_its_children(tools: Path) -> None:
    script(tools, "nvidia-smi", f"sleep 60 & echo $! > {tools}/child; wait")
    started = time.monotonic()
    result = Machine(timeout=0.4).run(*QUERY)
    assert time.monotonic() - started < 2
    assert (result.fault, result.ok) == ("timeout", False)
    assert result.explain() == "nvidia-smi did not answer within 0.4 s"
    child = int((tools / "child").read_text(encoding="utf-8"))
    for _ in range(50):
        try:
            state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the child of the hanging tool still runs")


def test_a_child_that_keeps_the_pipe_open_does_not_hold_the_probe(tools: Path) -> None:
    script(tools, "nvidia-smi", "echo early; exec setsid sleep 3")
    started = time.monotonic()
    assert Machine(timeout=0.3).run("nvidia-smi").fault == "timeout"
    assert time.monotonic() - started < 2


def test_exit_code_and_first_line_explain_a_failure(tools: Path) -> None:
    script(tools, "amd-smi", "echo; echo 'no devices' >&2; exit 3")
    result = Machine().run("amd-smi", "static")
    assert (result.code, result.explain()) == (3, "amd-smi exited with 3: no devices")


def test_missing_and_refused_tools(tools: Path) -> None:
    assert Machine().run("no-such-tool-here").explain() == "no-such-tool-here is not installed"
    (tools / "broken").write_bytes(b"\x7fnot a program")
    (tools / "broken").chmod(0o755)
    assert Machine().run("broken").fault == "refused"


def test_output_that_is_no_text_is_still_returned(tools: Path) -> None:
    script(tools, "xpu-smi", r"printf '\377\376 odd'")
    assert Machine().run("xpu-smi").stdout.endswith(" odd")


def test_tools_speak_english(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    script(tools, "say", 'echo "$LC_ALL"')
    assert Machine().run("say").stdout == "C\n"


def test_unreadable_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text("{}", encoding="utf-8")
    machine = open_machine(str(tmp_path))
    assert (machine.read("/no"), machine.read_int("/no"), machine.names("/no")) == (None, None, ())
    assert (machine.exists("/no"), machine.link_name("/no"), machine.read_bytes("/")) == (False, None, None)


def test_links_do_not_leave_the_capture(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text("{}", encoding="utf-8")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.so.1").symlink_to("a.so.1.2")
    assert open_machine(str(tmp_path)).resolve("/lib/a.so.1") == "/lib/a.so.1.2"


def test_a_root_without_a_capture_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"capture\.json: no capture of a machine"):
        open_machine(str(tmp_path))


def test_source_address_of_the_running_host() -> None:
    assert Machine().source_address("127.0.0.1") == "127.0.0.1"
    assert Machine().source_address("not an address") is None


@pytest.mark.parametrize("python", ["python3.9", "python3.10", "python3.13"])
def test_hosts_with_an_older_or_newer_python(python: str) -> None:
    """The module runs with the host's own Python: 3.9 on RHEL 9, 3.10 on Ubuntu 22.04."""
    if not shutil.which(python) or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is not here")
    code = (
        "from heteroserve.facts.collect import collect; from heteroserve.facts.hardware import hardware_to_dict;"
        "from heteroserve.common.machine import open_machine;"
        "print(hardware_to_dict(collect(open_machine()))['memory'])"
    )
    done = subprocess.run(
        [python, "-B", "-W", "error", "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[2])},
    )
    assert done.stderr == ""
    assert int(done.stdout) > 0
