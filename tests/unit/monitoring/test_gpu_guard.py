"""The guard of the GPUs over a real HAProxy and stand-ins for cells; GPU exporters are recordings replayed over HTTP.

The recordings were written after the vendors' documentation (see tests/fixtures/monitoring): no such GPU was there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from heteroserve.gateway import haproxy
from heteroserve.gateway.master import Gateway
from heteroserve.monitoring.gpu_guard import Guard

from tests.helpers.prometheus_server import free_port
from tests.helpers.stub_http import StubHandler

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
ROOT = Path(__file__).parents[3]
STUB = ROOT / "molecule/gateway/files/stub_cell.py"
RECORDED = ROOT / "tests/fixtures/monitoring"
pytestmark = pytest.mark.skipif(not HAPROXY, reason="no HAProxy: apt-get install haproxy")
CELLS = ("llama-0", "llama-1")
CONFIGURATION = """
global
    server-state-file {folder}/drained
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    load-server-state-from-file global
    default-server inter 200ms fall 2 rise 1
frontend endpoint
    bind 127.0.0.1:{port}
    default_backend model-llama
backend model-llama
    option httpchk GET /health
    server llama-0 127.0.0.1:{cells[0]} check
    server llama-1 127.0.0.1:{cells[1]} check
"""


def until(true: Callable[[], Any], limit_s: float = 15) -> float:
    """Wait for something; how many seconds it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit_s
        time.sleep(0.05)
    return time.monotonic() - began


class Rack:
    """A gateway, two cells, and the exporter of the host that the first one runs on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.serve = [free_port(), free_port()]
        self.recording = "dcgm_well.prom"
        rack = self

        class Exporter(StubHandler):
            def do_GET(self) -> None:
                self.send_whole(200, (RECORDED / rack.recording).read_bytes(), "text/plain")

        self.exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
        threading.Thread(target=self.exporter.serve_forever, daemon=True).start()
        (folder / "haproxy.cfg").write_text(CONFIGURATION.format(folder=folder, port=self.port, cells=self.serve))
        (folder / "drained").write_text("1\n")
        self.processes = [
            subprocess.Popen([sys.executable, str(STUB), str(port), name, "127.0.0.1"])
            for port, name in zip(self.serve, CELLS, strict=True)
        ]
        command = [str(HAPROXY), "-W", "-db", "-S", f"{folder}/admin.sock,mode,600", "-f", f"{folder}/haproxy.cfg"]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        until((folder / "admin.sock").exists)
        until(lambda: self.seen() == list(CELLS))

    def stop(self) -> None:
        self.exporter.shutdown()
        for process in self.processes:
            process.kill()
            process.wait()

    def seen(self) -> list[str]:
        return haproxy.answering(Gateway(f"{self.folder}/admin.sock").look())

    def guard(self, **given: Any) -> Guard:
        cells = [
            {
                "name": name,
                "model": "llama",
                "vendor": "nvidia",
                "hosts": [f"gpu-{number}"],
                "ports": {"serve": port},
                "replicas": [{"hosts": [f"gpu-{number}"], "devices": [[0, 1]]}],
            }
            for number, (name, port) in enumerate(zip(CELLS, self.serve, strict=True))
        ]
        target = {"model": "llama", "chat": True, "questions": [["What is the capital of France?", "Paris"]]}
        return Guard(
            {
                "socket": f"{self.folder}/admin.sock",
                "kept_in": f"{self.folder}/drained",
                "records": f"{self.folder}/gpu-faults.json",
                "textfile": f"{self.folder}/gpu-faults.prom",
                "drains": True,
                "plan": {"runtime": "ray", "cells": cells},
                "targets": [
                    {**target, "name": name, "url": f"http://127.0.0.1:{port}"}
                    for name, port in zip(CELLS, self.serve, strict=True)
                ],
                "exporters": [{"host": "gpu-0", "url": f"http://127.0.0.1:{self.exporter.server_address[1]}/metrics"}],
                **given,
            }
        )

    def ask(self) -> str:
        body = json.dumps({"model": "llama", "seconds": 0.2}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", body, timeout=20) as response:
            return str(json.load(response)["served_by"])

    def reasons(self) -> list[str]:
        return [record["reason"] for record in json.loads((self.folder / "gpu-faults.json").read_text())]


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path)
    yield made
    made.stop()


@pytest.mark.parametrize("recording", ["dcgm_xid79.prom", "dcgm_ecc.prom", "amd_unhealthy.prom"])
def test_a_cell_on_a_broken_gpu_gets_no_more_requests_and_none_fails(
    rack: Rack, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    guard = rack.guard()
    guard.look()
    assert rack.seen() == list(CELLS)
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(rack.ask) for _ in range(40)]
        time.sleep(0.3)
        rack.recording = recording
        began = time.monotonic()
        guard.look()
        took = time.monotonic() - began
        running += [clients.submit(rack.ask) for _ in range(40)]
        answers = [request.result() for request in running]  # raises for one that failed
    assert rack.seen() == ["llama-1"]
    assert {rack.ask() for _ in range(8)} == {"llama-1"}
    assert "llama-0" in answers
    assert took < 3
    (reason,) = rack.reasons()
    assert "of gpu-0 is broken" in reason
    assert reason in capsys.readouterr().out
    assert f'state="drained",reason="{reason}"' in (rack.folder / "gpu-faults.prom").read_text()
    assert "llama-0" in (rack.folder / "drained").read_text()  # also after a restart of HAProxy
    print(f"{recording}: drained after {took:.2f} s, {len(answers)} requests, none failed: {reason}")


def test_it_comes_back_when_its_gpu_is_well_and_it_answers_rightly(rack: Rack) -> None:
    rack.recording = "dcgm_xid79.prom"
    guard = rack.guard()
    guard.look()
    assert rack.seen() == ["llama-1"]
    rack.recording = "dcgm_well.prom"
    wrong = rack.guard(targets=[{**one, "questions": [["?", "Lyon"]]} for one in guard.targets()])
    wrong.look()
    assert rack.seen() == ["llama-1"]
    guard.look()
    until(lambda: rack.seen() == list(CELLS))
    assert rack.reasons() == []


def test_a_restarted_guard_knows_what_it_did(rack: Rack) -> None:
    rack.recording = "dcgm_xid79.prom"
    rack.guard().look()
    again = rack.guard()
    Gateway(f"{rack.folder}/admin.sock").switch(["llama-0"], "ready", lambda known: None)  # as playbooks/drain.yml does
    again.look()
    again.look()
    assert rack.seen() == list(CELLS)
    assert "was returned by hand" in rack.reasons()[0]


def test_nothing_is_drained_where_faults_are_only_reported(rack: Rack) -> None:
    rack.recording = "dcgm_xid79.prom"
    rack.guard(drains=False).look()
    assert rack.seen() == list(CELLS)
    assert "monitoring_gpu_faults is reported" in rack.reasons()[0]


def test_an_exporter_that_is_silent_changes_nothing(rack: Rack, capsys: pytest.CaptureFixture[str]) -> None:
    guard = rack.guard(exporters=[{"host": "gpu-0", "url": f"http://127.0.0.1:{free_port()}/metrics"}])
    guard.look()
    assert rack.seen() == list(CELLS)
    assert "its GPU exporter does not answer" in capsys.readouterr().out
    assert 'heteroserve_gpu_guard_silent{faulty_host="gpu-0"} 1' in (rack.folder / "gpu-faults.prom").read_text()
