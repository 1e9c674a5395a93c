"""What HeteroServe's own exporters have in common: their configuration, an endpoint, and a loop that goes on."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .exposition import CONTENT_TYPE


def configuration() -> dict[str, Any]:
    """The JSON file that the command line names."""
    return dict(json.loads(Path(sys.argv[1]).read_text()))


def say(text: str) -> None:
    """A line for the journal, or the supervisor's log."""
    print(text, flush=True)


def every(seconds: float, act: Callable[[], None], stop: threading.Event) -> None:
    """Do something again and again. What goes wrong is said, and tried again next time."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            act()
        except Exception:
            say(traceback.format_exc(limit=3))
        stop.wait(max(0.2, seconds - (time.monotonic() - began)))


def serve(address: str, port: int, pages: Mapping[str, Callable[[], str]]) -> ThreadingHTTPServer:
    """Answer GET for each page; runs in the background until it is shut down."""

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            body = page().encode() if page else b""
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Reads of Prometheus are no news."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
