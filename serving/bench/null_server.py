"""An endpoint that answers at once and thinks nothing: what a client can ask of it is the client's own limit."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import httptools
import orjson
import uvloop
from heteroserve.common.web import open_own

MODEL = "null"
BACKLOG = 8192
STARTS_WITHIN_S = 60
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


def _event(data: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + orjson.dumps(data) + b"\n\n")


def _token(chat: bool) -> bytes:
    common: dict[str, Any] = {"id": f"cmpl-{'0' * 32}", "created": 1700000000, "model": MODEL}
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
    if chat:
        return _event(
            {**common, "object": "chat.completion.chunk", "choices": [{**choice, "delta": {"content": " a"}}]}
        )
    return _event({**common, "object": "text_completion", "choices": [{**choice, "text": " a"}]})


_TOKENS = {True: _token(True), False: _token(False)}
_DONE = _chunk(b"data: [DONE]\n\n") + _END
_NOTHING: dict[str, Any] = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": MODEL, "choices": []}


class _Pump:
    """Writes one token of every stream, then lets the loop do the rest: tokens leave one by one, as an engine's do."""

    def __init__(self, token_s: float) -> None:
        self._token_s = token_s
        self._streams: dict[_Answers, None] = {}
        self._runs = False

    def add(self, stream: _Answers) -> None:
        self._streams[stream] = None
        if not self._runs:
            self._runs = True
            self._next()

    def remove(self, stream: _Answers) -> None:
        self._streams.pop(stream, None)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        if self._token_s:
            loop.call_later(self._token_s, self._step)
        else:
            loop.call_soon(self._step)

    def _step(self) -> None:
        for stream in [stream for stream in self._streams if stream.write_token()]:
            del self._streams[stream]
        if self._streams:
            self._next()
        else:
            self._runs = False


class _Answers(asyncio.Protocol):
    """One connection."""

    def __init__(self, pump: _Pump) -> None:
        self._pump = pump
        self._parser: Any = None
        self._transport: Any = None
        self._url = self._body = b""
        self._left = self._prompt = self._wanted = 0
        self._token = _TOKENS[False]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._parser = transport, httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pump.remove(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            models = {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 1 << 20}]}
            self._whole(200, orjson.dumps(models))
            return
        try:
            asked = orjson.loads(self._body)
            chat = "messages" in asked
            text = asked["messages"][-1]["content"] if chat else asked["prompt"]
            self._wanted = self._left = int(asked["max_tokens"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            self._whole(400, b'{"error":{"message":"The null server reads prompt or messages, and max_tokens."}}')
            return
        self._prompt, self._token = text.count(" ") + 1, _TOKENS[chat]
        self._transport.write(_HEAD)
        self._pump.add(self)

    def _whole(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        self._transport.write(head + body)

    def write_token(self) -> bool:
        """Write the next token; True if it was the last."""
        self._left -= 1
        if self._left > 0:
            self._transport.write(self._token)
            return False
        used = {"prompt_tokens": self._prompt, "completion_tokens": self._wanted}
        self._transport.write(self._token + _event({**_NOTHING, "usage": used}) + _DONE)
        return True


def _serve(held: socket.socket, token_s: float, stop: Event, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it

    async def run() -> None:
        pump = _Pump(token_s)
        server = await asyncio.get_running_loop().create_server(lambda: _Answers(pump), sock=held, backlog=BACKLOG)
        # Its parent may be killed and say nothing.
        while not stop.is_set() and os.getppid() == parent:
            await asyncio.sleep(0.1)
        server.close()

    uvloop.run(run())


@contextmanager
def null_server(token_s: float = 0.0, processes: int = 1, port: int = 0) -> Iterator[str]:
    """A null server on loopback in processes of its own; its URL, without /v1."""
    context = multiprocessing.get_context("spawn")
    stop, sockets = context.Event(), []
    for _ in range(processes):
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", port))
        held.listen(BACKLOG)
        port = held.getsockname()[1]
        sockets.append(held)
    children = [
        context.Process(target=_serve, args=(held, token_s, stop, os.getpid()), daemon=True) for held in sockets
    ]
    for child in children:
        child.start()
    for held in sockets:
        held.close()
    try:
        url = f"http://127.0.0.1:{port}"
        open_own(f"{url}/v1/models", STARTS_WITHIN_S).close()
        yield url
    finally:
        stop.set()
        for child in children:
            child.join(5)
            if child.is_alive():
                child.terminate()
