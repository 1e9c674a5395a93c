"""The endpoint, as the page asks it: its models, and answers as they are computed."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import httpx_sse

from serving.chatbot import words

CONNECT_S = 5.0
# The gateway lets a request wait for a slot, and an answer pause between two tokens, for ten minutes.
READ_S = 600.0
MODELS_S = 10.0


@dataclass(frozen=True)
class Question:
    """A request for one answer."""

    model: str
    messages: list[dict[str, str]]
    temperature: float
    max_tokens: int


@dataclass(frozen=True)
class Piece:
    """A part of an answer: a delta of any kind, how the answer ended, or how many tokens it had."""

    text: str = ""
    finish: str | None = None
    tokens: int | None = None
    delta: bool = False  # whether the model made it: a token at least


def base_url(given: str) -> str:
    """An address with or without /v1, without it. Raises ``ValueError`` for what is no address."""
    url = httpx.URL(given)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{given!r} is no address; give one such as http://127.0.0.1:8080")
    return given.rstrip("/").removesuffix("/v1")


class Endpoint:
    """One OpenAI endpoint. Every fault is a ``words.Fault``."""

    def __init__(self, url: str, key: str = "", ca: str | None = None) -> None:
        self.url, self._key = base_url(url), key
        # What the environment says of proxies is meant for the outside, where nothing here goes.
        self._client = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            verify=ssl.create_default_context(cafile=ca),
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S, write=60),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    @property
    def has_key(self) -> bool:
        """Whether it was started with a key, so that nobody has to enter one."""
        return bool(self._key)

    def _headers(self, key: str | None) -> dict[str, str]:
        chosen = (key or "").strip() or self._key
        if not chosen:
            return {}
        if not all("!" <= sign <= "~" for sign in chosen):
            raise words.Fault(words.unusable_key())
        return {"Authorization": f"Bearer {chosen}"}

    async def models(self, key: str | None) -> list[str]:
        """Names of the models, as the endpoint lists them."""
        headers = self._headers(key)
        asked = words.Asked(self.url, with_key=bool(headers))
        try:
            response = await self._client.get("/v1/models", headers=headers, timeout=MODELS_S)
        except httpx.TransportError as fault:
            raise words.Fault(_lost(fault, MODELS_S, asked)) from fault
        if response.status_code != 200:
            raise words.Fault(_refusal(response, asked))
        try:
            return [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as fault:
            raise words.Fault(words.no_openai(asked)) from fault

    async def answer(self, question: Question, key: str | None) -> AsyncGenerator[Piece, None]:
        """An answer, piece by piece. Closing the generator closes the request, and the engine stops computing."""
        headers = self._headers(key)
        asked = words.Asked(self.url, question.model, bool(headers))
        body = {
            "model": question.model,
            "messages": question.messages,
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun = ended = False
        try:
            async with httpx_sse.aconnect_sse(
                self._client, "POST", "/v1/chat/completions", json=body, headers=headers
            ) as source:
                if source.response.status_code != 200:
                    await source.response.aread()
                    raise words.Fault(_refusal(source.response, asked))
                begun = True
                async with aclosing(source.aiter_sse()) as events:
                    async for event in events:
                        if event.data == "[DONE]":
                            return
                        piece = piece_of(event.data)
                        ended = ended or piece.finish is not None
                        yield piece
        except httpx_sse.SSEError as fault:
            raise words.Fault(words.no_openai(asked)) from fault
        except httpx.TransportError as fault:
            timed_out = isinstance(fault, httpx.TimeoutException)
            lost = words.broken_off() if begun and not timed_out else _lost(fault, READ_S, asked)
            raise words.Fault(lost) from fault
        if not ended:
            raise words.Fault(words.broken_off())


def piece_of(data: str) -> Piece:
    """An event's piece. Raises ``words.Fault`` if it is an error, as servers send it in a stream that has begun."""
    try:
        found: dict[str, Any] = json.loads(data)
    except ValueError as fault:
        raise words.Fault(words.broken_off()) from fault
    if found.get("error"):
        raise words.Fault(words.broken_off() + words.own(str(words.error_of(data).get("message") or "")))
    choice: dict[str, Any] = next(iter(found.get("choices") or []), {})
    delta = choice.get("delta") or {}
    usage = found.get("usage") or {}
    # The first event of a stream says the role alone, before the model has made anything.
    made = any(value for name, value in delta.items() if name != "role")
    return Piece(delta.get("content") or "", choice.get("finish_reason"), usage.get("completion_tokens"), made)


def _lost(fault: httpx.TransportError, waited_s: float, asked: words.Asked) -> str:
    if isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout):
        return words.unreached(str(fault) or f"no connection in {CONNECT_S:.0f} s", asked)
    return words.silent(waited_s, asked) if isinstance(fault, httpx.TimeoutException) else words.hung_up(asked)


def _refusal(response: httpx.Response, asked: words.Asked) -> str:
    return words.refused(response.status_code, response.text, response.headers.get("Retry-After"), asked)
