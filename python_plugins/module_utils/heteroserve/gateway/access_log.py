"""The access log between HAProxy and its file: lines wait a moment for their tokens, which a cell tells after the end.

HAProxy writes each line into a pipe. Who waits for lines is woken for each of them, which costs more processor time
than the request itself: the pipe is read ten times a second.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

WAIT_S = 4.0  # for a request's tokens; then its line is written without them
BEFORE = len('{"time":"2026-11-30T17:02:32Z","id":"')
ID = slice(BEFORE, BEFORE + len("9cc517ff-7304-47f1-bf15-19aa584fe062"))
NOT_ASKED = b'"cell":"-"'  # nothing that a client chooses looks like this: its quotes are escaped


@dataclass
class Waiting:
    """Lines in the order in which they came, and tokens whose line has not come yet."""

    lines: deque[tuple[float, bytes, str]] = field(default_factory=deque)  # when, line, request or ""
    tokens: dict[str, tuple[float, int, int]] = field(default_factory=dict)  # by request: when, prompt, answer
    rest: bytes = b""

    def come(self, read: bytes, now: float, counted: bool) -> None:
        """Take what was read; ``counted`` if cells tell tokens."""
        *lines, self.rest = (self.rest + read).split(b"\n")
        for line in lines:
            waits = counted and NOT_ASKED not in line
            self.lines.append((now, line, line[ID].decode("ascii", "replace") if waits else ""))

    def told(self, request: str, prompt: int, answer: int, now: float) -> None:
        """Tokens of a request that has ended."""
        self.tokens[request] = now, prompt, answer

    def go(self, now: float) -> bytes:
        """Lines that need not wait any longer."""
        out = []
        while self.lines:
            came, line, request = self.lines[0]
            found = self.tokens.pop(request, None) if request else None
            if request and found is None and now - came < WAIT_S:
                break
            self.lines.popleft()
            out.append(with_tokens(line, found and (found[1], found[2])))
        # Those of requests through another gateway.
        while self.tokens and now - next(iter(self.tokens.values()))[0] > 2 * WAIT_S:
            del self.tokens[next(iter(self.tokens))]
        return b"".join(out)


def with_tokens(line: bytes, tokens: tuple[int, int] | None) -> bytes:
    """A line with its tokens; null where nobody told them."""
    if not line.endswith(b"}"):
        return line + b"\n"
    prompt, answer = tokens or ("null", "null")
    return line[:-1] + f',"prompt_tokens":{prompt},"completion_tokens":{answer}}}\n'.encode()


class Rotated:
    """A file that is put aside when it is long."""

    def __init__(self, path: Path, longest: int, kept: int) -> None:
        self._path, self._longest, self._kept = path, longest, kept
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, text: bytes) -> None:
        """Append whole lines."""
        if text:
            os.write(self._file, text)
            if os.fstat(self._file).st_size >= self._longest:
                self._turn()

    def _turn(self) -> None:
        os.close(self._file)
        for number in range(self._kept, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        if not self._kept:
            self._path.unlink()
        self._file = self._open()

    def moved(self) -> None:
        """Open it again if somebody else has put it aside."""
        if not self._path.exists() or self._path.stat().st_ino != os.fstat(self._file).st_ino:
            os.close(self._file)
            self._file = self._open()
