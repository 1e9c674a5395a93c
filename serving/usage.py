"""Tokens of each request, kept on the cell's host until the ledger of each gateway has read them.

The gateway names key and model in headers of each request; who asks a cell by itself is not counted. What an engine
computes is counted where its own counters count, so that streams, clients that leave and requests that fail are counted
as answers are. All replicas of a cell are on one host and share one SQLite file, which survives them; any of them
returns what came after a number (``GET /usage?epoch=E&after=N``).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

logger = logging.getLogger("ray.serve")

PATH = "/usage"
FLUSH_S = 0.5  # tokens of this long are lost if a replica is killed
PROGRESS_S = 10.0  # and of this long, of an answer that goes on
KEPT_ROWS = 1_000_000  # for ledgers that do not come
UNWRITTEN_ROWS = 100_000  # while the disk is full
ROWS = 5000  # of one answer
TABLES = """
    CREATE TABLE IF NOT EXISTS epoch (name TEXT NOT NULL, only_one INTEGER PRIMARY KEY CHECK (only_one = 1));
    CREATE TABLE IF NOT EXISTS rows (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, request TEXT, key TEXT, model TEXT,
        prompt INTEGER, answer INTEGER, all_prompt INTEGER, all_answer INTEGER, ended INTEGER);
"""
COLUMNS = "at, request, key, model, prompt, answer, all_prompt, all_answer, ended"


@dataclass(eq=False)
class Count:
    """Tokens of one request so far."""

    request: str
    key: str
    model: str
    prompt: int = 0
    answer: int = 0
    told: tuple[int, int] = (0, 0)  # of both, in rows before
    told_at: float = 0.0

    def row(self, ended: bool) -> tuple[Any, ...]:
        """What came since the last row, and all of it."""
        prompt, answer = self.prompt, self.answer
        since = prompt - self.told[0], answer - self.told[1]
        self.told, self.told_at = (prompt, answer), time.monotonic()
        return (time.time(), self.request, self.key, self.model, *since, prompt, answer, int(ended))


_current: ContextVar[Count | None] = ContextVar("heteroserve_usage", default=None)


def add(prompt: int = 0, answer: int = 0) -> None:
    """Count tokens of the request that this task answers."""
    if (found := _current.get()) is not None:
        found.prompt += prompt
        found.answer += answer


def count_outputs(engine: Any) -> None:
    """Count what vLLM's engine reads and computes: each prompt once, and of each answer what it has so far."""
    generate = engine.generate

    @functools.wraps(generate)
    async def counted(prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        # A stream's outputs have what is new, others all that there is.
        whole = sampling_params.output_kind.name != "DELTA"
        read, computed = 0, dict[int, int]()
        async with aclosing(generate(prompt, sampling_params, *args, **kwargs)) as outputs:
            async for output in outputs:
                if not read and output.prompt_token_ids:
                    read = len(output.prompt_token_ids)
                    add(prompt=read)
                for one in output.outputs:
                    before = computed.get(one.index, 0) if whole else 0
                    computed[one.index] = len(one.token_ids)
                    add(answer=len(one.token_ids) - before)
                yield output

    engine.generate = counted


def named(headers: list[tuple[bytes, bytes]]) -> Count | None:
    """Whose request it is, as the gateway says; None if it did not come through one."""
    found = dict(headers)  # the gateway sends each once
    if b"heteroserve-key" not in found:
        return None
    key, model = (
        unquote_to_bytes(found.get(name, b"-")).decode(errors="replace")
        for name in (b"heteroserve-key", b"heteroserve-model")
    )
    return Count(found.get(b"x-request-id", b"-").decode("latin-1"), key, model)


class Book:
    """The file of a cell, and what this replica has to write into it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # for what follows
        self._running: set[Count] = set()
        self._rows: list[tuple[Any, ...]] = []
        self._writing = threading.Lock()
        threading.Thread(target=self._write_on, daemon=True).start()

    @contextmanager
    def counted(self, headers: list[tuple[bytes, bytes]]) -> Iterator[None]:
        """Count what the block computes, however it ends."""
        count = named(headers)
        if count is None:
            yield
            return
        count.told_at = time.monotonic()
        with self._lock:
            self._running.add(count)
        token = _current.set(count)
        try:
            yield
        finally:
            _current.reset(token)
            with self._lock:
                self._running.discard(count)
                if count.prompt or count.answer:
                    self._rows.append(count.row(ended=True))

    def write(self) -> None:
        """Write what there is."""
        with self._writing:
            with self._lock:
                late = time.monotonic() - PROGRESS_S
                self._rows += [one.row(ended=False) for one in self._running if one.told_at < late and one.answer]
                rows, self._rows = self._rows, []
            if not rows:
                return
            try:
                with closing(self._open()) as book, book:
                    book.executemany(f"INSERT INTO rows ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                    book.execute("DELETE FROM rows WHERE number <= (SELECT max(number) FROM rows) - ?", (KEPT_ROWS,))
            except (sqlite3.Error, OSError) as fault:
                logger.error("Tokens of %d requests cannot be written to %s: %s", len(rows), self._path, fault)
                with self._lock:
                    self._rows = [*rows, *self._rows][-UNWRITTEN_ROWS:]

    def page(self, asked_for: str) -> bytes:
        """The rows after a number, as JSON; all of them for another epoch than the file's."""
        asked = {name: values[0] for name, values in parse_qs(asked_for).items()}
        self.write()
        with closing(self._open()) as book:
            ((epoch,),) = book.execute("SELECT name FROM epoch")
            after = int(asked.get("after", 0)) if asked.get("epoch") == epoch else 0
            rows = book.execute(
                f"SELECT number, {COLUMNS} FROM rows WHERE number > ? LIMIT {ROWS}", (after,)
            ).fetchall()
        return json.dumps({"epoch": epoch, "rows": rows}).encode()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = not self._path.exists()
        book = sqlite3.connect(self._path, timeout=5)
        book.execute("PRAGMA synchronous = NORMAL")
        if new:
            os.chmod(self._path, 0o600)
            book.execute("PRAGMA journal_mode = WAL")
        # Another replica may be at it as well.
        book.executescript(TABLES)
        if not book.execute("SELECT name FROM epoch").fetchone():
            with book:
                book.execute("INSERT OR IGNORE INTO epoch VALUES (?, 1)", (uuid.uuid4().hex,))
        return book

    def _write_on(self) -> None:
        while True:
            time.sleep(FLUSH_S)
            self.write()
