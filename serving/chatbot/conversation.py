"""A conversation as the page keeps it, and as the endpoint is sent it. Pure functions over Gradio's messages.

A message is ``{"role", "content", "metadata"}``. What the page says of an answer (figures, errors) is a message of its
own below the answer, with the metadata ``NOTE``: a model is never shown it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
NOTE = {"id": "note"}


def text_of(message: Message) -> str:
    """A message's text: Gradio hands contents out in parts, and takes them as one text."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def said(role: str, text: str) -> dict[str, Any]:
    """A message of the conversation."""
    return {"role": role, "content": text}


def note(text: str) -> dict[str, Any]:
    """What the page says of an answer, in small letters."""
    return {"role": "assistant", "content": f"<small>{html.escape(text, quote=False)}</small>", "metadata": dict(NOTE)}


def fault(text: str) -> dict[str, Any]:
    """Why there is no answer, or no more of it."""
    return {"role": "assistant", "content": f"⚠️ {html.escape(text, quote=False)}", "metadata": dict(NOTE)}


def is_note(message: Message) -> bool:
    """Whether the page said it, and not the model."""
    return (message.get("metadata") or {}).get("id") == NOTE["id"]


def prompt(history: Sequence[Message], system: str) -> list[dict[str, str]]:
    """What the endpoint is sent.

    Llama's chat templates want the roles to alternate: a question that got no answer is left out once another follows.
    """
    found: list[dict[str, str]] = []
    if system.strip():
        found.append({"role": "system", "content": system.strip()})
    for message in history:
        text = text_of(message)
        if is_note(message) or not text:
            continue
        if found and found[-1]["role"] == message["role"]:
            found[-1]["content"] = text
        else:
            found.append({"role": str(message["role"]), "content": text})
    return found


def before_last_question(history: Sequence[Message]) -> tuple[list[Message], str]:
    """The conversation up to the last question, and that question; "" if there is none."""
    for place in range(len(history) - 1, -1, -1):
        if history[place]["role"] == "user":
            return list(history[:place]), text_of(history[place])
    return list(history), ""
