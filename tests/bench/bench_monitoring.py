"""Memory and disk of Prometheus: ``python tests/bench/bench_monitoring.py HOSTS [SECONDS [INTERVAL]]``.

Targets stand in file_sd files as the role writes them, for hosts with 8 GPUs and two cells each; one stand-in answers
for all exporters, with as many series as real ones have (module sizing). Prints what Prometheus holds and what sizing
expects.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python_plugins/module_utils"))

from heteroserve.monitoring import prometheus, rules, sizing  # noqa: E402
from heteroserve.monitoring.targets import Host, Wanted, targets  # noqa: E402

FAKE = ("node", "dcgm", "cells", "engines", "gateway")


def page(job: str) -> bytes:
    """Gauges that change a little, and counters that grow, as exporters have them."""
    now, lines = int(time.time()), []
    for number in range(sizing.SERIES[job]):
        value = now * (number % 7 + 1) if number % 2 else 40 + (now // 15 + number) % 9
        lines.append(f'fake_{job}_{number % 60}{{part="{number // 60}",device="device-{number % 8}"}} {value}')
    return ("\n".join(lines) + "\n").encode()


class Server(ThreadingHTTPServer):
    """Takes the connections of all targets at once."""

    request_queue_size = 4096
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prometheus gives up what takes too long; it counts that itself."""


class Exporter(BaseHTTPRequestHandler):
    """Answers for every exporter; a page is made every ten seconds."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    made: dict[str, tuple[int, bytes]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        job, now = self.path.split("/")[1], int(time.time() / 10)
        at, body = self.made.get(job, (0, b""))
        if at != now:
            body = page(job)
            self.made[job] = (now, body)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the output clean."""


def estate(count: int) -> tuple[dict[str, Host], dict[str, Any]]:
    """Hosts, and a plan with two cells on each."""
    hosts = {f"host-{number}": Host("10.0.0.1", ("serving",), ("nvidia",)) for number in range(count)}
    hosts["host-0"] = Host("10.0.0.1", ("serving", "gateway", "monitoring"), ("nvidia",))
    cells = [
        {
            "name": f"{host}-cell-{number}", "model": f"model-{number}", "engine": "vllm", "accelerator": "nvidia-h100",
            "hosts": [host], "address": "10.0.0.1", "ports": {"serve": 30000 + number, "metrics": 31000 + number},
        }
        for host in hosts
        for number in range(2)
    ]  # fmt: skip
    return hosts, {"cells": cells}


def value_of(port: int, query: str) -> float:
    """One number of Prometheus's own."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def main() -> None:
    """Entry point."""
    count, seconds = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 120
    interval_s = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    programs = os.environ.get("HETEROSERVE_PROMETHEUS", "")
    program = shutil.which("prometheus", path=f"{programs}/usr/bin:{programs}:{os.environ['PATH']}")
    assert program, "no prometheus: apt-get install prometheus, or set HETEROSERVE_PROMETHEUS"
    fake = Server(("127.0.0.1", 0), Exporter)
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    hosts, plan = estate(count)
    found = targets(Wanted("host-0", hosts, plan))
    expected = sizing.size(found, count, interval_s, 30)
    folder, port = Path(tempfile.mkdtemp(prefix="bench-monitoring-")), 19190
    (folder / "targets").mkdir()
    own = {"targets": [f"127.0.0.1:{port}"], "labels": {"host": "host-0"}}
    for job, groups in found.items():
        for group in groups:
            group["targets"] = [f"127.0.0.1:{fake.server_address[1]}"]
            # The address is the same for all: the page's path tells them apart, as the instance would.
            group["labels"] |= {"__metrics_path__": f"/{job}", "instance": f"{group['labels'].get('host')}-{id(group)}"}
        content = groups if job in FAKE else [own] if job == "prometheus" else []
        (folder / f"targets/{job}.json").write_text(json.dumps(content))
    documents = {
        "prometheus.yml": prometheus.configuration(prometheus.Settings(str(folder), interval_s)),
        "rules.yml": rules.rules(found, {}, "https://example.com"),
    }
    for name, document in documents.items():
        (folder / name).write_text(yaml.safe_dump(document))
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=log)
    try:
        time.sleep(seconds)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/tsdb", timeout=60) as answer:
            series = json.load(answer)["data"]["headStats"]["numSeries"]
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        busy = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        down, read = value_of(port, "count(up == 0)"), value_of(port, "count(up == 1)")
        print(f"{count} hosts, every {interval_s} s for {seconds:.0f} s: {read:.0f} targets up, {down:.0f} down")
        print(f"  {series} series ({expected.series} expected)")
        print(
            f"  memory {memory / 1e9:.2f} GB ({expected.memory_bytes / 1e9:.2f} expected), {memory / series:.0f} B each"
        )
        print(f"  processor {busy:.0f} s; 30 days: {expected.disk_bytes / 1e9:.0f} GB expected")
    finally:
        process.terminate()
        process.wait()
        fake.shutdown()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
