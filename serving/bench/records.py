"""What became of one request, and how a process hands many of them over."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

UNFINISHED = "unfinished"  # ended because the time was up: neither answered nor failed


@dataclass(slots=True)
class Record:
    """One request. Times are seconds of the machine's monotonic clock."""

    index: int
    due: float  # when it should have been sent
    sent: float = 0.0
    first: float = 0.0  # its first delta of any kind
    last: float = 0.0  # its last delta
    prompt_tokens: int = 0
    output_tokens: int = 0
    events: int = 0  # deltas
    fault: str = ""  # kind of error; "" if it was answered
    said: str = ""  # the error's own words
    gaps: array[float] = field(default_factory=lambda: array("d"))  # between one delta and the next

    @property
    def answered(self) -> bool:
        """Whether the whole answer came."""
        return not self.fault

    @property
    def latency(self) -> float:
        """Seconds from sending it to its last delta."""
        return self.last - self.sent


@dataclass(slots=True)
class Tally:
    """Running figures of a process, which it sends while it works."""

    done: int = 0
    failed: int = 0
    tokens: int = 0
    open: int = 0
    events: int = 0  # deltas, also those of answers that are not whole yet

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.done + other.done,
            self.failed + other.failed,
            self.tokens + other.tokens,
            self.open + other.open,
            self.events + other.events,
        )
