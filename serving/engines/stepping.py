"""Continuous batching around a model that is computed step by step: one thread computes, the event loop only hands on.

Answers that are computed hold the slots 0, 1, 2, ... of the model's KV cache. New prompts are read in slots of their
own behind them. A step computes a token of each answer and at most ``PIECE`` tokens of prompts: several short prompts
together, or the next piece of a long one, which so delays nobody for longer than one piece takes.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from serving.engines.protocol import Sampling, Text, Token
from serving.engines.sampling import Logits, Sampler

logger = logging.getLogger("ray.serve")

PIECE = 256  # tokens of prompts that are read in one go
READERS = 8  # prompts that are read at once
ENDED = "the engine was ended"


@dataclass(frozen=True)
class Part:
    """What a step appends to one slot, which holds ``start`` tokens."""

    slot: int
    start: int
    tokens: Sequence[int]


class Model(Protocol):
    """A model with ``slots`` + ``READERS`` places for KV caches; the last ones are for prompts that are being read."""

    slots: int
    vocabulary: int

    def run(self, parts: Sequence[Part]) -> Sequence[Logits] | Logits:
        """One step; a row of logits for each part, after its last token. The rows are valid until the next call.

        Answers come first, in the order of their slots, with a token each.
        """

    def move(self, source: int, target: int, length: int) -> None:
        """Take the ``length`` tokens of a slot to another, which is free; the source is free then."""

    def free(self, slot: int) -> None:
        """A slot's tokens are not needed any more."""

    def close(self) -> None:
        """Give everything back."""


Item = Token | BaseException | None  # what an answer's reader gets; None is the end


@dataclass(eq=False)
class Running:
    """One answer."""

    tokens: list[int]  # prompt and answer
    sampler: Sampler
    wanted: Sampling
    loop: asyncio.AbstractEventLoop
    out: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    made: int = 0  # tokens of the answer
    stored: int = 0  # tokens whose keys and values are in the cache
    place: int = 0  # the slot that its prompt is read in
    cancelled: bool = False


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
        self._reading: list[Running] = []
        self._places = list(range(model.slots, model.slots + READERS))  # where no prompt is being read
        self._told: dict[asyncio.AbstractEventLoop, list[tuple[Running, Item]]] = defaultdict(list)
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
                self._step()
                self._hand_on()
        except BaseException as fault:
            self._fault = fault
            logger.exception("The engine's thread ends")
        finally:
            for one in [*self._running, *self._reading, *self._waiting]:
                self._tell(one, RuntimeError(ENDED))
            self._hand_on()
            self._model.close()

    def _tell(self, one: Running, item: Item) -> None:
        self._told[one.loop].append((one, item))

    def _hand_on(self) -> None:
        """Hand what a step has made to the event loops: to wake one for each token would cost more than the token."""
        for loop, items in self._told.items():
            try:
                loop.call_soon_threadsafe(_deliver, items)
            except RuntimeError:  # the loop has ended before us
                for one, _ in items:
                    one.cancelled = True
        self._told = defaultdict(list)

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
        for one in [one for one in self._reading if one.cancelled]:
            self._stop_reading(one)
        self._keep([one for one in self._running if not one.cancelled])

    def _stop_reading(self, one: Running) -> None:
        self._reading.remove(one)
        self._model.free(one.place)
        self._places.append(one.place)

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

    def _taken(self) -> int:
        """Tokens in the cache, with those of prompts that are not read to their end."""
        return sum(one.stored for one in self._running) + sum(len(one.tokens) for one in self._reading)

    def _admit(self) -> None:
        """Begin to read prompts where slots, the cache and this step have room."""
        while self._waiting and self._places and len(self._running) + len(self._reading) < self._model.slots:
            if sum(len(one.tokens) - one.stored for one in self._reading) >= PIECE:
                return
            others = len(self._running) + len(self._reading)
            if others and self._taken() + len(self._waiting[0].tokens) + others >= self._cache_tokens:
                return
            one = self._waiting.popleft()
            one.place = self._places.pop()
            self._reading.append(one)

    def _step(self) -> None:
        """A token for each answer, and the next pieces of prompts; who is read to the end joins the others."""
        while len(self._running) > 1 and self._taken() + len(self._running) > self._cache_tokens:
            # The youngest gives its place up and is read again later, with what it has said.
            back = self._running[-1]
            self._keep(self._running[:-1])
            back.stored = 0
            self._waiting.appendleft(back)
        parts = [(one, Part(slot, one.stored, one.tokens[-1:])) for slot, one in enumerate(self._running)]
        room = PIECE
        for one in self._reading:
            if piece := one.tokens[one.stored : one.stored + room]:
                parts.append((one, Part(one.place, one.stored, piece)))
                room -= len(piece)
        if parts:
            self._compute(parts)

    def _compute(self, parts: list[tuple[Running, Part]]) -> None:
        try:
            rows: Sequence[Logits | None] = list(self._model.run([part for _, part in parts]))
        except Exception as fault:
            logger.error("A step of %d answers failed (%s): each is computed by itself", len(parts), fault)
            rows = [self._alone(one, part) for one, part in parts]
        going_on, joining = [], []
        for (one, part), logits in zip(parts, rows, strict=True):
            one.stored += len(part.tokens)
            read = one.stored == len(one.tokens)
            good = logits is not None and (not read or self._choose(one, logits))
            if one not in self._reading:
                going_on += [one] if good else []
            elif not good:
                self._stop_reading(one)
            elif read:
                joining.append(one)
        self._keep(going_on)
        for one in joining:
            self._model.move(one.place, len(self._running), one.stored)
            self._running.append(one)
            self._stop_reading(one)

    def _alone(self, one: Running, part: Part) -> Logits | None:
        """The part of one answer; None if it is this one that fails."""
        try:
            return np.array(self._model.run([part])[0])
        except Exception as fault:
            self._tell(one, fault)
            return None

    def _choose(self, one: Running, logits: Logits) -> bool:
        """Choose a token and tell it; False if the answer has ended with it."""
        try:
            token = one.sampler.pick(np.asarray(logits))
        except Exception as fault:
            self._tell(one, fault)
            return False
        one.tokens.append(token.id)
        one.made += 1
        self._tell(one, token)
        ended = token.id in one.wanted.stop_ids and one.made > one.wanted.min_tokens
        if ended or one.made >= one.wanted.max_tokens:
            self._tell(one, None)
            return False
        return not one.cancelled


def _deliver(items: Sequence[tuple[Running, Item]]) -> None:
    for one, item in items:
        one.out.put_nowait(item)
