"""Continuous batching around a model that is computed step by step: one thread computes, the event loop only hands on.

Answers that are computed hold the slots 0, 1, 2, ... of the model's KV cache, so that a step computes them together. A
new prompt is read piece by piece in a slot of its own behind them, with a step of the others between two pieces: a
long prompt delays nobody for longer than one piece takes.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from serving.engines.protocol import Sampling, Text, Token
from serving.engines.sampling import Logits, Sampler

logger = logging.getLogger("ray.serve")

PIECE = 256  # tokens of a prompt that are read in one go
ENDED = "the engine was ended"


class Model(Protocol):
    """A model with ``slots`` + 1 places for KV caches; the last one is for the prompt that is being read."""

    slots: int
    vocabulary: int

    def read(self, slot: int, start: int, tokens: Sequence[int]) -> Logits:
        """Append tokens to a slot that holds ``start`` ones; logits after the last of them."""

    def step(self, lengths: Sequence[int], tokens: Sequence[int]) -> Sequence[Logits] | Logits:
        """Append one token to each of the slots 0 to n-1, which hold ``lengths`` ones; a row of logits for each."""

    def move(self, source: int, target: int, length: int) -> None:
        """Take the ``length`` tokens of a slot to another, which is free; the source is free then."""

    def free(self, slot: int) -> None:
        """A slot's tokens are not needed any more."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(eq=False)
class Running:
    """One answer."""

    tokens: list[int]  # prompt and answer
    sampler: Sampler
    wanted: Sampling
    loop: asyncio.AbstractEventLoop
    out: asyncio.Queue[Token | BaseException | None] = field(default_factory=asyncio.Queue)
    made: int = 0  # tokens of the answer
    stored: int = 0  # tokens whose keys and values are in the cache
    cancelled: bool = False

    def tell(self, item: Token | BaseException | None) -> None:
        """Hand a token to the event loop; None is the end."""
        try:
            self.loop.call_soon_threadsafe(self.out.put_nowait, item)
        except RuntimeError:  # the loop has ended before us
            self.cancelled = True


class SteppingEngine:
    """An engine for a ``Model``."""

    cannot: frozenset[str] = frozenset()

    def __init__(self, model: Model, text: Text, max_model_len: int, cache_tokens: int) -> None:
        """``cache_tokens``: how many tokens all answers may have in the cache together."""
        self.text, self.max_model_len, self.max_num_seqs = text, max_model_len, model.slots
        self.vocabulary: int | None = model.vocabulary
        self._model = model
        self._cache_tokens = max(cache_tokens, max_model_len)
        self._inbox: queue.SimpleQueue[Running | None] = queue.SimpleQueue()
        self._waiting: deque[Running] = deque()
        self._running: list[Running] = []  # in the order of their slots
        self._reading: Running | None = None
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, prompt: Sequence[int], wanted: Sampling) -> AsyncGenerator[Token, None]:
        """The answer, token by token; when the generator is closed no further token is computed."""
        self.check()
        one = Running(list(prompt), Sampler(wanted, prompt), wanted, asyncio.get_running_loop())
        self._inbox.put(one)
        try:
            while (item := await one.out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            one.cancelled = True

    def check(self) -> None:
        """Raises ``RuntimeError`` if the thread that computes has ended."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the engine's thread has ended: {self._fault or ENDED}")

    def close(self) -> None:
        """End the thread; answers that are under way get an error."""
        self._inbox.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        try:
            while self._take():
                self._drop()
                self._admit()
                self._read_on()
                self._step()
        except BaseException as fault:
            self._fault = fault
            logger.exception("The engine's thread ends")
        finally:
            left = [*self._running, *self._waiting, *([self._reading] if self._reading else [])]
            for one in left:
                one.tell(RuntimeError(ENDED))
            self._model.close()

    def _take(self) -> bool:
        """New requests; waits for one where there is nothing to do. False at the end."""
        idle = not (self._running or self._waiting or self._reading)
        while True:
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            self._waiting.append(item)
            idle = False

    def _drop(self) -> None:
        """Forget answers whose clients have left."""
        self._waiting = deque(one for one in self._waiting if not one.cancelled)
        if self._reading is not None and self._reading.cancelled:
            self._reading = None
            self._model.free(self._model.slots)
        self._keep([one for one in self._running if not one.cancelled])

    def _keep(self, kept: list[Running]) -> None:
        """Only these go on: the last ones take the slots of those that have ended."""
        if len(kept) == len(self._running):
            return
        last = [(slot, one) for slot, one in enumerate(self._running) if slot >= len(kept) and one in kept]
        placed = self._running[: len(kept)]
        for slot, one in enumerate(placed):
            if one not in kept:
                source, moved = last.pop()
                self._model.move(source, slot, moved.stored)
                placed[slot] = moved
        for slot in range(len(kept), len(self._running)):
            self._model.free(slot)
        self._running = placed

    def _stored(self) -> int:
        return sum(one.stored for one in self._running)

    def _admit(self) -> None:
        """Begin to read the next prompt where a slot and cache are free."""
        if self._reading is None and self._waiting and len(self._running) < self._model.slots:
            one = self._waiting[0]
            if not self._running or self._stored() + len(one.tokens) + len(self._running) < self._cache_tokens:
                self._reading = self._waiting.popleft()

    def _read_on(self) -> None:
        """Read the next piece of the prompt; after its last one the answer joins the others."""
        one = self._reading
        if one is None:
            return
        piece = one.tokens[one.stored : one.stored + PIECE]
        try:
            logits = self._model.read(self._model.slots, one.stored, piece)
            one.stored += len(piece)
            if one.stored < len(one.tokens):
                return
            self._reading = None
            if self._choose(one, logits):
                self._model.move(self._model.slots, len(self._running), one.stored)
                self._running.append(one)
            else:
                self._model.free(self._model.slots)
        except Exception as fault:
            self._reading = None
            self._model.free(self._model.slots)
            one.tell(fault)

    def _step(self) -> None:
        """One token for each answer."""
        if not self._running:
            return
        while len(self._running) > 1 and self._stored() + len(self._running) > self._cache_tokens:
            # The youngest gives its place up and is read again later, with what it has said.
            back = self._running[-1]
            self._keep(self._running[:-1])
            back.stored = 0
            self._waiting.appendleft(back)
        going = list(self._running)
        try:
            rows = list(self._model.step([one.stored for one in going], [one.tokens[-1] for one in going]))
        except Exception as fault:
            logger.error("A step of %d answers failed (%s): each is computed by itself", len(going), fault)
            rows = [self._alone(slot, one) for slot, one in enumerate(going)]
        going_on = []
        for one, logits in zip(going, rows, strict=True):
            one.stored += 1
            if logits is not None and self._choose(one, logits):
                going_on.append(one)
        self._keep(going_on)

    def _alone(self, slot: int, one: Running) -> Logits | None:
        """The step of one answer; None if it is this one that fails."""
        try:
            return self._model.read(slot, one.stored, one.tokens[-1:])
        except Exception as fault:
            one.tell(fault)
            return None

    def _choose(self, one: Running, logits: Logits) -> bool:
        """Choose a token and tell it; False if the answer has ended with it."""
        try:
            token = one.sampler.pick(np.asarray(logits))
        except Exception as fault:
            one.tell(fault)
            return False
        one.tokens.append(token.id)
        one.made += 1
        one.tell(token)
        ended = token.id in one.wanted.stop_ids and one.made > one.wanted.min_tokens
        if ended or one.made >= one.wanted.max_tokens:
            one.tell(None)
            return False
        return not one.cancelled
