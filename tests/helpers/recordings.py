"""Serves recorded output of exporters as if they were there: hardware that a test has not.

A counter grows by a tenth of its recorded value each second, so that rates are not empty; a gauge keeps its value.
"""

from __future__ import annotations

import re
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.helpers.stub_http import StubHandler

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "exporters"
GROWS = ("counter", "histogram", "summary")
SAMPLE = re.compile(r"(?P<series>[A-Za-z_:][\w:]*(?:\{.*\})?) +(?P<value>\S+)$")


def replayed(text: str, seconds: float) -> str:
    """The recording as the exporter would show it that much later."""
    grows, lines = False, []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            grows = line.split()[3] in GROWS
        found = SAMPLE.match(line)
        if found and grows:
            value = float(found["value"]) * (1 + seconds / 10)
            line = f"{found['series']} {value!r}"
        lines.append(line)
    return "\n".join(lines) + "\n"


class Recordings:
    """A server on a free port of loopback; each recording is a path, such as /dcgm.prom."""

    def __init__(self, folder: Path = FOLDER) -> None:
        started = time.monotonic()

        class Handler(StubHandler):
            def do_GET(self) -> None:
                path = folder / Path(self.path).name
                if path.exists():
                    text = replayed(path.read_text(encoding="utf-8"), time.monotonic() - started)
                    self.send_whole(200, text.encode(), "text/plain; version=0.0.4")
                else:
                    self.send_whole(404, b"")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Recordings:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def job(self, name: str, recordings: dict[str, dict[str, str]]) -> dict[str, Any]:
        """A job of Prometheus: the labels of each recording."""
        targets = [
            {"targets": [self.address], "labels": {"__metrics_path__": f"/{path}", **labels}}
            for path, labels in recordings.items()
        ]
        # The plan's and the health check's figures are about other hosts than the one that shows them.
        return {"job_name": name, "honor_labels": name in ("plan", "health"), "static_configs": targets}
