"""The gateway as a service of a host: who may read what, and what clients see while cells come, go and die."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import testinfra
import testinfra.host

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SET = os.environ.get("HETEROSERVE_TEST_SET", "0")
URL = f"http://10.77.{SET}.11:8080"
KEY = {"Authorization": "Bearer sk-alice"}
FOLDER = "/etc/heteroserve/gateway"
UNIT = "heteroserve-gateway"
Host = testinfra.host.Host


@pytest.fixture(autouse=True)
def gateway(host: Host) -> None:
    """All tests are the gateway's; agents are asked by name."""
    if host.backend.get_hostname() != "server-1":
        pytest.skip("another host's test")


def other(host: Host, name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=host.backend.ansible_inventory, sudo=True)


def post(model: str = "org/llama", **body: object) -> httpx.Response:
    asked = {"model": model, "messages": [{"role": "user", "content": "?"}], **body}
    return httpx.post(f"{URL}/v1/chat/completions", json=asked, headers=KEY, timeout=30)


class Stream(threading.Thread):
    """A stream in the background: who serves it, how it ended, and when."""

    def __init__(self, pieces: int) -> None:
        super().__init__(daemon=True)
        self.pieces = pieces
        self.served_by = self.end = ""
        self.ended_at = 0.0
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(10)

    def run(self) -> None:
        asked = {"model": "org/llama", "messages": [], "stream": True, "pieces": self.pieces}
        try:
            with httpx.stream("POST", f"{URL}/v1/chat/completions", json=asked, headers=KEY, timeout=30) as response:
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        self.served_by = json.loads(line[6:])["served_by"]
                        self.begun.set()
                    elif line:
                        self.end = line
        except httpx.HTTPError as error:
            self.end = type(error).__name__
        self.ended_at = time.monotonic()


def streams_on(cell: str, pieces: int) -> Stream:
    """A stream that this cell serves."""
    for _ in range(8):
        stream = Stream(pieces)
        if stream.served_by == cell:
            return stream
    raise AssertionError(f"no stream came to {cell}")


def playbook(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
    command = ["ansible-playbook", f"--inventory={ROOT}/molecule/inventory", f"playbooks/{name}.yml", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def drain(state: str = "present", **variables: str) -> str:
    done = playbook("drain", drain_host="agent-1", drain_state=state, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def drained() -> Iterator[None]:
    """agent-1 is out of use; it is put back."""
    drain(drain_force="true")
    yield
    drain("absent")


@pytest.fixture
def both() -> None:
    """The gateway sees both cells of the model."""
    deadline = time.monotonic() + 20
    while served() != {"llama-a", "llama-b"}:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def served(count: int = 12) -> set[str]:
    return {post().json()["served_by"] for _ in range(count)}


def load(seconds: float, during: Callable[[], object]) -> list[tuple[int, float]]:
    """Status and time of plain requests, 8 at once, while something is done to the cells after a second."""
    deadline = time.monotonic() + seconds
    asked = {"model": "org/llama", "messages": [], "seconds": 0.1}

    def client() -> list[tuple[int, float]]:
        found = []
        with httpx.Client(headers=KEY, timeout=30) as session:
            while time.monotonic() < deadline:
                began = time.monotonic()
                status = session.post(f"{URL}/v1/chat/completions", json=asked).status_code
                found.append((status, time.monotonic() - began))
        return found

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client) for _ in range(8)]
        time.sleep(1)
        during()
        return [item for each in clients for item in each.result()]


def test_every_model_answers_and_keys_are_asked_for() -> None:
    assert served() == {"llama-a", "llama-b"}
    assert post("solo").json()["served_by"] == "solo-a"
    assert post("nothing").status_code == 404
    asked = httpx.post(f"{URL}/v1/chat/completions", json={"model": "solo"}, headers={"Authorization": "Bearer no"})
    assert asked.json()["error"]["code"] == "invalid_api_key"


def test_the_service_is_small(host: Host) -> None:
    assert host.service(UNIT).is_enabled
    processes = host.process.filter(comm="haproxy")
    assert len(processes) == 6  # a master and a worker of the endpoint, and of both that read large requests
    assert {process.user for process in processes} == {"heteroserve-gateway"} or {
        process.user for process in processes
    } == {host.check_output("id -u heteroserve-gateway")}
    status = host.check_output("cat /proc/%s/status", str(processes[0].pid))
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    # The package's own service would listen as well, or not start for want of a configuration.
    assert not host.service("haproxy").is_enabled
    assert not host.service("haproxy").is_running
    listening = [line.split()[3] for line in host.check_output("ss -ltnpH").splitlines() if "haproxy" in line]
    assert sorted(listening) == [f"10.77.{SET}.11:8080", "127.0.0.1:8405"]


def test_secrets_are_for_root_and_the_gateway(host: Host) -> None:
    folder = host.file(FOLDER)
    assert (folder.user, folder.group, folder.mode) == ("root", "heteroserve-gateway", 0o750)
    for name in ("haproxy.cfg", "keys.map", "large.cfg", "largest.cfg", "requests.lua", "read_model.lua", "cells.lua"):
        found = host.file(f"{FOLDER}/{name}")
        assert (found.user, found.group, found.mode) == ("root", "heteroserve-gateway", 0o640), name
    assert host.file(f"{FOLDER}/health-key").mode == 0o600
    assert host.file("/run/heteroserve-gateway").mode == 0o750
    assert host.file("/run/heteroserve-gateway/admin.sock").mode == 0o600
    assert host.run("sudo -u admin cat %s/keys.map", FOLDER).rc != 0
    key = host.file(f"{FOLDER}/health-key").content_string.strip()
    assert key not in host.check_output("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; journalctl --no-pager")


def test_each_request_is_a_line_of_the_journal(host: Host) -> None:
    answer = post("solo")
    time.sleep(1)
    found = host.check_output("journalctl --unit=%s --output=cat --grep='^{'", UNIT).splitlines()
    (line,) = [one for one in map(json.loads, found) if one["id"] == answer.headers["x-request-id"]]
    assert (line["key"], line["model"], line["cell"], line["status"]) == ("alice", "solo", "solo-a", 200)


def test_a_host_is_drained_without_cutting_a_stream(host: Host, both: None) -> None:
    stream = streams_on("llama-a", 60)
    refused = playbook("drain", drain_host="agent-1")
    assert "solo-a is the only cell that answers for solo. Nothing was drained" in refused.stdout
    assert refused.returncode != 0
    # The worker that has the stream is not the one that has the socket any more.
    host.check_output("systemctl reload %s", UNIT)
    drain(drain_force="true")
    assert stream.ended_at > 0  # it was waited for
    assert stream.end == "data: [DONE]"
    assert served() == {"llama-b"}
    assert post("solo").json()["error"]["code"] == "model_unavailable"
    again = drain(drain_force="true")
    assert "changed=0" in again
    assert "changed=1" not in again
    back = drain("absent")
    assert served() == {"llama-a", "llama-b"}
    assert "changed=1" in back
    assert "changed=1" not in drain("absent")


def test_an_unknown_host_is_said() -> None:
    done = playbook("drain", drain_host="agent-9")
    assert "drain_host: 'agent-9' is no host of the group serving: set it to one of agent-1, agent-2" in done.stdout


def test_what_is_drained_stays_so_through_reload_and_restart(host: Host, drained: None) -> None:
    for verb in ("reload", "restart", "kill --signal=KILL"):
        host.check_output(f"systemctl {verb} {UNIT}")
        time.sleep(3 if "kill" in verb else 1)
        assert served() == {"llama-b"}, verb
    # A run that changes nothing leaves it so, too.
    assert playbook("gateway").returncode == 0
    assert served() == {"llama-b"}


def test_a_cell_that_dies_fails_no_plain_request(host: Host, both: None) -> None:
    agent = other(host, "agent-2")
    found = load(5, lambda: agent.check_output("systemctl kill --signal=KILL stub-llama-b"))
    agent.check_output("systemctl reset-failed stub-llama-b; systemctl start stub-llama-b")
    assert len(found) > 200
    assert {status for status, _ in found} == {200}
    assert max(took for _, took in found) < 3


def test_a_cell_that_dies_ends_its_stream_with_an_error(host: Host, both: None) -> None:
    agent = other(host, "agent-2")
    stream = streams_on("llama-b", 100)
    began = time.monotonic()
    agent.check_output("systemctl kill --signal=KILL stub-llama-b")
    stream.join(10)
    agent.check_output("systemctl reset-failed stub-llama-b; systemctl start stub-llama-b")
    assert stream.end == "RemoteProtocolError"
    assert stream.ended_at - began < 3


def test_a_host_that_vanishes_fails_no_plain_request_and_hangs_no_stream(host: Host, both: None) -> None:
    """It answers nothing any more, not even that a connection is closed."""
    agent = other(host, "agent-2")
    stream = streams_on("llama-b", 200)
    gone = [0.0]

    def vanish() -> None:
        gone[0] = time.monotonic()
        agent.check_output(
            "nft 'add table inet gone; add chain inet gone in { type filter hook input priority -300; };"
            " add rule inet gone in tcp dport 30002 drop;"
            " add chain inet gone out { type filter hook output priority -300; };"
            " add rule inet gone out tcp sport 30002 drop'"
        )

    try:
        found = load(8, vanish)
        stream.join(10)
    finally:
        agent.check_output("nft delete table inet gone")
    assert len(found) > 200
    assert {status for status, _ in found} == {200}
    assert max(took for _, took in found) < 6
    assert stream.end == "RemoteProtocolError"
    assert stream.ended_at - gone[0] < 5
