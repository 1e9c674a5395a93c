"""From what happens to a cell to what a webhook is told, through a real gateway, Prometheus and Alertmanager.

Cells are stand-ins: what they say of themselves is replayed, so that a KV cache can be full without a load that fills
it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from heteroserve.monitoring import alertmanager, exposition, plan_metrics, prometheus, rules
from heteroserve.monitoring.targets import Host, Ports, Wanted, targets

from tests.helpers.stub_http import StubHandler

FOLDER = os.environ.get("HETEROSERVE_PROMETHEUS", "")
ROOT = Path(__file__).parents[2]
SHARED = ROOT / "python_plugins/module_utils"
RECORDED = ROOT / "tests/fixtures/monitoring/vllm.prom"
LIMIT_S = 40


def program(*names: str) -> str:
    """A program of HETEROSERVE_PROMETHEUS, or an installed one."""
    places = f"{FOLDER}/usr/bin:{FOLDER}:" if FOLDER else ""
    found = (shutil.which(name, path=f"{places}{os.environ['PATH']}:/usr/sbin") for name in names)
    return next((path for path in found if path), "")


PROGRAMS = {
    "haproxy": program("haproxy"),
    "prometheus": program("prometheus"),
    "prometheus-alertmanager": program("prometheus-alertmanager", "alertmanager"),
    "prometheus-node-exporter": program("prometheus-node-exporter", "node_exporter"),
}
MISSING = [name for name, path in PROGRAMS.items() if not path]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long("forty seconds; test_rules.py has promtool play every alert"),
    pytest.mark.skipif(bool(MISSING), reason=f"apt-get install {' '.join(MISSING)}"),
]
HAPROXY = """
global
    stats socket {folder}/worker.sock
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    default-server inter 300ms fall 2 rise 1
frontend statistics
    bind 127.0.0.1:{ports.gateway}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend endpoint
    bind 127.0.0.1:{endpoint}
    default_backend model-llama
backend model-llama
    option httpchk GET /health
    server llama-0 127.0.0.1:{cells[0]} check
    server llama-1 127.0.0.1:{cells[1]} check
"""


class Cell:
    """A stand-in that answers, and says of itself what was recorded."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.says = "The capital of France is Paris."
        self.kv_cache_usage = 0.3
        self.start()

    def start(self) -> None:
        self.killed = False
        cell = self

        class Handler(StubHandler):
            wbufsize = -1
            protocol_version = "HTTP/1.0"  # nobody holds a connection to a cell that is killed

            def do_GET(self) -> None:
                text = RECORDED.read_text().replace("KV_CACHE_USAGE", str(cell.kv_cache_usage))
                self.send_whole(200, text.encode() if self.path == "/metrics" else b"", "text/plain")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                answer = {"choices": [{"message": {"content": cell.says}}], "usage": {"completion_tokens": 7}}
                self.send_whole(200, json.dumps(answer).encode())

        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.killed = True


class Rack:
    """A gateway, two cells, and all that watches them, configured by the project's own functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(9)]
        numbers = [each.getsockname()[1] for each in held]
        for each in held:
            each.close()
        self.endpoint, hook, *cells = numbers[5:]
        self.ports = Ports(
            node=numbers[0],
            gateway=numbers[1],
            exporter=numbers[2],
            prometheus=numbers[3],
            alertmanager=numbers[4],
        )
        self.told: list[dict[str, Any]] = []
        self.cells = [Cell(port) for port in cells]
        self.webhook(hook)
        self.configure(hook, cells)
        self.processes = [self.run(*command) for command in self.commands()]

    def webhook(self, port: int) -> None:
        told = self.told

        class Handler(StubHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_whole(200, b"{}")

        self.hook = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.hook.serve_forever, daemon=True).start()

    def configure(self, hook: int, ports: list[int]) -> None:
        folder = self.folder
        plan = {
            "cells": [
                {
                    "name": f"llama-{number}", "model": "llama", "engine": "vllm", "accelerator": "cpu",
                    "vendor": "cpu", "pool": "llama-cpu", "build": "vllm-cpu", "start_s": 900, "hosts": ["local"],
                    "address": "127.0.0.1",
                    "ports": {"serve": port, "metrics": port}, "replicas": [{"hosts": ["local"], "devices": []}],
                    "expected": [{"concurrency": 16, "tokens_per_s": 200.0}],
                }
                for number, port in enumerate(ports)
            ]
        }  # fmt: skip
        host = Host("127.0.0.1", ("serving", "gateway", "monitoring"))
        found = targets(Wanted("local", {"local": host}, plan, self.ports))
        (folder / "targets").mkdir()
        for job, groups in found.items():
            (folder / f"targets/{job}.json").write_text(json.dumps(groups))
        settings = prometheus.Settings(str(folder), 1, self.ports.alertmanager)
        quick = {name: {"for": 1} for name in ("CellDown", "WrongAnswer", "KvCacheFull")}
        receivers = [{"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{hook}/"}]
        documents = {
            "prometheus.yml": prometheus.configuration(settings),
            "rules.yml": rules.rules(found, quick, "https://example.com/docs"),
            "alertmanager.yml": alertmanager.configuration(receivers, alertmanager.Settings(str(folder), 1)),
            "exporter.json": {
                "address": "127.0.0.1",
                "port": self.ports.exporter,
                "plan_file": str(folder / "plan.prom"),
                "health": {
                    "interval_s": 1,
                    "timeout_s": 5,
                    "hosts": {f"llama-{number}": "local" for number in range(2)},
                    "targets": [
                        {"name": name, "model": "llama", "url": f"http://127.0.0.1:{port}", "chat": True,
                         "questions": [["What is the capital of France?", "Paris"]]}
                        for name, port in (("llama-0", ports[0]), ("llama-1", ports[1]), ("endpoint", self.endpoint))
                    ],
                },
            },
        }  # fmt: skip
        for name, document in documents.items():
            (folder / name).write_text(json.dumps(document) if name.endswith("json") else yaml.safe_dump(document))
        (folder / "plan.prom").write_text(exposition.render(plan_metrics.samples(plan, {}, 0.25), plan_metrics.HELP))
        (folder / "haproxy.cfg").write_text(
            HAPROXY.format(folder=folder, ports=self.ports, endpoint=self.endpoint, cells=ports)
        )

    def commands(self) -> Iterator[list[str]]:
        folder, ports = self.folder, self.ports
        yield [PROGRAMS["haproxy"], "-db", "-f", f"{folder}/haproxy.cfg"]
        yield [sys.executable, "-m", "heteroserve.monitoring.exporter", f"{folder}/exporter.json"]
        yield [PROGRAMS["prometheus-node-exporter"], f"--web.listen-address=127.0.0.1:{ports.node}"]
        yield [
            PROGRAMS["prometheus"], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{ports.prometheus}",
        ]  # fmt: skip
        yield [
            PROGRAMS["prometheus-alertmanager"], f"--config.file={folder}/alertmanager.yml",
            "--cluster.listen-address=", f"--storage.path={folder}/alerts",
            f"--web.listen-address=127.0.0.1:{ports.alertmanager}",
        ]  # fmt: skip

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{Path(command[0]).name}.log").open("w") as log:
            environment = {**os.environ, "PYTHONPATH": str(SHARED)}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def query(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.prometheus}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        return [
            alert
            for notice in self.told
            for alert in notice["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]


def until(true: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> float:
    """Wait for something; how many seconds it took."""
    began = time.monotonic()
    while True:
        try:
            if true():
                return time.monotonic() - began
        except OSError:
            pass
        assert time.monotonic() - began < limit_s, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    made = Rack(tmp_path_factory.mktemp("monitoring"))
    yield made
    made.stop()


def test_every_target_is_up(rack: Rack) -> None:
    def down() -> list[str]:
        found = rack.query("targets")["activeTargets"]
        return [target["scrapeUrl"] + target["lastError"] for target in found if target["health"] != "up"]

    until(lambda: down() == [] and len(rack.query("targets")["activeTargets"]) == 10, "every target is up")
    until(lambda: len(rack.query("query?query=heteroserve:cell_up==1")["result"]) == 2, "both cells are up")


def test_every_rule_is_evaluated(rack: Rack) -> None:
    found = [rule for group in rack.query("rules")["groups"] for rule in group["rules"]]
    assert len(found) > 25
    assert {rule["health"] for rule in found} <= {"ok", "unknown"}


def answer_wrongly(cell: Cell) -> None:
    cell.says = "The capital of France is Lyon."


def fill_the_cache(cell: Cell) -> None:
    cell.kv_cache_usage = 0.995


def mend(cell: Cell) -> None:
    cell.says, cell.kv_cache_usage = "The capital of France is Paris.", 0.3
    if cell.killed:
        cell.start()


@pytest.mark.parametrize(
    ("happens", "alert"), [(Cell.kill, "CellDown"), (answer_wrongly, "WrongAnswer"), (fill_the_cache, "KvCacheFull")]
)
def test_a_webhook_is_told_of_it_and_of_its_end(rack: Rack, happens: Callable[[Cell], None], alert: str) -> None:
    assert rack.alerts(alert, "firing") == []
    happens(rack.cells[0])
    told = until(lambda: rack.alerts(alert, "firing"), f"{alert} is told")
    (notice, *_) = rack.alerts(alert, "firing")
    assert notice["labels"]["cell"] == "llama-0"
    assert "llama-0" in notice["annotations"]["summary"]
    assert notice["annotations"]["runbook_url"] == f"https://example.com/docs/alerts.md#{alert.lower()}"
    mend(rack.cells[0])
    ended = until(lambda: rack.alerts(alert, "resolved"), f"the end of {alert} is told")
    print(f"{alert}: told after {told:.1f} s, its end after {ended:.1f} s: {notice['annotations']['summary']}")
