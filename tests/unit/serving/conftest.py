"""The plan of inventory/dell, made by the real command, and settings for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from heteroserve.plan.schema import Plan, plan_from_json
from heteroserve.serving.settings import Settings

DIGEST = "@sha256:" + "0" * 64
BUILDS = ("vllm-cpu", "vllm-cuda", "vllm-rocm", "vllm-xpu", "bigdl", "onnx", "openvino")


SETTINGS = Settings(
    images={build: f"registry.rack:5000/heteroserve/{build}{DIGEST}" for build in BUILDS},
    ray_version="2.60.0",
    models_path="/var/lib/heteroserve/models",
    cache_path="/var/lib/heteroserve/cache",
    gateways=("10.20.5.13", "10.20.5.14"),
    monitors=("10.20.5.12",),
)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Of an installation with two gateways and a monitoring host."""
    return SETTINGS


@pytest.fixture(scope="session")
def dell(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of the example estate."""
    return plan_of_dell(root, tmp_path_factory.mktemp("dell"))


def plan_of_dell(root: Path, folder: Path) -> Plan:
    """Make the plan of inventory/dell in a folder."""
    program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("ansible-playbook is not in this environment")
    done = subprocess.run(
        [program, "playbooks/plan.yml", "-i", "inventory/dell", "-e", json.dumps({"state_dir": str(folder)})],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return plan_from_json((folder / "plan.json").read_text())
