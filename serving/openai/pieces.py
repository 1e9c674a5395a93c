"""From tokens to the text that a client may see: whole characters only, nothing past a stop, tool calls apart."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from serving.engines.protocol import Text

INCOMPLETE = "\ufffd"  # what a tokenizer shows for the first bytes of a character
HERMES = "<tool_call>", "</tool_call>"


class Decoder:
    """Text of a growing list of tokens, piece by piece.

    A token's text depends on the ones before it (spaces, characters of several tokens), so each piece is the difference
    between two decodings of a short window, as vLLM and TGI do it.
    """

    def __init__(self, text: Text, skip_special: bool = True) -> None:
        self._text, self._skip = text, skip_special
        self._ids: list[int] = []
        self._window = self._read = 0

    def add(self, token: int) -> str:
        """The text that a token completes; "" while a character is not whole."""
        self._ids.append(token)
        before = self._text.decode(self._ids[self._window : self._read], self._skip)
        after = self._text.decode(self._ids[self._window :], self._skip)
        # A character has four bytes at most: what is not whole by then is no character.
        if after.endswith(INCOMPLETE) and len(self._ids) - self._read < 4:
            return ""
        self._window, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def rest(self) -> str:
        """What is left when no more tokens come."""
        before = self._text.decode(self._ids[self._window : self._read], self._skip)
        after = self._text.decode(self._ids[self._window :], self._skip)
        self._window = self._read = len(self._ids)
        return after[len(before) :]


class Stops:
    """Holds back the end of a text as long as it may be the beginning of a stop."""

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        self._stops, self._include = [stop for stop in stops if stop], include
        self._held = ""
        self.found: str | None = None

    def add(self, piece: str) -> str:
        """What may be shown after ``piece``. ``found`` is set when a stop is complete: nothing comes after it."""
        text = self._held + piece
        places = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if places:
            at, self.found = min(places, key=lambda place: place[0])
            self._held = ""
            return text[: at + len(self.found)] if self._include else text[:at]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, when the answer ends without a stop."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of ``text`` that a stop begins with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class ToolCalls:
    """Takes the calls out of an answer: text before them is shown, the calls are told when the answer has ended."""

    def __init__(self, style: str) -> None:
        self._hermes = style == "hermes"
        self._held = ""
        self._calling: bool | None = None  # None: not known yet

    def add(self, piece: str) -> str:
        """What is text for sure."""
        if self._calling is False:
            return piece
        self._held += piece
        if self._calling:
            return ""
        if self._hermes:
            at = self._held.find(HERMES[0])
            self._calling = True if at >= 0 else None
            at = at if at >= 0 else len(self._held) - _overlap(self._held, HERMES[0])
        else:
            # Llama 3 writes nothing but the call's JSON. (Its tag before it is a special token, which is not shown.)
            start = self._held.lstrip()[:1]
            self._calling = start == "{" if start else None
            at = len(self._held) if self._calling is False else 0
        shown, self._held = self._held[:at], self._held[at:]
        return shown

    def end(self) -> tuple[str, list[dict[str, Any]]]:
        """Text that turned out to be no call, and the calls."""
        if not self._calling:
            return self._held, []
        if self._hermes:
            blocks = [block.partition(HERMES[1])[0] for block in self._held.split(HERMES[0])[1:]]
        else:
            blocks = [self._held]
        calls = [call for block in blocks if (call := _call(block))]
        # What is no JSON is shown as the model wrote it: to drop it would hide what it said.
        return ("", calls) if len(calls) == len(blocks) else (self._held, [])


def _call(text: str) -> dict[str, Any] | None:
    """A call as OpenAI's clients read it, from the JSON that the model wrote; None if it is no call."""
    try:
        data = json.loads(text)
        name, arguments = data["name"], data.get("arguments", data.get("parameters"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"chatcmpl-tool-{uuid.uuid4().hex}", "type": "function", "function": function}
