"""Errors as OpenAI's clients read them, with the types and words of vLLM's server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

# Names in pydantic's locations that are no part of the request: the alternatives of a union, such as "list[str]".
_ALTERNATIVE = re.compile(r"[\[\](){}]|^(str|int|float|bool|list|dict|constrained-.*|none)$")


class Refusal(Exception):
    """A request that is answered with an error: status, type and the field at fault."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        status: int = 400,
        kind: str = "BadRequestError",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.kind, self.headers = param, status, kind, headers or {}


def body(message: str, kind: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error's JSON. What it repeats of a request may hold halves of surrogate pairs, which no answer can carry."""
    return {"error": {"message": _utf8(message), "type": kind, "param": param and _utf8(param), "code": status}}


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def of_validation(errors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What pydantic found, as one error with the first fault's field. The request's own text is not repeated."""

    def place(error: dict[str, Any]) -> str:
        parts = [str(part) for part in error.get("loc", ())]
        return ".".join([part for part in parts if not _ALTERNATIVE.search(part)] or parts)

    lines = [f"  {place(error)}: {error.get('msg', 'is wrong')}" for error in errors]
    title = f"{len(lines)} validation error{'s' if len(lines) != 1 else ''}:"
    return body("\n".join([title, *lines]), HTTPStatus.BAD_REQUEST.phrase, 400, place(errors[0]) if errors else None)


def too_long(limit: int, prompt: int, asked: int) -> Refusal:
    """The prompt and the answer that was asked for do not fit into the context."""
    return Refusal(
        f"This model's maximum context length is {limit} tokens. However, you requested {asked} output tokens and your"
        f" prompt contains {prompt} input tokens, for a total of {prompt + asked} tokens. Please reduce the length of"
        " the input prompt or the number of requested output tokens.",
        "input_tokens",
    )


def too_much(limit: int, asked: int, name: str) -> Refusal:
    """The answer alone is longer than the context."""
    return Refusal(
        f"{name}={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens.", name
    )


def busy(seconds: int) -> Refusal:
    """As many requests wait as may."""
    return Refusal(
        "The server has as many requests waiting as it takes. Try again later.",
        None,
        429,
        HTTPStatus.TOO_MANY_REQUESTS.phrase,
        {"Retry-After": str(seconds)},
    )
