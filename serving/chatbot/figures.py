"""What stands under an answer: when its first token came, how fast the others did, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

from serving.chatbot.endpoint import Piece

ANSWERING = "answering"
STOPPED = "stopped"


@dataclass(frozen=True)
class Figures:
    """Times are seconds of one clock; None is what has not happened."""

    asked: float
    first: float | None = None  # the first piece of any kind
    last: float | None = None
    tokens: int | None = None  # as the endpoint counts them
    finish: str | None = None  # the endpoint's finish_reason
    length: int = 0  # tokens that the answer was allowed to have

    def after(self, piece: Piece, now: float) -> Figures:
        """The same, one piece later. A delta without text counts, too: a model may think before it speaks."""
        known = replace(self, tokens=piece.tokens or self.tokens, finish=piece.finish or self.finish)
        if piece.delta:
            return replace(known, first=self.first if self.first is not None else now, last=now)
        # The token that ends an answer is counted, and has no text.
        return replace(known, last=now) if piece.finish and self.last is not None else known

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token; None if that cannot be told."""
        if not self.tokens or self.tokens < 2 or self.first is None or self.last is None or self.last <= self.first:
            return None
        return (self.tokens - 1) / (self.last - self.first)

    def line(self, state: str = "") -> str:
        """In words; ``state`` is what the answer is doing, if it has not ended by itself."""
        parts = []
        if self.tokens:
            parts.append(f"{self.tokens} token{'s' if self.tokens != 1 else ''}")
        if self.tokens_per_s is not None:
            parts.append(f"{self.tokens_per_s:.{0 if self.tokens_per_s >= 100 else 1}f} tokens/s")
        if self.first is not None:
            parts.append(f"first token after {self.first - self.asked:.2f} s")
        if self.finish == "length":
            parts.append(f"cut off at the length of {self.length} tokens")
        return " · ".join([*parts, *([state] if state else [])])
