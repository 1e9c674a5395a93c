"""One real installation in a scratch state directory, on ports of its own, shared by the tests that need it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common import processes

from tests.helpers.playbook_runs import kill_at, told

UP_S = 1500  # no command takes longer, on the slowest machine


@dataclass
class Installation:
    """A state directory with the ports that its commands are given."""

    root: Path
    state: Path
    cache: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports['gateway_port']}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HETEROSERVE_STATE": str(self.state),
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.cache),
            "ANSIBLE_FORCE_COLOR": "0",
        }

    def command(self, *words: str) -> list[str]:
        extra = [part for name, port in self.ports.items() for part in ("-e", f"{name}={port}")]
        return [str(self.root / "heteroserve"), *words, *extra]

    def run(self, *words: str, limit_s: float = UP_S, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ./heteroserve and keep what it printed."""
        return subprocess.run(
            self.command(*words),
            env={**self.environment, **environment},
            capture_output=True,
            encoding="utf-8",
            timeout=limit_s,
            cwd="/",
        )

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.run("up", *words)
        assert done.returncode == 0, told(done)
        return done

    def kill_up_at(self, text: str) -> str:
        """Start ``up``, and kill it and all that it waits for with SIGKILL when it prints ``text``."""
        return kill_at(text, self.command("up"), self.environment)

    def plan(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "plan.json").read_text()))

    def members(self) -> dict[int, str]:
        return processes.members(processes.INSTALLATION, str(self.state))


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for state directories, on the same disk as the checkout's cache."""
    folder = Path(tempfile.mkdtemp(prefix="heteroserve-test-", dir=os.environ.get("HETEROSERVE_TEST_DIR")))
    folder.chmod(0o755)  # jobs of AWX run in another account
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def installation(root: Path, folder: Path, base: int) -> Installation:
    ports = {"gateway_port": base, "gateway_stats_port": base + 1, "cell_port_base": base + 10}
    return Installation(root, folder / "state", folder / "cache", ports)


@pytest.fixture(scope="session")
def local(root: Path, scratch: Path) -> Iterator[Installation]:
    """The installation that inventory/local describes; test_local.py brings it up."""
    made = installation(root, scratch / "local", 26000)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


@pytest.fixture
def empty(root: Path, tmp_path: Path) -> Iterator[Installation]:
    """An installation in which nothing was done yet."""
    made = installation(root, tmp_path, 28000)
    yield made
    processes.end(processes.INSTALLATION, str(made.state), grace_s=0)
