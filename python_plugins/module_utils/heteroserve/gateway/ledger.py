"""The ledger: what each key used of each model on each day, in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .usage import Page, Use, summed

KEPT_DAYS = 400
SUMS = "sum(requests), sum(prompt), sum(answer)"
TABLES = """
    CREATE TABLE IF NOT EXISTS usage (
        day TEXT, key TEXT, model TEXT, requests INTEGER, prompt INTEGER, answer INTEGER,
        PRIMARY KEY (day, key, model));
    CREATE TABLE IF NOT EXISTS read_to (epoch TEXT PRIMARY KEY, number INTEGER);
"""


def read(path: Path, first_day: str) -> list[Use]:
    """Days from one on, of a ledger that another process may keep."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as file:
        rows = file.execute("SELECT * FROM usage WHERE day >= ? ORDER BY day, key, model", (first_day,)).fetchall()
    return [Use(*row) for row in rows]


class Ledger:
    """The file. A cell's rows and how far they were read are written together: none is lost, and none counts twice."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, timeout=10, check_same_thread=False)
        self._file.executescript(TABLES)
        path.chmod(0o600)

    @contextmanager
    def _at(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._file:
            yield self._file

    def read_to(self, epoch: str) -> int:
        """The last row that was read of a cell's file."""
        with self._at() as file:
            found = file.execute("SELECT number FROM read_to WHERE epoch = ?", (epoch,)).fetchone()
        return int(found[0]) if found else 0

    def add(self, page: Page) -> None:
        """Count the rows that were not counted before."""
        with self._at() as file:
            found = file.execute("SELECT number FROM read_to WHERE epoch = ?", (page.epoch,)).fetchone()
            rows = [row for row in page.rows if row.number > (found[0] if found else 0)]
            if not rows:
                return
            file.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, key, model) DO UPDATE SET"
                " requests = requests + excluded.requests, prompt = prompt + excluded.prompt,"
                " answer = answer + excluded.answer",
                [
                    (use.day, use.key, use.model, use.requests, use.prompt_tokens, use.completion_tokens)
                    for use in summed(rows)
                ],
            )
            file.execute("INSERT OR REPLACE INTO read_to VALUES (?, ?)", (page.epoch, max(row.number for row in rows)))

    def used(self, first_day: str) -> list[Use]:
        """Days from one on."""
        with self._at() as file:
            rows = file.execute("SELECT * FROM usage WHERE day >= ? ORDER BY day, key, model", (first_day,)).fetchall()
        return [Use(*row) for row in rows]

    def total(self) -> list[Use]:
        """All days together, whose ``day`` is empty."""
        with self._at() as file:
            rows = file.execute(
                f"SELECT '', key, model, {SUMS} FROM usage GROUP BY key, model ORDER BY key, model"
            ).fetchall()
        return [Use(*row) for row in rows]

    def forget(self, before: str) -> None:
        """Add days before one together, so that sums stay."""
        with self._at() as file:
            old = file.execute(
                f"SELECT '', key, model, {SUMS} FROM usage WHERE day < ? GROUP BY key, model", (before,)
            ).fetchall()
            file.execute("DELETE FROM usage WHERE day < ?", (before,))
            file.executemany("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?)", old)
