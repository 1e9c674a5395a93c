"""The process that keeps the state host up to date while a run lives, and how the run's other processes ask it to.

It is started with the run's lock, waits beside the run, and ends with it. Before a task begins, and before a new secret
leaves the lookup that made it, it is asked whether the state host has all there is.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from .lease import RENEW_S
from .state_host import StateHost

KEEP, FREE, WELL = b"keep", b"free", b"well"
PATIENCE_S = 300.0  # of who asks: the host may be slow to answer


def address(state: Path) -> str:
    """A socket without a file: a state directory's path may be too long for one, and a reset removes it."""
    return "\0heteroserve-" + hashlib.sha256(os.path.realpath(state).encode()).hexdigest()


def listening(state: Path) -> socket.socket:
    """Where the keeper is asked."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address(state))
    listener.listen(128)
    return listener


def is_ours(other: socket.socket) -> bool:
    """Whether the process at the other end is of the same account."""
    _, uid, _ = struct.unpack("3i", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return bool(uid == os.geteuid())


def ask(state: Path, word: bytes = KEEP) -> str | None:
    """Have the state host be up to date; "" if it is, else why not. None if nobody keeps this state directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.settimeout(PATIENCE_S)
        try:
            other.connect(address(state))
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        if not is_ours(other):
            return None
        try:
            other.sendall(word)
            answer = other.recv(65536)
        except OSError as error:
            return f"the process that keeps the state host up to date does not answer ({error}): run this again"
    if not answer:
        return "the process that keeps the state host up to date has ended: run this again"
    return "" if answer == WELL else answer.decode()


def serve(listener: socket.socket, host: StateHost, state: Path, lives: Callable[[], bool], ended: list[int]) -> None:
    """Answer until the run has ended; ``ended`` are files that can be read then."""
    due = time.monotonic() + RENEW_S
    while lives():
        waited_s = max(0.0, min(1.0, due - time.monotonic()))
        ready, _, _ = select.select([listener.fileno(), *ended], [], [], waited_s)
        if listener.fileno() in ready:
            with listener.accept()[0] as other:
                if is_ours(other) and _answer(other, host, state) == FREE:
                    return
        if time.monotonic() >= due:
            host.renew()
            due = time.monotonic() + RENEW_S
    host.free()


def _answer(other: socket.socket, host: StateHost, state: Path) -> bytes:
    """Do what is asked, and say how it went; what it was."""
    try:
        other.settimeout(5)
        word = other.recv(16)
        fault = host.keep(state)
        if word == FREE:
            host.free()
        other.sendall(fault.encode() or WELL)
    except OSError:  # who asked is gone
        return b""
    return word
