"""Streamed requests over kept connections: llhttp's parser on libuv's loop, nothing in between.

A general client spends more time on a piece of a stream than a server does on sending it (tests/bench/bench_client.py
compares), and would be what is measured.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

from serving.bench.records import UNFINISHED, Record

SHOWN = 300  # bytes of an error's text that are kept
CONNECT_S = 30.0
BROKEN = "broken connection"
now = time.monotonic


@dataclass(frozen=True)
class Endpoint:
    """What is asked, and how."""

    url: str  # without /v1
    model: str
    chat: bool = False
    key: str = ""
    ca_file: str = ""
    insecure: bool = False

    @property
    def path(self) -> str:
        """Of the requests."""
        return urlsplit(self.url).path.rstrip("/") + ("/v1/chat/completions" if self.chat else "/v1/completions")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def tls(self) -> ssl.SSLContext | None:
        """Settings of TLS; None for an endpoint without."""
        if urlsplit(self.url).scheme != "https":
            return None
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Asker:
    """Writes requests of one endpoint, and keeps connections for the next ones."""

    def __init__(self, endpoint: Endpoint, temperature: float, ignore_eos: bool) -> None:
        self.endpoint = endpoint
        self.open: set[Stream] = set()
        self._idle: list[Stream] = []
        self._tls = endpoint.tls()
        self._fixed: dict[str, Any] = {
            "model": endpoint.model,
            "temperature": temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ignore_eos:
            self._fixed["ignore_eos"] = True
        head = f"POST {endpoint.path} HTTP/1.1\r\nHost: {urlsplit(endpoint.url).netloc}\r\n"
        head += "User-Agent: heteroserve-bench\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
        if endpoint.key:
            head += f"Authorization: Bearer {endpoint.key}\r\n"
        self._head = f"{head}Content-Length: ".encode()

    def message(self, prompt: str, tokens: int) -> bytes:
        """A request's bytes."""
        asked: dict[str, Any] = {**self._fixed, "max_tokens": tokens}
        if self.endpoint.chat:
            asked["messages"] = [{"role": "user", "content": prompt}]
        else:
            asked["prompt"] = prompt
        body = orjson.dumps(asked)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    async def ask(self, record: Record, message: bytes) -> Record:
        """Send a request and wait for the end of its answer; what went wrong is in the record."""
        loop = asyncio.get_running_loop()
        record.sent = now()
        stream = self._idle.pop() if self._idle else None
        for _ in range(2):
            reused = stream is not None
            try:
                stream = stream or await self._connect(loop)
            except TimeoutError:
                return _failed(record, "no connection", f"not within {CONNECT_S:g} s")
            except OSError as fault:
                return _failed(record, "no connection", fault.strerror or str(fault) or type(fault).__name__)
            self.open.add(stream)
            whole = await stream.send(record, message, loop.create_future())
            self.open.discard(stream)
            if whole and stream.usable:
                self._idle.append(stream)
            elif record.fault == BROKEN and reused and stream.untouched:
                # The server had ended an idle connection: that is no answer, and every client tries again.
                record.fault = record.said = ""
                stream = None
                continue
            return record
        return record

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Stream:
        host, port = self.endpoint.address
        async with asyncio.timeout(CONNECT_S):
            _, stream = await loop.create_connection(Stream, host, port, ssl=self._tls)
        return stream

    def close(self) -> None:
        """End all connections."""
        for stream in (*self._idle, *self.open):
            stream.end(UNFINISHED, "")
        self._idle.clear()


def _failed(record: Record, kind: str, said: str) -> Record:
    record.fault, record.said, record.last = kind, said, now()
    return record


class Stream(asyncio.Protocol):
    """A connection with at most one answer under way."""

    def __init__(self) -> None:
        self.usable = False
        self.untouched = True  # no byte of the present answer has come
        self._transport: Any = None  # libuv's own kind
        self._parser: Any = None
        self._record: Record | None = None
        self._whole: asyncio.Future[bool] | None = None
        self._rest = b""
        self._status = 0
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport, self._parser, self.usable = transport, httptools.HttpResponseParser(self), True

    def send(self, record: Record, message: bytes, whole: asyncio.Future[bool]) -> asyncio.Future[bool]:
        """Write a request; the future says whether its answer came whole."""
        self._record, self._whole = record, whole
        self._rest, self._status, self._counted, self.untouched = b"", 0, False, True
        if self._transport is None or self._transport.is_closing():
            self.end(BROKEN, "it was closed before the request was sent")
        else:
            self._transport.write(message)
        return whole

    @property
    def sent_at(self) -> float:
        """When the present request was sent."""
        return self._record.sent if self._record else now()

    @property
    def events(self) -> int:
        """Deltas of the present answer."""
        return self._record.events if self._record else 0

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; all that came at once has one time."""
        self.untouched = False
        self._now = now()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as fault:
            self.end("not HTTP", str(fault))

    def on_headers_complete(self) -> None:
        """The answer's status."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A part of an answer's body."""
        if self._status != 200:
            if len(self._rest) < SHOWN:
                self._rest += body
            return
        lines = (self._rest + body).split(b"\n") if self._rest else body.split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def _event(self, text: bytes) -> None:
        record = self._record
        if record is None or text == b"[DONE]":
            return
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            self.end("not JSON", text[:SHOWN].decode(errors="replace"))
            return
        choices = event.get("choices")
        if choices:
            if is_delta(choices[0]):
                if record.events:
                    record.gaps.append(self._now - record.last)
                else:
                    record.first = self._now
                record.events += 1
                record.last = self._now
        elif "error" in event:
            error = event["error"]
            self.end("error in the stream", str(error.get("message", error) if isinstance(error, dict) else error))
            return
        if usage := event.get("usage"):
            record.prompt_tokens, record.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
            self._counted = True

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._record is None:
            return
        self.usable = self._parser.should_keep_alive()
        if self._status != 200:
            _failed(self._record, f"HTTP {self._status}", error_text(self._rest))
            self._done(True)
        elif not self._counted:
            self.end("cut" if self._record.events else "no tokens", "the stream ended without usage")
        else:
            self._done(True)

    def eof_received(self) -> None:
        """The server closes: the parser says whether an answer without a length is whole."""
        if self._record is not None and self._counted:
            self._done(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; an answer that was under way is cut."""
        self.usable = False
        if self._record is not None:
            began = self._record.events > 0
            self.end("cut" if began else BROKEN, str(exc) if exc else "the server closed the connection")

    def end(self, kind: str, said: str) -> None:
        """End the answer that is under way as failed, and the connection."""
        self.usable = False
        if self._record is not None:
            _failed(self._record, kind, said[:SHOWN])
            self._done(False)
        if self._transport is not None:
            self._transport.abort()

    def _done(self, whole: bool) -> None:
        self._record = None
        if self._whole is not None and not self._whole.done():
            self._whole.set_result(whole)


def is_delta(choice: dict[str, Any]) -> bool:
    """Whether a choice of an event brings something of the answer, of any kind: text, reasoning, a call of a tool.

    The announcement of the role alone is none: servers send it before the model has said anything. Empty text is one,
    for some tokens have no text.
    """
    delta = choice.get("delta")
    if delta is None:
        return "text" in choice
    if "role" not in delta:
        return bool(delta) or choice.get("finish_reason") is not None
    return any(value for name, value in delta.items() if name != "role")


def error_text(body: bytes) -> str:
    """The message of an error in OpenAI's form; the body's beginning where it is none."""
    try:
        return str(orjson.loads(body)["error"]["message"])[:SHOWN]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:SHOWN].decode(errors="replace").strip()
