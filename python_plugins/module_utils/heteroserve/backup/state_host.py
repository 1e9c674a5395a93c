"""The state of a site on a host that lasts, for runs whose own folder does not: taken, read, written, let go.

There it is one file, encrypted, in the format of backups, with the lease of the run that works with it. How a program
is run on that host, and how a file is encrypted, the caller says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import archive, lease
from .manifest import STATE, content_fault, other_inventory

LEASE, SEALED, OLDER = "lease.json", "state.vault", "state-*.vault"
OLDER_KEPT = 10
ASK_EVERY_S = 1.0
# Reads or changes files of one folder at once. ``was`` and ``owner`` say how the lease has to be for that; nothing is
# half-done when it is killed: a file is there as it was, or as it is to be.
PROGRAM = """
import fcntl, glob, json, os, time

def read(name):
    try:
        with open(name) as stream:
            return stream.read()
    except FileNotFoundError:
        return None

def work():
    os.umask(0o077)
    if asked["write"]:
        os.makedirs(asked["folder"], exist_ok=True)
    if not os.path.isdir(asked["folder"]):
        return {"done": True, "lease": None, "age": 0, "sealed": None}
    os.chdir(asked["folder"])
    with open("guard", "a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        lease = read("lease.json")
        age = time.time() - os.stat("lease.json").st_mtime if lease is not None else 0
        told = {"lease": lease, "age": age, "done": True}
        if "was" in asked:
            told["done"] = lease == asked["was"]
        if "owner" in asked:
            told["done"] = lease is not None and json.loads(lease).get("owner") == asked["owner"]
        if told["done"]:
            if asked.get("older") and os.path.exists("state.vault") and not os.path.exists(asked["older"]):
                os.link("state.vault", asked["older"])
                for name in sorted(glob.glob("state-*.vault"))[:-asked["older_kept"]]:
                    os.remove(name)
            for name, text in asked["write"].items():
                with open(name + ".new", "w") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(name + ".new", name)
            if asked.get("free") and lease is not None:
                os.remove("lease.json")
        told["sealed"] = read("state.vault") if asked.get("read") else None
        return told

try:
    answer = work()
except OSError as error:
    answer = {"fault": "%s: %s" % (error.filename or asked["folder"], error.strerror)}
print(json.dumps(answer))
"""


def clock() -> float:
    """Seconds that go on while a machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fault(Exception):
    """One sentence that says why the state host cannot be used."""


@dataclass
class StateHost:
    """The state on a host, for one run."""

    call: Callable[[dict[str, Any]], dict[str, Any]]  # runs PROGRAM there; raises OSError
    seal: Callable[[bytes], str]
    unseal: Callable[[str], bytes | None]  # None: the password is not its
    place: str  # host:folder, for sentences
    folder: str
    runtime: str
    hosts: tuple[str, ...]
    version: str
    lease: lease.Lease
    written: dict[str, str] | None = None  # what is on the host: SHA-256 by path
    now: Callable[[], float] = clock
    heard: float = 0.0  # when the lease was surely this run's
    looked: tuple[Any, ...] = ()
    older: str = ""
    lost: str = ""

    def take(self, tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> str | None:
        """Be the one that works with it; what lies there, encrypted. Raises ``Fault`` if another run does."""
        seen: lease.Lease | None = None
        while True:
            told = self._ask()
            found = lease.read(told["lease"])
            verdict = lease.verdict(found, told["age"], seen)
            if verdict is lease.Verdict.TAKE:
                told = self._ask(was=told["lease"], write={LEASE: self.lease.text()}, read=True)
                if told["done"]:
                    self.heard = self.now()
                    return None if told["sealed"] is None else str(told["sealed"])
                continue
            assert found is not None
            if verdict is lease.Verdict.HELD:
                raise Fault(lease.busy(found, self.place))
            if seen is None:
                tell(f"{self.place}: is the run of {found.who} still at work? Its last word is {told['age']:.0f} s old")
            seen = seen or found
            sleep(ASK_EVERY_S)

    def read(self) -> str | None:
        """What lies there, encrypted, whoever works with it."""
        sealed = self._ask(read=True)["sealed"]
        return None if sealed is None else str(sealed)

    def unpack(self, sealed: str | None, state: Path) -> None:
        """Make the state directory what the host has; where it has nothing yet, leave it. Raises ``Fault``."""
        if sealed is None:
            return
        data = self.unseal(sealed)
        path = f"{self.place}/{SEALED}"
        if data is None:
            raise Fault(f"{path} cannot be opened: backup_password is not its; set the one it was written with")
        try:
            manifest, contents = archive.unpacked(data)
        except archive.BROKEN as error:
            raise Fault(f"{path} is damaged ({error}): put the newest of {OLDER} beside it in its place") from None
        if fault := content_fault(manifest, contents) or other_inventory(manifest, self.runtime, self.hosts):
            raise Fault(f"{path}: {fault}")
        archive.write(manifest, contents, state)
        self.written = {name.removeprefix(STATE): entry.sha256 for name, entry in manifest.files.items()}
        for name, file in archive.files_below(state).items():
            if name not in self.written:
                file.unlink()

    def keep(self, state: Path) -> str:
        """Write what has changed; "" or why that was not possible, or why the lease may be another run's."""
        if self.lost:
            return self.lost
        try:
            if self.now() - self.heard > lease.LEASE_S / 2:
                self._as_owner(write={LEASE: self._again()})
        except Fault as fault:
            if self.now() - self.heard > lease.LEASE_S:
                return str(fault)
        try:
            looked = tuple(
                (name, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_mode)
                for name, path in archive.files_below(state).items()
                for stat in [path.stat()]
            )
            if looked != self.looked and archive.present(state) != (self.written or {}):
                self._write(state)
            self.looked = looked
        except (OSError, Fault) as fault:
            return str(fault)
        return self.lost

    def renew(self) -> None:
        """Say that this run lives. If the host cannot be reached now, it is tried again."""
        try:
            self._as_owner(write={LEASE: self._again()})
        except Fault:
            return

    def free(self) -> None:
        """Let others work with it."""
        try:
            self._as_owner(free=True)
        except Fault:
            return

    def _write(self, state: Path) -> None:
        made = datetime.now(UTC)
        self.older = self.older or f"state-{made:%Y%m%d-%H%M%S}.vault"
        contents = {f"{STATE}{name}": path for name, path in archive.files_below(state).items()}
        manifest, data = archive.described(
            contents, made, version=self.version, runtime=self.runtime, hosts=tuple(sorted(self.hosts))
        )
        files = {SEALED: self.seal(archive.packed(manifest, data)), LEASE: self._again()}
        # What was there before this run stays beside it.
        if self._as_owner(write=files, older=self.older, older_kept=OLDER_KEPT):
            self.written = {name.removeprefix(STATE): entry.sha256 for name, entry in manifest.files.items()}

    def _again(self) -> str:
        self.lease = self.lease.again()
        return self.lease.text()

    def _as_owner(self, **asked: Any) -> bool:
        told = self._ask(owner=self.lease.owner, **asked)
        if told["done"]:
            self.heard = self.now()
        else:
            self.lost = lease.lost(lease.read(told["lease"]), self.place)
        return bool(told["done"])

    def _ask(self, **asked: Any) -> dict[str, Any]:
        try:
            told = self.call({"folder": self.folder, "write": {}, **asked})
        except OSError as error:
            raise Fault(f"the state host {self.place.partition(':')[0]} cannot be reached: {error}") from None
        if told.get("fault"):
            fix = "set state_path to a folder that the account of its connection may write"
            raise Fault(f"{self.place} cannot be used ({told['fault']}): {fix}")
        return told
