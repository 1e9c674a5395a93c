"""Answers of a real HTTP server, right and wrong, are told apart."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
from heteroserve.health.openai import ask, fault_of

from tests.helpers.stub_http import StubHandler


class Model(StubHandler):
    """Answers by the name of the model that is asked for."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = body["model"]
        if behaviour == "greedy" and body["temperature"]:
            self.send_whole(500, json.dumps({"error": {"message": "EngineCore died"}}).encode())
        elif behaviour == "missing":
            self.send_whole(404, json.dumps({"error": {"message": "no such model"}}).encode(), "application/json")
        elif body.get("stream"):
            chunks = [{"choices": [{"delta": {"content": part}}]} for part in ("The capital ", "is ", "Paris.")]
            chunks.append({"choices": [], "usage": {"completion_tokens": 3}})  # type: ignore[dict-item]
            text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            text += "" if behaviour == "breaks" else "data: [DONE]\n\n"
            self.send_whole(200, text.encode(), "text/event-stream")
        else:
            answer = {"choices": [{"message": {"content": "It is Lyon."}}], "usage": {"completion_tokens": 4}}
            self.send_whole(200, json.dumps(answer).encode(), "application/json")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_streamed_answer_is_read_and_timed(url: str) -> None:
    answer = ask(url, "good", "capital?", stream=True)
    assert (answer.text, answer.tokens, answer.error) == ("The capital is Paris.", 3, "")
    assert 0 < answer.first_token_s <= answer.total_s
    assert fault_of(answer, "paris", "capital?") == ""


def test_a_wrong_answer_is_quoted(url: str) -> None:
    assert "answered 'It is Lyon.', which does not match 'Paris'" in fault_of(ask(url, "x", "?"), "Paris", "?")


def test_a_stream_that_breaks_off_is_a_fault(url: str) -> None:
    assert "ended without [DONE]" in ask(url, "breaks", "?", stream=True).error


def test_a_request_with_a_temperature_may_be_answered_otherwise(url: str) -> None:
    assert ask(url, "greedy", "?").error == ""
    assert ask(url, "greedy", "?", temperature=1).error == "HTTP 500: EngineCore died"


def test_an_error_of_the_server_is_its_message(url: str) -> None:
    assert ask(url, "missing", "?").error == "HTTP 404: no such model"


def test_nobody_there_is_a_fault_and_no_exception() -> None:
    assert "ConnectionRefusedError" in ask("http://127.0.0.1:1", "x", "?").error
