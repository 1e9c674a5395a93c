"""What went wrong, in words for the person at the page. Pure functions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

# How vLLM's server, the project's own and OpenAI say that a conversation does not fit.
TOO_LONG = re.compile(r"maximum context length|max_model_len|context_length_exceeded|longer than the .*context", re.I)
CONTEXT = re.compile(r"(?:context length (?:is|of)|max_model_len=) ?(?:only )?(\d+)", re.I)


@dataclass(frozen=True)
class Asked:
    """Where a request went, and with what."""

    url: str
    model: str = ""
    with_key: bool = False


class Fault(Exception):
    """Why there is no answer, or no more of it: one or two sentences for the person who asked."""


def refused(status: int, body: str, retry_after: str | None, asked: Asked) -> str:
    """What an answer with an error's status says."""
    found = error_of(body)
    message = str(found.get("message") or "").strip()
    code = str(found.get("code") or found.get("type") or "")
    again = when(retry_after)
    if status in (401, 403):
        if asked.with_key:
            return "The endpoint does not know this API key. Enter another at “API key”, or ask its operator for one."
        return "The endpoint asks for an API key. Enter yours at “API key”."
    if status == 404 and asked.model and "model" in f"{code} {message}".lower():
        return f"The endpoint has no model {asked.model} any more. Choose another one at “Model”." + own(message)
    if status == 404:
        return no_openai(asked)
    if status == 413 or (status == 400 and TOO_LONG.search(f"{code} {message}")):
        context = CONTEXT.search(message)
        limit = f" of {int(context[1]):,} tokens" if context else ""
        return (
            f"The conversation and the length of the answer do not fit into the model's context{limit}."
            f" Lower “Length”, shorten the message, or start a new conversation.{own(message)}"
        )
    if status == 429:
        return f"The endpoint has too many requests now. Try again {again or 'in a moment'}.{own(message)}"
    if status == 503:
        what = f"No cell of {asked.model} can answer now." if asked.model else "The endpoint cannot answer now."
        return f"{what} Try again {again or 'in a moment'}.{own(message)}"
    if status >= 500:
        return f"The endpoint failed ({status}). Try again; if it stays so, tell whoever runs it.{own(message)}"
    return f"The endpoint refused the request ({status}).{own(message)}"


def own(message: str) -> str:
    """The endpoint's own words, behind ours; as much as one can read."""
    text = " ".join(message.split())
    return f" It says: {text[:400]}{'…' if len(text) > 400 else ''}" if text else ""


def when(retry_after: str | None) -> str:
    """Retry-After in words; "" if it is none, or a date."""
    seconds = int(retry_after) if retry_after and re.fullmatch(r"\d{1,6}", retry_after.strip()) else 0
    if not seconds:
        return ""
    return f"in {seconds} second{'s' if seconds != 1 else ''}" if seconds < 120 else f"in {-(-seconds // 60)} minutes"


def error_of(body: str) -> dict[str, Any]:
    """The error of OpenAI's JSON; its message alone if it is a text; nothing if the body is something else."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    error = found.get("error", found) if isinstance(found, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def unreached(why: str, asked: Asked) -> str:
    """Nothing listens, or the way to it is wrong. ``why`` is what the system said."""
    if "certificate" in why.lower():
        return f"The certificate of {asked.url} is not trusted here. Start the chatbot with --ca FILE. (It says: {why})"
    return f"Nothing answers at {asked.url}. The gateway may be down: ./heteroserve status tells. (It says: {why})"


def no_openai(asked: Asked) -> str:
    """Something else listens there."""
    return f"{asked.url} answers, but not as an OpenAI endpoint does. Start the chatbot with the right --url."


def hung_up(asked: Asked) -> str:
    """The connection was closed before the answer began."""
    return f"{asked.url} closed the connection without an answer, as it does when a cell goes down. Try again."


def silent(seconds: float, asked: Asked) -> str:
    """It took the request, and then nothing came."""
    return f"{asked.url} said nothing for {seconds:.0f} seconds. Try again."


def broken_off() -> str:
    """An answer that has begun and does not end."""
    return "The answer broke off: what computed it went away. What came stands above; “Retry” asks again."


def unusable_key() -> str:
    """A key that no HTTP header can carry."""
    return "An API key has letters, digits and signs of ASCII only, and no spaces. Enter it again at “API key”."


def no_model() -> str:
    """Nothing is chosen."""
    return "No model is chosen. Choose one at “Model”; “Reload models” asks the endpoint again."
