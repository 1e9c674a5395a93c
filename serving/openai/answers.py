"""Answers in OpenAI's shapes, as vLLM's server fills them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LOWEST = -9999.0  # JSON has no minus infinity


@dataclass(frozen=True)
class Chance:
    """A token of an answer with its log-probability and those of the likeliest ones, by text."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass
class Head:
    """What all parts of one answer share."""

    model: str
    chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.id or f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._start(kind), "choices": list(choices), "usage": usage}

    def event(self, choices: Sequence[dict[str, Any]], usage: dict[str, Any] | None = None) -> str:
        """One server-sent event of a stream."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = {**self._start(kind), "choices": list(choices)}
        return event(body if usage is None else {**body, "usage": usage})

    def _start(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def event(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


DONE = "data: [DONE]\n\n"


def usage(prompt: int, answer: int) -> dict[str, Any]:
    """Tokens of a request."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + answer, "completion_tokens": answer}


def chat_choice(
    index: int,
    text: str,
    calls: list[dict[str, Any]],
    reason: str,
    stop: int | str | None,
    chances: list[Chance] | None,
) -> dict[str, Any]:
    """One answer of a chat."""
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": None if chances is None else chat_logprobs(chances),
        "finish_reason": "tool_calls" if calls else reason,
        "stop_reason": stop,
    }


def chat_delta(
    index: int,
    delta: dict[str, Any],
    chances: list[Chance] | None = None,
    reason: str | None = None,
    stop: int | str | None = None,
) -> dict[str, Any]:
    """One piece of a streamed chat."""
    end = {"stop_reason": stop} if reason else {}
    logprobs = chat_logprobs(chances) if chances else None
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason, **end}


def text_choice(
    index: int, text: str, reason: str | None, stop: int | str | None, chances: list[Chance] | None, offset: int = 0
) -> dict[str, Any]:
    """One answer of a completion, or a piece of one; ``offset`` are the characters before it."""
    return {
        "index": index,
        "text": text,
        "logprobs": None if chances is None else text_logprobs(chances, offset),
        "finish_reason": reason,
        "stop_reason": stop,
    }


def chat_logprobs(chances: Sequence[Chance]) -> dict[str, Any]:
    """Log-probabilities as a chat has them."""

    def entry(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": list(text.encode("utf-8", "replace"))}

    content = [
        {**entry(one.text, one.logprob), "top_logprobs": [entry(*other) for other in one.top]} for one in chances
    ]
    return {"content": content}


def text_logprobs(chances: Sequence[Chance], offset: int = 0) -> dict[str, Any]:
    """Log-probabilities as a completion has them."""
    offsets = []
    for one in chances:
        offsets.append(offset)
        offset += len(one.text)
    return {
        "text_offset": offsets,
        "token_logprobs": [max(one.logprob, LOWEST) for one in chances],
        "tokens": [one.text for one in chances],
        "top_logprobs": [
            {text: max(logprob, LOWEST) for text, logprob in (*one.top, (one.text, one.logprob))} for one in chances
        ],
    }
