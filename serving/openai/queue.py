"""How many requests may wait, and how long the next one would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from serving.openai.errors import busy

LONGEST_WAIT_S = 60  # nobody is told to come back later than this


class Queue:
    """Counts answers that are computed or wait. Used from the event loop alone."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once, self._most = at_once, at_once + waiting
        self.inside = 0
        self._mean_s = 1.0  # of an answer, the last ones counting most

    @contextmanager
    def place(self, answers: int) -> Iterator[None]:
        """Room for some answers, until the block ends. Raises ``Refusal`` (429) where there is none.

        A request with more answers than would ever find room gets in where nobody else is.
        """
        if self.inside and self.inside + answers > self._most:
            raise busy(self.wait_s())
        self.inside += answers
        try:
            yield
        finally:
            self.inside -= answers

    def took(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._mean_s += 0.1 * (seconds - self._mean_s)

    def wait_s(self) -> int:
        """Whole seconds until a place may be free."""
        rounds = max(1.0, (self.inside - self._most + self._at_once) / self._at_once)
        return max(1, min(LONGEST_WAIT_S, math.ceil(self._mean_s * rounds / self._at_once)))
