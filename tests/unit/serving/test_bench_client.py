"""The benchmark's client against a server that answers byte for byte what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from serving.bench.client import Asker, Endpoint, error_text, is_delta
from serving.bench.records import Record

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Answer = list[bytes | float | None]  # bytes to send, seconds to wait, None to hang up


def chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: Any) -> bytes:
    return chunk(f"data: {json.dumps(data)}\n\n")


def token(text: str = " a") -> bytes:
    return event({"choices": [{"index": 0, "text": text}]})


USED = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
DONE = chunk("data: [DONE]\n\n") + b"0\r\n\r\n"
WHOLE = HEAD + token() + token() + token() + USED + DONE


def asked(answers: list[Answer], requests: int, chat: bool = False) -> tuple[list[Record], list[dict[str, Any]], int]:
    """Ask one request after another; the records, the bodies that came, and how many connections were made."""
    bodies: list[dict[str, Any]] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while answers:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            (length,) = [line.split(":")[1] for line in head.split("\r\n") if line.lower().startswith("content-length")]
            bodies.append({"head": head, **json.loads(await reader.readexactly(int(length)))})
            for part in answers.pop(0):
                if part is None:
                    writer.transport.abort()
                    return
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
                    await writer.drain()
        writer.close()

    async def run() -> list[Record]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asker = Asker(Endpoint(f"http://127.0.0.1:{port}", "llama", chat, "secret"), 0.5, True)
        records = []
        for number in range(requests):
            records.append(await asker.ask(Record(number, 0.0), asker.message("one two", 3)))
            await asyncio.sleep(0.02)
        asker.close()
        server.close()
        return records

    return asyncio.run(asyncio.wait_for(run(), 20)), bodies, connections


def test_a_stream_is_timed_and_counted() -> None:
    (record,), (body,), _ = asked([[HEAD, 0.05, token(), 0.05, token(), 0.05, token() + USED + DONE]], 1)
    assert record.fault == ""
    assert (record.prompt_tokens, record.output_tokens, record.events) == (7, 3, 3)
    assert 0.05 <= record.first - record.sent < 0.5
    assert [gap >= 0.045 for gap in record.gaps] == [True, True]
    assert record.latency == pytest.approx(record.first - record.sent + sum(record.gaps))
    assert "Authorization: Bearer secret" in body.pop("head")
    assert body == {
        "model": "llama",
        "prompt": "one two",
        "max_tokens": 3,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


def test_a_connection_is_kept() -> None:
    records, _, connections = asked([[WHOLE], [WHOLE], [WHOLE]], 3)
    assert [record.fault for record in records] == ["", "", ""]
    assert connections == 1


def test_pieces_may_be_cut_anywhere() -> None:
    (record,), _, _ = asked([[WHOLE[at : at + 1] for at in range(len(WHOLE))]], 1)
    assert (record.fault, record.events, record.output_tokens) == ("", 3, 3)


def test_a_chat_begins_with_its_first_word() -> None:
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    word = event({"choices": [{"index": 0, "delta": {"reasoning": "hm"}}]})
    (record,), (body,), _ = asked([[HEAD, role, 0.1, word, USED + DONE]], 1, chat=True)
    assert record.first - record.sent >= 0.1
    assert record.events == 1
    assert body["messages"] == [{"role": "user", "content": "one two"}]


@pytest.mark.parametrize(
    ("choice", "is_one"),
    [
        ({"delta": {"content": " a"}}, True),
        ({"delta": {"content": ""}}, True),
        ({"delta": {"tool_calls": [{}]}}, True),
        ({"delta": {"role": "assistant", "content": " a"}}, True),
        ({"delta": {"role": "assistant", "content": ""}}, False),
        ({"delta": {"role": "assistant"}}, False),
        ({"delta": {}, "finish_reason": "stop"}, True),
        ({"delta": {}, "finish_reason": None}, False),
        ({"text": ""}, True),
    ],
)
def test_deltas(choice: dict[str, Any], is_one: bool) -> None:
    assert is_delta(choice) is is_one


REFUSED = b'{"error":{"message":"No cell is up."}}'
LENGTH = b"content-length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ([b"HTTP/1.1 503 X\r\n" + LENGTH], "HTTP 503", "No cell is up."),
        ([b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops"], "HTTP 500", "oops"),
        ([HEAD + token(), None], "cut", "the server closed the connection"),
        ([HEAD + token() + DONE], "cut", "the stream ended without usage"),
        ([HEAD + DONE], "no tokens", "the stream ended without usage"),
        ([HEAD + event({"error": {"message": "out of memory"}})], "error in the stream", "out of memory"),
        ([HEAD + chunk("data: {nonsense\n\n")], "not JSON", "{nonsense"),
        ([b"nonsense\r\n\r\n"], "not HTTP", "Expected HTTP/"),
        ([None], "broken connection", "the server closed the connection"),
    ],
)
def test_errors_by_kind(answer: Answer, kind: str, said: str) -> None:
    def always() -> list[Answer]:
        return [list(answer), list(answer), [WHOLE]]

    (record, *_), _, _ = asked(always(), 1)
    assert record.fault == kind
    assert said in record.said or (said.startswith("the server closed") and "reset" in record.said.lower())


def test_an_idle_connection_that_was_closed_is_no_error() -> None:
    records, _, connections = asked([[WHOLE], [None], [WHOLE]], 2)
    assert [record.fault for record in records] == ["", ""]
    assert connections == 2


def test_a_request_after_an_error_has_a_connection_of_its_own() -> None:
    records, _, connections = asked([[HEAD + token(), None], [WHOLE]], 2)
    assert [record.fault for record in records] == ["cut", ""]
    assert connections == 2


def test_what_is_ended_because_the_time_is_up_is_not_sent_again() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(WHOLE)
        await reader.read()
        writer.close()

    async def run() -> Record:
        server = await asyncio.start_server(never, "127.0.0.1", 0)
        asker = Asker(Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "llama"), 0.0, False)
        await asker.ask(Record(0, 0.0), asker.message("one", 1))
        waiting = asyncio.create_task(asker.ask(Record(1, 0.0), asker.message("one", 1)))
        await asyncio.sleep(0.05)
        asker.close()
        server.close()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(run()).fault == "unfinished"


def test_nobody_listens() -> None:
    async def run() -> Record:
        asker = Asker(Endpoint("http://127.0.0.1:9", "llama"), 0.0, False)
        return await asker.ask(Record(0, 0.0), asker.message("one", 1))

    record = asyncio.run(run())
    assert record.fault == "no connection"


def test_words_of_errors() -> None:
    reads: Callable[[bytes], str] = error_text
    assert reads(b'{"error":{"message":"no"}}') == "no"
    assert reads(b'{"detail":1}') == '{"detail":1}'
    assert reads(b"<html>") == "<html>"


def test_addresses() -> None:
    assert Endpoint("https://host/api", "m").address == ("host", 443)
    assert Endpoint("https://host/api", "m").path == "/api/v1/completions"
    assert Endpoint("http://[::1]:81", "m", chat=True).address == ("::1", 81)
    assert Endpoint("http://host", "m").tls() is None
    assert Endpoint("https://host", "m", insecure=True).tls() is not None
