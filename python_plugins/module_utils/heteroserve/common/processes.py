"""Find and end the processes that belong to one installation, or one unit of it, however they were orphaned.

Ray detaches what it starts, and the workers of a raylet that was killed are adopted by init, so neither a
process group nor a parent id finds them all. Two marks do: an environment variable that every descendant
inherits, and the session in which the unit was started (a process that rewrites its title may lose the first,
never the second). What starts a unit must give it a session of its own.
"""

from __future__ import annotations

import os
import pwd
import signal
import time
from dataclasses import dataclass
from pathlib import Path

# One cell of one installation: the cell's folder in the state directory. Another installation, of this user or of
# another one, may have a cell of the same name.
UNIT = "HETEROSERVE_UNIT"
# All that was started for one state directory: its real path. Set for supervisord alone, which hands it on.
INSTALLATION = "HETEROSERVE_INSTALLATION"
LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


@dataclass(frozen=True)
class Process:
    """A running process that the caller may look into."""

    pid: int
    session: int
    name: str
    environment: frozenset[bytes]


def running(proc: Path = Path("/proc")) -> list[Process]:
    """All processes but zombies. Those of other users have an empty environment."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            head, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:  # ended meanwhile
            continue
        fields = rest.split()
        if fields[0] == "Z":
            continue
        try:
            environment = frozenset((entry / "environ").read_bytes().split(b"\0"))
        except OSError:
            environment = frozenset()
        found.append(Process(int(entry.name), int(fields[3]), head.partition("(")[2], environment))
    return found


def members(variable: str, value: str, processes: list[Process] | None = None) -> dict[int, str]:
    """Process ids and names of all that carry ``variable=value``, and of all in their sessions.

    The caller's own session is left out: whoever asks is not what it asks for.
    """
    mark = f"{variable}={value}".encode()
    processes = running() if processes is None else processes
    own = os.getsid(0)
    sessions = {process.session for process in processes if mark in process.environment} - {own}
    return {process.pid: process.name for process in processes if process.session in sessions}


def end(variable: str, value: str, grace_s: float = 10.0) -> int:
    """End all members: SIGTERM, then SIGKILL after ``grace_s`` seconds. Returns how many there were."""
    found = members(variable, value)
    total = len(found)
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while found and time.monotonic() < deadline:
        time.sleep(0.2)
        found = members(variable, value)
    while found:
        _signal(found, signal.SIGKILL)
        time.sleep(0.1)
        found = members(variable, value)
    return total


def _signal(pids: dict[int, str], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@dataclass(frozen=True)
class Listener:
    """A socket that listens (TCP): its inode, and the user whose it is."""

    inode: int
    uid: int


def listeners(proc: Path = Path("/proc")) -> dict[int, Listener]:
    """Ports that something listens on (TCP, any address)."""
    found = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN:
                found[int(fields[1].rpartition(":")[2], 16)] = Listener(int(fields[9]), int(fields[7]))
    return found


def owner_of(inode: int, proc: Path = Path("/proc")) -> int | None:
    """The process that holds a socket; None if it is another user's."""
    wanted = f"socket:[{inode}]"
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if any(os.readlink(link) == wanted for link in (entry / "fd").iterdir()):
                return int(entry.name)
        except OSError:
            continue
    return None


def installation_of(pid: int, processes: list[Process]) -> str | None:
    """The state directory for which a process was started, by its own mark or by that of another in its session."""
    session = next((process.session for process in processes if process.pid == pid), None)
    marks = {mark for process in processes if process.session == session for mark in process.environment}
    found = sorted(mark for mark in marks if mark.startswith(f"{INSTALLATION}=".encode()))
    return os.fsdecode(found[0].partition(b"=")[2]) if session is not None and found else None


def user_name(uid: int) -> str:
    """A user's name; the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"id {uid}"


def taken_ports(ports: list[int], installation: str) -> dict[int, str]:
    """Those of ``ports`` on which a process listens that is not of this installation, with who it is."""
    open_ports = listeners()
    busy = {port: open_ports[port] for port in ports if port in open_ports}
    if not busy:
        return {}
    processes = running()
    ours = members(INSTALLATION, installation, processes)
    names = {process.pid: process.name for process in processes}
    taken = {}
    for port, listener in busy.items():
        pid = owner_of(listener.inode)
        if pid is None:
            taken[port] = f"a process of user {user_name(listener.uid)}"
        elif pid not in ours:
            other = installation_of(pid, processes)
            process = f"process {pid} ({names.get(pid, 'ended meanwhile')})"
            taken[port] = f"the installation in {other}" if other else process
    return taken


def clashes(taken: dict[int, str]) -> list[str]:
    """ "ports 18001 and 18003 are used by OWNER" for each owner of ``taken_ports``."""
    owners: dict[str, list[int]] = {}
    for port, owner in sorted(taken.items()):
        owners.setdefault(owner, []).append(port)
    return [
        f"port {ports[0]} is used by {owner}"
        if len(ports) == 1
        else f"ports {', '.join(map(str, ports[:-1]))} and {ports[-1]} are used by {owner}"
        for owner, ports in owners.items()
    ]
