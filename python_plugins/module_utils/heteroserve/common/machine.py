"""All reading of a host: files, folders and commands, behind one small class so that tests can replay a capture.

Nothing here raises for a file that is missing or a tool that is broken, missing or hanging: the result says so.
A replay is a folder with the files at their paths and ``capture.json`` beside them::

    {"uid": 0, "source_addresses": {"10.1.0.2": "10.1.0.1"},
     "commands": {"nvidia-smi -L": {"code": 0, "stdout": "...", "stderr": ""}, "nvidia-smi topo -m": {"hang": true}}}

A command that the capture does not name is one that the host does not have.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

CAPTURE = "capture.json"
# A login shell's PATH often lacks the sbin folders and ROCm's.
SEARCH = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin", "/opt/rocm/bin")


@dataclass(frozen=True)
class CommandResult:
    """What became of a command; ``fault`` says why there is no exit code."""

    command: tuple[str, ...]
    code: int | None = None
    stdout: str = ""
    stderr: str = ""
    fault: str | None = None  # "missing" | "timeout" | "refused"
    seconds: float = 0.0  # the time-out, where that was the fault

    @property
    def ok(self) -> bool:
        """It ran and exited with 0."""
        return self.code == 0

    @property
    def text(self) -> str:
        """Both streams, because tools disagree about where their errors go."""
        return "\n".join(part for part in (self.stdout.strip(), self.stderr.strip()) if part)

    def explain(self) -> str:
        """One clause for an operator: why the output cannot be used."""
        tool = self.command[0]
        if self.fault == "timeout":
            return f"{tool} did not answer within {self.seconds:g} s"
        if self.fault:
            return f"{tool} is {'not installed' if self.fault == 'missing' else 'not allowed to run'}"
        first = next((line.strip() for line in self.text.splitlines() if line.strip()), "no output")
        return f"{tool} exited with {self.code}: {first[:200]}"


@dataclass(frozen=True)
class Machine:
    """A host to look at: the running one, or a capture of one under ``root``. ``timeout`` is seconds a command."""

    root: str = "/"
    timeout: float = 30.0
    capture: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """This is the running host, not a capture."""
        return self.root == "/"

    @property
    def is_root(self) -> bool:
        """Probes may use what only root can read."""
        return (os.geteuid() if self.live else int(self.capture.get("uid", 0))) == 0

    def read(self, path: str) -> str | None:
        """Text of a file without surrounding white space; None where it cannot be read."""
        data = self.read_bytes(path)
        return None if data is None else data.decode("utf-8", errors="replace").strip()

    def read_bytes(self, path: str) -> bytes | None:
        """Content of a file; None where it cannot be read (sysfs answers EINVAL for a speed without a link)."""
        try:
            return self._at(path).read_bytes()
        except OSError:
            return None

    def read_int(self, path: str, base: int = 10) -> int | None:
        """A number from a file; base 0 takes a leading 0x. None where it is no number."""
        try:
            return int(self.read(path) or "", base)
        except ValueError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; none where it cannot be read."""
        try:
            return tuple(sorted(os.listdir(self._at(path))))
        except OSError:
            return ()

    def exists(self, path: str) -> bool:
        """Something is at ``path`` (links are followed)."""
        return os.path.exists(self._at(path))

    def link_name(self, path: str) -> str | None:
        """Last part of a symbolic link's target: sysfs names drivers that way."""
        try:
            return PurePosixPath(os.readlink(self._at(path))).name
        except OSError:
            return None

    def resolve(self, path: str) -> str:
        """``path`` with its links followed, as the host sees it."""
        real = os.path.realpath(self._at(path))
        if self.live:
            return real
        top = os.path.realpath(self.root)
        return "/" + os.path.relpath(real, top) if real.startswith(top) else real

    def run(self, *command: str, timeout: float | None = None) -> CommandResult:
        """Run a command with a time-out. Its whole process group is killed when it is over."""
        limit = min(timeout or self.timeout, self.timeout)
        if not self.live:
            return self._replay(command, limit)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
            )
        except FileNotFoundError:
            return CommandResult(command, fault="missing")
        except OSError:
            return CommandResult(command, fault="refused")
        try:
            stdout, stderr = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _abandon(process)
            return CommandResult(command, fault="timeout", seconds=limit)
        return CommandResult(command, process.returncode, _text(stdout), _text(stderr))

    def source_address(self, remote: str) -> str | None:
        """The own address that packets to ``remote`` would carry. Connecting a UDP socket sends nothing."""
        if not self.live:
            found = self.capture.get("source_addresses", {}).get(remote)
            return None if found is None else str(found)
        family = socket.AF_INET6 if ":" in remote else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((remote, 9))
                return str(probe.getsockname()[0])
        except OSError:
            return None

    def _at(self, path: str) -> Path:
        return Path(path) if self.live else Path(self.root, path.lstrip("/"))

    def _replay(self, command: tuple[str, ...], limit: float) -> CommandResult:
        found = self.capture.get("commands", {}).get(" ".join(command))
        if found is None:
            return CommandResult(command, fault="missing")
        if found.get("hang"):
            return CommandResult(command, fault="timeout", seconds=limit)
        return CommandResult(command, int(found.get("code", 0)), found.get("stdout", ""), found.get("stderr", ""))


def open_machine(root: str = "/", timeout: float = 30.0) -> Machine:
    """The running host, or the capture under ``root``. Raises ``ValueError`` for a root that holds no capture."""
    if root == "/":
        return Machine(timeout=timeout)
    path = Path(root, CAPTURE)
    try:
        capture = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ValueError(f"{path}: no capture of a machine can be read there: {fault}") from fault
    return Machine(root=str(Path(root)), timeout=timeout, capture=capture)


def _environment() -> dict[str, str]:
    """The caller's, but with English and undecorated output, and with the folders where administrators' tools are."""
    known = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join([*filter(None, known), *(folder for folder in SEARCH if folder not in known)])
    return {**os.environ, "PATH": path, "LC_ALL": "C", "TERM": "dumb"}


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and its children, and wait no more than a second: one stuck in the kernel cannot be reaped."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    try:
        process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
