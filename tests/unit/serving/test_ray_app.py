"""The module's view of Serve's REST API, against a real HTTP server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from heteroserve.serving.ray_host import Serve

from python_plugins.modules.serving import ray_app
from tests.helpers.stub_http import StubHandler


class Dashboard(StubHandler):
    """Takes one token; refuses every application."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer right"
        self.send_whole(200 if known else 401, b'{"applications": {}}')

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_whole(400, b"extra fields not permitted: max_num_sqs")


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_the_token_opens_the_api(port: int) -> None:
    assert Serve("127.0.0.1", port, "right").details() == {"applications": {}}


def test_a_token_that_is_refused_is_said_at_once(port: int) -> None:
    with pytest.raises(ValueError, match="does not take this installation's token"):
        Serve("127.0.0.1", port, "wrong").details()


def test_an_application_that_is_refused_is_quoted(port: int) -> None:
    with pytest.raises(ValueError, match="max_num_sqs"):
        Serve("127.0.0.1", port, "right").put({"applications": []})


def test_nobody_there_is_left_to_the_caller_to_wait_for() -> None:
    with pytest.raises(OSError, match="refused"):
        Serve("127.0.0.1", 1, "right").details()


class Deleting:
    """A Serve that takes a while to forget its application."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.looks = 0

    def put(self, config: dict[str, Any]) -> None:
        self.given.append(config)

    def details(self) -> dict[str, Any]:
        self.looks += 1
        return {"applications": {"a": {"status": "DELETING"}} if self.looks < 3 else {}}


def test_what_serve_gave_up_is_gone_before_it_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_app.time, "sleep", lambda seconds: None)
    serve = Deleting()
    ray_app.remove(serve, {"proxy_location": "HeadOnly", "applications": [{"name": "a"}]}, time.monotonic() + 60)
    assert serve.given == [{"proxy_location": "HeadOnly", "applications": []}]
    assert serve.looks == 3
