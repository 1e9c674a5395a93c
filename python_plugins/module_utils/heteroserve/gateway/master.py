"""HAProxy asked and told things on its master's socket, which also reaches workers that a reload left behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

from . import haproxy

ANSWER_S = 10.0  # for one answer of HAProxy
START_S = 10.0  # for HAProxy to take connections, and for a worker to be there while it reloads its configuration
POLL_S = 0.3


class NotRunningError(Exception):
    """Nobody listens on the socket."""


class Gateway:
    """HAProxy behind its master's socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """The answer to one command; empty if the worker that it is for has ended."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(ANSWER_S)
                    connection.connect(self.path)
                    connection.sendall(f"{command}\n".encode())
                    connection.shutdown(socket.SHUT_WR)
                    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            except FileNotFoundError as error:
                raise NotRunningError from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise NotRunningError from error
                time.sleep(POLL_S)

    def workers(self) -> tuple[int, ...]:
        """The present worker, then older ones that still have requests."""
        deadline = time.monotonic() + START_S
        while not (found := haproxy.workers(self.ask("show proc"))):
            if time.monotonic() > deadline:
                raise NotRunningError
            time.sleep(POLL_S)
        return found

    def servers(self) -> dict[str, haproxy.Server]:
        """The servers of the present worker."""
        deadline = time.monotonic() + START_S
        while not (found := haproxy.servers(self.ask(f"@!{self.workers()[0]} show servers state"))):
            if time.monotonic() > deadline:
                return {}
            time.sleep(POLL_S)
        return found

    def look(self) -> dict[str, haproxy.Cell]:
        """The cells now."""
        deadline = time.monotonic() + START_S
        while True:
            running = [haproxy.sessions(self.ask(f"@!{worker} show stat")) for worker in self.workers()]
            # A worker that did not answer has ended, and is not there next time; or it has not, and may have requests.
            if all(running):
                return haproxy.cells(self.servers(), running)
            if time.monotonic() > deadline:
                raise NotRunningError
            time.sleep(POLL_S)

    def set(self, servers: Iterable[haproxy.Server], state: str) -> None:
        """Set the state in every worker: one that a reload left behind may have clients that ask again."""
        for worker in self.workers():
            for server in servers:
                self.ask(f"@!{worker} set server {server.backend}/{server.name} state {state}")

    def switch(self, names: list[str], state: str, keep: Callable[[dict[str, haproxy.Server]], None]) -> bool:
        """Drain cells ("drain") or put them back ("ready"); whether HAProxy did it.

        What it is told next time it starts is kept first: a worker that is started meanwhile knows it, too.
        """
        drained = state == "drain"
        known = haproxy.with_state(self.servers(), names, drained)
        keep(known)
        deadline = time.monotonic() + START_S
        while True:
            self.set([known[name] for name in names if name in known], state)
            now = self.servers()
            if all(now[name].drained == drained for name in names if name in now):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
