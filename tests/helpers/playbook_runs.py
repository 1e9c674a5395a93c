"""What tests do with runs of playbooks: count what they changed, and kill them half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run_locally(play: str, folder: Path, variables: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a play as host ``localhost``, with the project's settings; its file is written to ``folder``."""
    (folder / "play.yml").write_text(play)
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(folder / "play.yml")]
        + ["-e", json.dumps(variables)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def changed(printed: str) -> int:
    """How many results of a run changed something."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", printed))


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What a run said that should have succeeded: its faults first, then its end."""
    faults = re.findall(r"^ +(?:FAILED|UNREACHABLE) .*\n(?:\n?  .*\n){0,6}", done.stdout, re.MULTILINE)
    return "\n".join([*faults, "...", done.stdout[-4000:], done.stderr[-2000:]])


def kill_at(text: str, command: list[str], environment: dict[str, str]) -> str:
    """Start ``command``, and kill it and all that it waits for with SIGKILL when it prints ``text``."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True, cwd="/"
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if re.search(text, line):
                os.killpg(process.pid, signal.SIGKILL)
                return printed
    pytest.fail(f"the run ended without printing {text!r}:\n{printed[-4000:]}")
