"""Answers that a person can stop.

Gradio can cancel an event itself (``cancels=``), and its page then sometimes covers the conversation with "Error": the
cancelled event completes without data, which the page takes for a fault if it hears of that last (seen with 6.31.0 on
a busy machine, at the second Stop; tests/integration/test_chatbot.py presses Stop there). So an answer ends itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Stops:
    """A flag for each person who waits for an answer, by the session of their page."""

    def __init__(self) -> None:
        self._flags: dict[str, asyncio.Event] = {}

    def begin(self, session: str) -> None:
        """An answer will be computed: from now on it can be stopped."""
        self._flags[session] = asyncio.Event()

    def stop(self, session: str) -> None:
        """Stop the answer, if there is one."""
        if session in self._flags:
            self._flags[session].set()

    def end(self, session: str) -> None:
        """The answer has ended."""
        self._flags.pop(session, None)

    def leave(self, session: str) -> None:
        """The page was closed: its answer is stopped, and nothing is kept of it."""
        self.stop(session)
        self.end(session)

    def of(self, session: str) -> asyncio.Event:
        """Set when the answer is to stop."""
        return self._flags.setdefault(session, asyncio.Event())


async def until(stop: asyncio.Event, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items up to the moment in which ``stop`` is set; then the one that is awaited is given up."""
    stopped = asyncio.ensure_future(stop.wait())
    try:
        while not stop.is_set():
            awaited = asyncio.ensure_future(anext(items))
            try:
                await asyncio.wait((awaited, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not awaited.done():
                    awaited.cancel()
                    with suppress(asyncio.CancelledError, StopAsyncIteration):
                        await awaited
            if awaited.cancelled():
                return
            try:
                yield awaited.result()
            except StopAsyncIteration:
                return
    finally:
        stopped.cancel()
