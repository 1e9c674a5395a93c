"""Keeps the access log and the ledger beside a gateway: ``python3 -m heteroserve.gateway.bookkeeper CONFIG.json``.

Reads the lines that HAProxy writes into a pipe, collects from all cells what each key has used, and tells HAProxy which
keys have used up their tokens of the day. Requests do not need it: while it is away, HAProxy goes on with what it was
told, lines wait in the pipe, and cells keep their counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socketserver
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs

from ..common.files import write_whole
from ..common.web import open_own
from . import usage
from .access_log import Rotated, Waiting
from .ledger import KEPT_DAYS, Ledger
from .master import Gateway, NotRunningError

READ_S = 0.1  # between two looks into the pipe
PIPE_BYTES = 1 << 20  # as much as the kernel lets everyone have: half a second of 5,000 requests a second
COLLECT_S = 1.0
CELL_S = 3.0  # that a cell may take to tell its rows
AGREE_S = 5.0  # between two comparisons of HAProxy's map with the file
PAGES = 100  # of one cell in one round


def say(text: str) -> None:
    """A line for the journal, or the supervisor's log."""
    print(text, flush=True)


class Settings:
    """The configuration, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0
        self.given: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Read it, if it is another one."""
        if (now := self._path.stat().st_mtime_ns) != self._seen:
            self.given, self._seen = json.loads(self._path.read_text()), now


class Log:
    """From the pipe to the file."""

    def __init__(self, pipe: Path, path: Path, longest: int, kept: int) -> None:
        if not pipe.exists():
            os.mkfifo(pipe, 0o600)
        if not stat.S_ISFIFO(pipe.stat().st_mode):
            raise SystemExit(f"{pipe} is no pipe: remove it, and restart the gateway")
        # Also for writing: so it has no end while HAProxy restarts.
        self._pipe = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self._pipe, 1031, PIPE_BYTES)  # F_SETPIPE_SZ, which Python 3.9 has no name for
        except OSError as fault:
            say(f"the pipe of the access log stays small, and lines may be lost under load: {fault}")
        self._file = Rotated(path, longest, kept)
        self._waiting = Waiting()
        self._lock = threading.Lock()

    def look(self, counted: bool) -> None:
        """Take what is in the pipe, and write what need not wait."""
        read = b""
        with contextlib.suppress(BlockingIOError):
            read = os.read(self._pipe, PIPE_BYTES)
        now = time.monotonic()
        with self._lock:
            self._waiting.come(read, now, counted)
            self._file.moved()
            self._file.write(self._waiting.go(now))

    def told(self, rows: tuple[usage.Row, ...]) -> None:
        """Tokens of requests."""
        now = time.monotonic()
        with self._lock:
            for row in rows:
                if row.ended:
                    self._waiting.told(row.request, row.all_prompt, row.all_answer, now)

    def end(self) -> None:
        """Write all there is."""
        self.look(False)
        self._file.write(self._waiting.go(float("inf")))


class Cells:
    """What cells tell."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._epochs: dict[str, str] = {}
        self._read_at: dict[str, float] = {}
        self._silent: dict[str, str] = {}  # why nothing is known of a cell's tokens
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(16)

    def collect(self, cells: dict[str, str], told: Callable[[tuple[usage.Row, ...]], None]) -> None:
        """Read all of them at once."""
        list(self._pool.map(lambda name: self._read(name, cells[name], told), cells))

    def _read(self, cell: str, address: str, told: Callable[[tuple[usage.Row, ...]], None]) -> None:
        try:
            for _ in range(PAGES):
                page = self._page(cell, address)
                self._ledger.add(page)
                told(page.rows)
                self._epochs[cell] = page.epoch
                if not page.rows:
                    break
            self._read_at[cell] = time.monotonic()
            if self._silent.pop(cell, None):
                say(f"{cell}: tells its tokens again")
        except (OSError, ValueError, HTTPException) as fault:
            why = "does not tell its tokens"
            if isinstance(fault, HTTPError) and fault.code == 404:
                why = "counts no tokens"
            if self._silent.get(cell) != why:
                say(f"{cell}: {why} ({fault})")
            self._silent[cell] = why

    def _page(self, cell: str, address: str) -> usage.Page:
        epoch = self._epochs.get(cell, "")
        after = self._ledger.read_to(epoch) if epoch else 0
        with open_own(f"http://{address}/usage?epoch={epoch}&after={after}", CELL_S) as response:
            return usage.read_page(response.read())

    def counted(self) -> bool:
        """Whether any tells tokens."""
        return bool(self._read_at)

    def behind(self, cells: dict[str, str]) -> dict[str, float]:
        """Seconds since each was read."""
        now = time.monotonic()
        return {name: now - self._read_at.get(name, self._began) for name in cells}


class Limits:
    """HAProxy's list of keys that have used up their tokens."""

    def __init__(self, path: Path, master: str) -> None:
        self._path, self._gateway = path, Gateway(master)
        self._agreed = 0.0

    def set(self, wanted: dict[str, int]) -> None:
        """First on disk, for a worker that starts meanwhile; then in every worker."""
        text = usage.map_text(wanted)
        new = not self._path.exists() or self._path.read_text() != text
        if new:
            write_whole(self._path, text)
        if not new and time.monotonic() - self._agreed < AGREE_S:
            return
        self._agreed = time.monotonic()
        try:
            for worker in self._gateway.workers():
                shown = self._gateway.ask(f"@!{worker} show map {self._path}")
                for command in usage.map_commands(shown, str(self._path), wanted):
                    self._gateway.ask(f"@!{worker} {command}")
        except NotRunningError:
            self._agreed = 0.0


class Bookkeeper:
    """All of it."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(path)
        given = self.settings.given
        self.ledger = Ledger(Path(given["ledger"]))
        self.cells = Cells(self.ledger)
        self.limits = Limits(Path(given["over"]), given["master"])
        log = given["log"]
        self.log = Log(Path(log["pipe"]), Path(log["path"]), log["bytes"], log["files"]) if log else None
        self.forgot = ""

    def collect(self) -> None:
        """One round."""
        self.settings.look()
        given, now = self.settings.given, time.time()
        self.cells.collect(given["cells"], self.log.told if self.log else lambda rows: None)
        today = usage.day_of(now)
        self.limits.set(usage.over(self.ledger.used(today), given["keys"], now))
        if self.forgot != today:
            self.ledger.forget(usage.day_of(now - KEPT_DAYS * usage.DAY_S))
            self.forgot = today

    def page(self, path: str, query: str) -> str | None:
        """What HAProxy's operators' port shows below /usage."""
        given, now = self.settings.given, time.time()
        behind = self.cells.behind(given["cells"])
        if path == "/usage/metrics":
            day = usage.day_of(now)
            today = usage.on_day(self.ledger.used(day), day)
            return usage.metrics(self.ledger.total(), given["keys"], today, behind)
        if path == "/usage":
            days = int(parse_qs(query).get("days", ["7"])[0])
            return usage.as_json(self.ledger.used(usage.day_of(now - (days - 1) * usage.DAY_S)), behind)
        return None


def serve(socket: Path, page: Callable[[str, str], str | None]) -> None:
    """Answer GET on a socket, in the background."""

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            try:
                text, status = page(path, query), 200
            except ValueError as fault:
                text, status = f"{fault}\n", 400
            body = (text or "").encode()
            self.send_response(404 if text is None else status)
            kind = "application/json" if path == "/usage" and status == 200 else "text/plain; version=0.0.4"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Reads of Prometheus are no news."""

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        """In a thread each."""

        daemon_threads = True

    socket.unlink(missing_ok=True)
    server = Server(str(socket), Handler)
    socket.chmod(0o600)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def every(seconds: float, act: Callable[[], None], stop: threading.Event) -> None:
    """Do something again and again. What goes wrong is said, and tried again next time."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            act()
        except Exception:
            say(traceback.format_exc(limit=3))
        stop.wait(max(seconds / 5, seconds - (time.monotonic() - began)))


def main() -> None:
    """Entry point."""
    keeper, stop = Bookkeeper(Path(sys.argv[1])), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(Path(keeper.settings.given["socket"]), keeper.page)
    collecting = threading.Thread(target=every, args=(COLLECT_S, keeper.collect, stop))
    collecting.start()
    if keeper.log:
        log = keeper.log
        every(READ_S, lambda: log.look(keeper.cells.counted()), stop)
        log.end()
    collecting.join()


if __name__ == "__main__":
    main()
