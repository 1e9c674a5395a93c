"""A stand-in for the Hugging Face hub: the two calls of its HTTP API that a plan makes, over repositories in memory."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from tests.helpers.stub_http import StubHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn:
    """What the stand-in has and what it was asked: ``gated`` repositories need ``token``, ``moved`` ones redirect."""

    def __init__(self, configs: dict[str, Any], token: str = "", gated: tuple[str, ...] = (), moved: str = "") -> None:
        self.configs, self.token, self.gated, self.moved = configs, token, gated, moved
        self.asked: list[tuple[str, str]] = []  # path and Authorization
        self.status = 0  # answered to everything, if set
        self.url = ""


@contextmanager
def standing_in(hub: HubStandIn) -> Iterator[HubStandIn]:
    """Serve the stand-in on loopback."""

    class Handler(StubHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(hub.url) if self.path.startswith("http") else self.path  # through a proxy
            given = self.headers.get("Authorization", "")
            hub.asked.append((path, given))
            found = re.fullmatch(r"/api/models/(.+)/revision/([^/]+)|/(.+)/resolve/([^/]+)/config\.json", path)
            repository = (found[1] or found[3]) if found else ""
            revision = (found[2] or found[4]) if found else ""
            if hub.status:
                self.send_whole(hub.status, b"{}")
            elif repository in hub.gated and given != f"Bearer {hub.token}":
                self.send_whole(401, b'{"error": "gated"}')
            elif found is None or repository not in hub.configs or revision not in ("main", "v1", COMMIT):
                self.send_whole(404, b'{"error": "not found"}')
            elif found[1]:
                self.send_whole(200, json.dumps({"id": repository, "sha": COMMIT}).encode())
            elif hub.moved:
                self.send_response(307)
                self.send_header("Location", f"{hub.moved}{path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_whole(200, json.dumps(hub.configs[repository]).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
