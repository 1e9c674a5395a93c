"""What the processes of this host may use of it: CPU affinity and cpusets, and the limits of control groups, v1 and v2.

Cells are started by the user that the facts are read as, so what holds for this process holds for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..common.machine import Machine

STATUS, CGROUPS, MOUNTS = "/proc/self/status", "/proc/self/cgroup", "/proc/self/mountinfo"
NODES = "/sys/devices/system/node"


@dataclass(frozen=True)
class Allowance:
    """None where nothing is limited. ``memory`` is bytes, ``quota`` is CPUs' worth of time."""

    cpus: frozenset[int] | None = None
    nodes: frozenset[int] | None = None  # that memory may come from
    quota: float | None = None
    memory: int | None = None
    memory_free: int | None = None  # of ``memory``


def parse_ids(text: str) -> frozenset[int]:
    """Ids of a list as the kernel prints it: "0-3,8"."""
    ids: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        ids.update(range(int(first), int(last or first) + 1))
    return frozenset(ids)


def parse_allowed(status: str, kind: str) -> frozenset[int] | None:
    """``Cpus_allowed_list`` or ``Mems_allowed_list`` of /proc/self/status, in which affinity and cpusets are."""
    found = re.search(rf"^{kind}_allowed_list:\s*([\d,-]+)$", status, re.MULTILINE)
    return parse_ids(found[1]) if found else None


def cgroup_folders(cgroups: str, mounts: str) -> dict[str, list[str]]:
    """Folders that limit this process, from its own up to the root that it can see, by controller ("" is v2's)."""
    found: dict[str, list[str]] = {}
    roots = list(_roots(mounts))
    for line in cgroups.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        for name in parts[1].split(","):
            for controllers, root, point in roots:
                if name in controllers:
                    found[name] = _chain(parts[2], root, point)
    return found


def probe_allowance(machine: Machine) -> Allowance:
    """The limits of this process."""
    status = machine.read(STATUS) or ""
    folders = cgroup_folders(machine.read(CGROUPS) or "", machine.read(MOUNTS) or "")
    unified, memory, cpu = (folders.get(name, []) for name in ("", "memory", "cpu"))
    quotas = [_quota(machine.read(f"{folder}/cpu.max") or "") for folder in unified]
    quotas += [
        _quota(f"{machine.read(f'{folder}/cpu.cfs_quota_us')} {machine.read(f'{folder}/cpu.cfs_period_us')}")
        for folder in cpu
    ]
    limits = [
        _memory(machine, folder, name, "memory.current", "inactive_file")
        for folder in unified
        for name in ("memory.max", "memory.high")
    ]
    limits += [
        _memory(machine, folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for folder in memory
    ]
    known = [limit for limit in limits if limit is not None]
    return Allowance(
        cpus=parse_allowed(status, "Cpus"),
        nodes=parse_allowed(status, "Mems"),
        quota=min((quota for quota in quotas if quota), default=None),
        memory=min((limit for limit, _ in known), default=None),
        memory_free=min((free for _, free in known), default=None),
    )


def node_memory(machine: Machine, nodes: frozenset[int] | None) -> int | None:
    """Bytes of the memory nodes that may be used; None where that is all of them."""
    every = {int(name[4:]) for name in machine.names(NODES) if re.fullmatch(r"node\d+", name)}
    if nodes is None or every <= nodes or not every & nodes:
        return None
    pages = (machine.read(f"{NODES}/node{node}/meminfo") or "" for node in sorted(every & nodes))
    sizes = [re.search(r"MemTotal:\s+(\d+) kB", page) for page in pages]
    return sum(int(size[1]) for size in sizes if size) * 1024 or None


def _roots(mounts: str) -> Iterator[tuple[list[str], str, str]]:
    """Controllers, root and mount point of each hierarchy."""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        head, tail = left.split(), right.split()
        if len(head) >= 5 and tail and tail[0] == "cgroup2":
            yield [""], head[3], head[4]
        elif len(head) >= 5 and len(tail) >= 3 and tail[0] == "cgroup":
            yield tail[2].split(","), head[3], head[4]


def _chain(path: str, root: str, point: str) -> list[str]:
    """A container may see its own group as the root, or the host's path of a group that is mounted elsewhere."""
    own = PurePosixPath(path)
    inside = own.relative_to(root) if own.is_relative_to(root) and ".." not in own.parts else PurePosixPath()
    folder = PurePosixPath(point, str(inside).lstrip("/"))
    chain = [folder, *folder.parents]
    return [str(one) for one in chain if one.is_relative_to(point)]


def _quota(text: str) -> float | None:
    found = re.fullmatch(r"(\d+)\s+(\d+)", text.strip())
    return int(found[1]) / int(found[2]) if found and int(found[1]) and int(found[2]) else None


def _memory(machine: Machine, folder: str, limit: str, used: str, cache: str) -> tuple[int, int] | None:
    """A group's limit and what is left of it; page cache that can be dropped counts as left. v1 has 2^63 for none."""
    most = machine.read_int(f"{folder}/{limit}")
    if most is None or most >= 1 << 60:
        return None
    dropped = re.search(rf"^{cache} (\d+)$", machine.read(f"{folder}/memory.stat") or "", re.MULTILINE)
    taken = (machine.read_int(f"{folder}/{used}") or 0) - (int(dropped[1]) if dropped else 0)
    return most, max(0, most - max(0, taken))


def cores_of(quota: float) -> int:
    """Cores that can work at once within a quota of time."""
    return max(1, math.floor(quota))
