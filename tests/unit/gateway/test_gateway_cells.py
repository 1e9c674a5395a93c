"""Cells are drained in a real HAProxy, over stand-ins that can be killed; skipped where there is no HAProxy."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

gateway_cells = importlib.import_module("python_plugins.modules.gateway.gateway_cells")
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
STUB = Path(__file__).parents[3] / "molecule/gateway/files/stub_cell.py"
pytestmark = pytest.mark.skipif(not HAPROXY, reason="no HAProxy: apt-get install haproxy")
CONFIGURATION = """
global
    server-state-file {folder}/drained
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 10s
    load-server-state-from-file global
    default-server inter 200ms fall 2 rise 1
frontend endpoint
    bind 127.0.0.1:{port}
    use_backend model-b if {{ path /b }}
    default_backend model-a
backend model-a
    option httpchk GET /health
    server a-0 127.0.0.1:{ports[0]} check
    server a-1 127.0.0.1:{ports[1]} check
backend model-b
    option httpchk GET /health
    server b-0 127.0.0.1:{ports[2]} check
"""


class Failed(Exception):
    """fail_json was called."""


@dataclass
class Module:
    """What the module's code needs of AnsibleModule."""

    params: dict[str, Any]
    check_mode: bool = False

    def fail_json(self, msg: str, **rest: Any) -> NoReturn:
        raise Failed(msg)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@dataclass
class Gateway:
    """HAProxy with three cells of two models."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(5))

    def write(self, ports: list[int]) -> None:
        text = CONFIGURATION.format(folder=self.folder, port=self.ports[3], ports=ports)
        (self.folder / "haproxy.cfg").write_text(text)

    def start(self) -> None:
        self.write(self.ports)
        (self.folder / "drained").write_text("1\n")
        names = ("a-0", "a-1", "b-0")
        self.cells = [
            subprocess.Popen([sys.executable, str(STUB), str(port), name, "127.0.0.1"])
            for port, name in zip(self.ports, names, strict=False)
        ]
        command = [str(HAPROXY), "-W", "-db", "-S", f"{self.folder}/admin.sock,mode,600", "-f"]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen([*command, str(self.folder / "haproxy.cfg")], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not (self.folder / "admin.sock").exists() or self.run().look_answering() != list(names):
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def reload(self) -> None:
        before = self.run().gateway.workers()[0]
        self.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 10
        while self.run().gateway.workers()[0] == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        for process in (self.process, *self.cells):
            process.kill()
            process.wait()

    def run(self, check_mode: bool = False, **given: Any) -> Any:
        params = {
            "socket": f"{self.folder}/admin.sock",
            "kept_in": f"{self.folder}/drained",
            "progress_path": None,
            "cells": None,
            "timeout": 10,
            "models": {},
            "ports": {},
        }
        return Run(Module({**params, **given}, check_mode))

    def ask(self, path: str = "/a", **body: Any) -> list[str]:
        """Lines of an answer."""
        data = json.dumps({"model": "x", **body}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[3]}{path}", data=data)
        with urllib.request.urlopen(request, timeout=20) as response:
            return [line.decode().strip() for line in response]

    def wait_for_request(self, cell: str) -> None:
        deadline = time.monotonic() + 10
        while not self.run().results(False)["cells"][cell]["sessions"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def served(self) -> set[str]:
        return {json.loads(self.ask()[0])["served_by"] for _ in range(6)}


class Run(gateway_cells.Run):  # type: ignore[misc, name-defined]
    """One call of the module."""

    def look_answering(self) -> list[str]:
        return list(self.results(False)["answering"])


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    made.start()
    yield made
    made.stop()


def test_a_drained_cell_gets_no_requests_and_is_put_back(gateway: Gateway) -> None:
    assert gateway.run(cells=["a-0"], check_mode=True).drain()
    assert gateway.served() == {"a-0", "a-1"}
    assert gateway.run(cells=["a-0", "gone"]).drain()
    assert gateway.served() == {"a-1"}
    assert not gateway.run(cells=["a-0"]).drain()
    found = gateway.run(cells=["a-0", "gone"]).results(False)
    assert found["cells"] == {"a-0": {"up": True, "drained": True, "sessions": 0}}
    assert found["unknown"] == ["gone"]
    assert gateway.run(cells=["a-0"]).ready()
    assert not gateway.run(cells=["a-0"]).ready()
    assert gateway.served() == {"a-0", "a-1"}


def test_what_runs_is_waited_for_also_in_the_worker_before_a_reload(gateway: Gateway) -> None:
    ended: list[str] = []
    stream = threading.Thread(target=lambda: ended.extend(gateway.ask("/b", stream=True, pieces=50)))
    stream.start()
    gateway.wait_for_request("b-0")
    gateway.reload()
    assert len(gateway.run().gateway.workers()) == 2
    assert gateway.run(cells=["b-0"]).results(False)["cells"]["b-0"]["sessions"] == 1
    assert gateway.run(cells=["b-0"]).drain()
    assert ended[-2] == "data: [DONE]"
    stream.join()


def test_a_cell_that_does_not_become_idle_is_put_back(gateway: Gateway) -> None:
    stream = threading.Thread(target=lambda: gateway.ask("/b", stream=True, pieces=60))
    stream.start()
    gateway.wait_for_request("b-0")
    with pytest.raises(Failed, match="1 request still runs on b-0 after 1 s, so nothing was taken out of the gateway"):
        gateway.run(cells=["b-0"], timeout=1).drain()
    assert "b-0" in gateway.run().look_answering()
    assert (gateway.folder / "drained").read_text() == "1\n"
    stream.join()


def test_the_last_cell_of_a_model_is_refused(gateway: Gateway) -> None:
    models = {"a-0": "a", "a-1": "a", "b-0": "b"}
    with pytest.raises(Failed, match=r"b-0 is the only cell that answers for b\. Nothing was drained"):
        gateway.run(cells=["a-0", "b-0"], models=models).drain()
    assert gateway.run().look_answering() == ["a-0", "a-1", "b-0"]
    assert gateway.run(cells=["a-0"], models=models).drain()
    with pytest.raises(Failed, match="a-1 is the only cell"):
        gateway.run(cells=["a-1"], models=models).drain()


def test_a_drained_cell_stays_so_and_moves_with_its_port(gateway: Gateway) -> None:
    gateway.run(cells=["a-0"]).drain()
    gateway.reload()
    assert gateway.served() == {"a-1"}
    moved = gateway.ports[4]
    gateway.cells.append(subprocess.Popen([sys.executable, str(STUB), str(moved), "moved", "127.0.0.1"]))
    gateway.write([moved, *gateway.ports[1:]])
    gateway.run(ports={"a-0": moved, "a-1": gateway.ports[1]}).keep()
    gateway.reload()
    assert gateway.served() == {"a-1"}
    gateway.run(cells=["a-0"]).ready()
    assert gateway.served() == {"moved", "a-1"}


def test_a_cell_that_is_not_up_is_told(gateway: Gateway) -> None:
    gateway.run(cells=["b-0"]).drain()
    gateway.cells[2].kill()
    while gateway.run(cells=["b-0"]).results(False)["cells"]["b-0"]["up"]:
        time.sleep(0.1)
    with pytest.raises(Failed, match="after 1 s the gateway does not see b-0 as up: its GET /health must answer 200"):
        gateway.run(cells=["b-0"], timeout=1).ready()


def test_nobody_there_is_no_fault(tmp_path: Path) -> None:
    with pytest.raises(gateway_cells.NotRunningError):
        Gateway(tmp_path).run()
