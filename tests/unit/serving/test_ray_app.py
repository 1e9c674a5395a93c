"""The module's view of Serve's REST API, against a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from python_plugins.modules.serving.ray_app import Serve
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
