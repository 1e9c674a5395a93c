"""A model of some bytes in NumPy, behind the real batching and the real surface: all but a real model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.engines.stepping import READERS, Part, SteppingEngine

Logits = NDArray[np.float32]
END, VOCABULARY = 0, 300


class Bytes:
    """A token is a byte; 0 ends an answer. The template is the contents, a line each."""

    has_tools = False
    eos_ids = frozenset([END])
    defaults: Mapping[str, float] = {}

    def __init__(self, style: str | None = None) -> None:
        self._style = style
        self.has_tools = style is not None
        self.options: Mapping[str, Any] = {}

    def encode(self, text: str, special: bool) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return bytes(one for one in ids if 0 < one < 256).decode(errors="replace")

    def chat(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        self.options = options
        return "\n".join(str(message["content"]) for message in messages) + "\n"

    def tool_style(self) -> str | None:
        return self._style


class TinyModel:
    """Says ``reply`` after any prompt: the next byte depends on what its slot holds, so mixed-up slots show."""

    vocabulary = VOCABULARY

    def __init__(self, reply: str, slots: int = 4, step_s: float = 0.0) -> None:
        self.slots, self.reply, self.step_s = slots, reply.encode(), step_s
        self.held: list[list[int]] = [[] for _ in range(slots + READERS)]
        self.steps = 0
        self.closed = threading.Event()
        self.before: Callable[[list[list[int]]], None] = lambda held: None  # may raise

    def _next(self, slot: int) -> Logits:
        held = bytes(one for one in self.held[slot] if one < 256)
        said = held.rpartition(b"\n")[2]
        rest = self.reply[len(said) :] if self.reply.startswith(said) else b""
        logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[rest[0] if rest else END] = 9
        return logits

    def run(self, parts: Sequence[Part]) -> Logits:
        assert [len(self.held[part.slot]) for part in parts] == [part.start for part in parts], "the cache is another's"
        time.sleep(self.step_s)
        self.steps += 1
        self.before([[*self.held[part.slot], *part.tokens] for part in parts])
        for part in parts:
            self.held[part.slot] += part.tokens
        return np.stack([self._next(part.slot) for part in parts])

    def move(self, source: int, target: int, length: int) -> None:
        assert len(self.held[source]) == length
        assert not self.held[target] or target < self.slots
        self.held[target], self.held[source] = self.held[source], []

    def free(self, slot: int) -> None:
        self.held[slot] = []

    def close(self) -> None:
        self.closed.set()


def tiny(
    reply: str = "Paris is it.", context: int = 512, cache: int = 0, style: str | None = None, **more: Any
) -> SteppingEngine:
    """An engine with it."""
    return SteppingEngine(TinyModel(reply, **more), Bytes(style), context, cache or context * 4)


def model_of(engine: SteppingEngine) -> TinyModel:
    """The model of such an engine."""
    found = engine._model
    assert isinstance(found, TinyModel)
    return found
