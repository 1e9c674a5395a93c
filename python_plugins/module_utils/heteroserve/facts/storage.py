"""The file system that holds the models. Everything that may touch a dead NFS mount runs in a child with a time-out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..common.machine import Machine
from .findings import Findings
from .hardware import Disk, Problem

MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo; ``device`` is the number major:minor."""

    device: str
    point: str
    kind: str
    source: str


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Mounts in order; a later one hides an earlier one at the same place. Octal escapes stand for white space."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        head, tail = left.split(), right.split()
        if len(head) >= 5 and len(tail) >= 2:
            found.append(Mount(head[2], _plain(head[4]), tail[0], _plain(tail[1])))
    return tuple(found)


def mount_of(path: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """The mount with the longest point above ``path``; the last of equals."""
    best = None
    for mount in mounts:
        if PurePosixPath(path).is_relative_to(mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def parse_statfs(text: str) -> tuple[int, int] | None:
    """Total and free bytes of ``stat -f -c '%S %b %a'``; free is what others than root may take."""
    found = re.fullmatch(r"(\d+) (\d+) (\d+)", text.strip())
    return (int(found[1]) * int(found[2]), int(found[1]) * int(found[3])) if found else None


def probe_disk(machine: Machine, path: str) -> Findings[tuple[Disk, ...]]:
    """The disk under ``path``, or under the nearest folder above it that exists."""
    path = str(PurePosixPath("/", path))
    for candidate in (PurePosixPath(path), *PurePosixPath(path).parents):
        result = machine.run("stat", "-f", "-c", "%S %b %a", "--", str(candidate), timeout=5)
        if result.fault == "timeout":
            text = f"the file system of {candidate} does not answer within {result.seconds:g} s"
            problem = Problem("disk-timeout", text, "look at its mount (a dead NFS server?)")
            return Findings((), (problem,), {"disks": "none: time-out"})
        if result.fault:
            return Findings((), (Problem("disk-unknown", result.explain(), "install coreutils"),))
        if result.ok and (sizes := parse_statfs(result.stdout)):
            return _disk(machine, path, *sizes)
    return Findings(())


def _disk(machine: Machine, path: str, total: int, free: int) -> Findings[tuple[Disk, ...]]:
    mount = mount_of(path, parse_mountinfo(machine.read(MOUNTS) or ""))
    kind = _kind(machine, _block(machine, mount)) if mount else None
    disk = Disk(path, total, free, mount.source if mount else None, kind)
    return Findings((disk,), sources={"disks": f"statfs and {MOUNTS}"})


def _block(machine: Machine, mount: Mount) -> str | None:
    """sysfs folder of the device; file systems with a number of their own (btrfs) name it in the source."""
    for path in (f"/sys/dev/block/{mount.device}", f"/sys/class/block/{PurePosixPath(mount.source).name}"):
        if machine.exists(path):
            return machine.resolve(path)
    return None


def _kind(machine: Machine, block: str | None) -> str | None:
    """ "nvme", "ssd" or "hdd" of the disk below partitions, LVM, encryption and RAID; None for the network."""
    if block is None:
        return None
    below = machine.names(f"{block}/slaves")
    if below:
        return _kind(machine, machine.resolve(f"{block}/slaves/{below[0]}"))
    disk = str(PurePosixPath(block).parent) if machine.exists(f"{block}/partition") else block
    name = PurePosixPath(disk).name
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith("vd"):
        return None  # virtio calls every disk rotational unless its host says otherwise
    return {0: "ssd", 1: "hdd"}.get(machine.read_int(f"{disk}/queue/rotational") or 0)


def _plain(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text)
