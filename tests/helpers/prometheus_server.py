"""A real Prometheus with a configuration of a test's own, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.check import ask

ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> str:
    """A program of Debian's packages of Prometheus: installed, or unpacked once into the checkout's cache."""
    if found := shutil.which(name):
        return found
    folder = ROOT / ".cache" / "prometheus"
    unpacked = folder / "usr" / "bin" / name
    if not unpacked.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            pytest.skip(f"no {name}: install Prometheus")
        folder.mkdir(parents=True, exist_ok=True)
        package = {"promtool": "prometheus"}.get(name, name)
        done = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, encoding="utf-8")
        packages = sorted(folder.glob(f"{package}_*.deb"))
        if done.returncode or not packages:
            pytest.skip(f"no {name}, and no package of it ({done.stderr.strip()[-200:]}): apt-get install {package}")
        subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(folder)], check=True)
    return str(unpacked)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrometheusServer:
    """Scrapes ``jobs`` every ``every_s`` seconds as long as the context lasts."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]], every_s: float = 1, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}]}
        interval = f"{round(every_s * 1000)}ms"
        self.configuration = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [*jobs, own],
        }

    def __enter__(self) -> PrometheusServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(self.configuration))
        command = [
            program("prometheus"),
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def wait_for_scrapes(self, number: int, limit_s: float = 60) -> None:
        """Wait until every target was read that many times."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            time.sleep(0.5)
            try:
                reads = ask(self.url, "query", query=f"min(count_over_time(up[{round(limit_s)}s]))")
            except (urllib.error.URLError, ConnectionError):
                continue
            if reads and float(reads[0]["value"][1]) >= number:
                down = [one["metric"] for one in ask(self.url, "query", query="up == 0")]
                assert down == [], f"targets that cannot be read: {down}"
                return
        pytest.fail(f"not every target was read {number} times:\n{(self.folder / 'log').read_text()[-3000:]}")
