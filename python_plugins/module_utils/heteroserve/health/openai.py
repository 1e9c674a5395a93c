"""Ask an OpenAI endpoint a question whose answer is known, and time it. Standard library only."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer: its text, how many tokens it has, and seconds from sending to the first and to the last of them."""

    text: str
    tokens: int
    first_token_s: float
    total_s: float
    error: str = ""

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second after the first; 0 where one token, or none, came."""
        rest = self.total_s - self.first_token_s
        return (self.tokens - 1) / rest if self.tokens > 1 and rest > 0 else 0.0


def body(
    model: str, question: str, chat: bool, stream: bool, max_tokens: int, temperature: float = 0
) -> dict[str, Any]:
    """A request; at temperature 0 the same model gives the same answer."""
    asked = {"messages": [{"role": "user", "content": question}]} if chat else {"prompt": question}
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": model, "temperature": temperature, "max_tokens": max_tokens, **asked, **options}


def text_of(choice: dict[str, Any]) -> str:
    """The text in one choice, of a chat or a completion, whole or a piece of a stream."""
    part = choice.get("message") or choice.get("delta") or choice
    return part.get("content") or part.get("text") or ""


def events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event, up to [DONE]. Raises ValueError where the stream breaks its own format."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        yield json.loads(data)
    raise ValueError("the stream ended without [DONE]")


def ask(
    url: str,
    model: str,
    question: str,
    *,
    chat: bool = True,
    stream: bool = False,
    key: str = "",
    max_tokens: int = 32,
    temperature: float = 0,
    timeout_s: float = 60,
) -> Answer:
    """Send one request. Faults of network and protocol come back as ``Answer.error``, never as an exception."""
    where = urllib.parse.urlparse(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "", where.port, timeout=timeout_s)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    path = f"{where.path.rstrip('/')}/v1/{'chat/completions' if chat else 'completions'}"
    text = json.dumps(body(model, question, chat, stream, max_tokens, temperature))
    started = time.monotonic()
    try:
        connection.request("POST", path, text, headers)
        response = connection.getresponse()
        if response.status != 200:
            words = response.read().decode(errors="replace")
            return Answer("", 0, 0, 0, f"HTTP {response.status}: {message_of(words)}")
        return _streamed(response, started) if stream else _whole(response, started)
    except (OSError, ValueError, KeyError, IndexError, http.client.HTTPException) as fault:
        return Answer("", 0, 0, 0, f"{type(fault).__name__}: {fault}")
    finally:
        connection.close()


def message_of(words: str) -> str:
    """The message of an OpenAI error, or the start of whatever came instead."""
    try:
        return str(json.loads(words)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return words[:200]


def _whole(response: http.client.HTTPResponse, started: float) -> Answer:
    data = json.load(response)
    total = time.monotonic() - started
    return Answer(text_of(data["choices"][0]), int(data["usage"]["completion_tokens"]), total, total)


def _streamed(response: http.client.HTTPResponse, started: float) -> Answer:
    text, tokens, first = "", 0, 0.0
    for event in events(response):
        if event.get("error"):
            raise ValueError(f"error in the stream: {event['error']}")
        for choice in event.get("choices", []):
            piece = text_of(choice)
            if piece and not first:
                first = time.monotonic() - started
            text += piece
        if event.get("usage"):
            tokens = int(event["usage"]["completion_tokens"])
    return Answer(text, tokens, first, time.monotonic() - started)


def fault_of(answer: Answer, expected: str, question: str) -> str:
    """ "" if the answer is right; else one sentence. ``expected`` is a regular expression, case does not count."""
    if answer.error:
        return answer.error
    if re.search(expected, answer.text, re.IGNORECASE):
        return ""
    said = " ".join(answer.text.split())
    return f"asked {question!r}, it answered {said[:120]!r}, which does not match {expected!r}"
