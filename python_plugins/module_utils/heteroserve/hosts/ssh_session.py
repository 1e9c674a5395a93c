"""The SSH connection by which Ansible works on this host, found although sudo hides it from its children."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = b"SSH_CONNECTION="


@dataclass(frozen=True)
class Session:
    """Both ends: who is connected, and the port that it came in by."""

    client: str
    port: int


def session(pid: int | None = None, proc: Path = Path("/proc")) -> Session | None:
    """The connection of the nearest parent that has one; None where Ansible works on this host itself."""
    current = os.getpid() if pid is None else pid
    while current > 1:
        try:
            environment = (proc / str(current) / "environ").read_bytes().split(b"\0")
            parent = int((proc / str(current) / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
        for variable in environment:
            if variable.startswith(VARIABLE):
                return parse(variable.removeprefix(VARIABLE).decode(errors="replace"))
        current = parent
    return None


def parse(text: str) -> Session | None:
    """The variable's value: client's address and port, server's address and port."""
    fields = text.split()
    if len(fields) != 4 or not fields[3].isdigit():
        return None
    return Session(fields[0].removeprefix("::ffff:").partition("%")[0], int(fields[3]))
