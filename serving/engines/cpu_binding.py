"""Which cores a CPU replica computes on.

The plan says how many cores a replica has, on which NUMA node, and where they begin there. Which CPU ids these are,
only the host knows: on some machines ids alternate between nodes, and a core has one hardware thread or two. Left alone
(``VLLM_CPU_OMP_THREADS_BIND=auto``) vLLM takes the first NUMA node that the process may use, so all replicas of a host
would share it and the other sockets would idle. That holds in pods too: unless the kubelet's CPU manager has the policy
``static``, a pod may use all CPUs of its host, and with it those that no pod has for itself.

vLLM 0.29 reads the ids in ``vllm/utils/ompmultiprocessing.py``. It takes its memory from the node of the first one
(``vllm/v1/worker/cpu_worker.py``), so the cores of a replica lie on one node where they can.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Core:
    """A physical core of the host."""

    socket: int  # as the kernel numbers it, which may leave numbers out
    node: int  # NUMA node; a socket has one or several
    cpus: tuple[int, ...]  # ids of its hardware threads


@dataclass(frozen=True)
class Share:
    """The cores that the plan gives a replica."""

    cores: int
    node: int | None = None  # NUMA node, counted from 0 among those with CPUs that may be used; None where there is one
    first: int = 0  # the first of them, counted from 0 in the node


def cpu_ids(text: str) -> list[int]:
    """Ids of a list as the kernel prints it: "0-3,8-11" is 0, 1, 2, 3, 8, 9, 10, 11. Empty for an empty list."""
    ids: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            ids.extend(range(int(first), int(last or first) + 1))
    return ids


def read_cores(system: Path = SYSTEM) -> list[Core]:
    """All cores that are online, in the order of nodes and sockets. Raises ``OSError`` where the kernel shows none."""
    nodes = {
        cpu: int(file.parent.name.removeprefix("node"))
        for file in system.glob("node/node[0-9]*/cpulist")
        for cpu in cpu_ids(file.read_text())
    }
    cores = set()
    for cpu in cpu_ids((system / "cpu" / "online").read_text()):
        topology = system / "cpu" / f"cpu{cpu}" / "topology"
        socket = int((topology / "physical_package_id").read_text())
        threads = tuple(cpu_ids((topology / "thread_siblings_list").read_text()))
        cores.add(Core(socket, nodes.get(cpu, 0), threads))
    return sorted(cores, key=lambda core: (core.node, core.socket, core.cpus))


def own_cores(cores: Iterable[Core], allowed: Collection[int], share: Share) -> list[tuple[int, ...]]:
    """Hardware threads of each core of a replica, of those that the process may use (``allowed``).

    Cores are counted among the allowed ones: replicas that run in a part of a machine share that part. The result is
    shorter than the share where the machine has less than the plan thinks, and may be empty.
    """
    known = list(cores)
    nodes = sorted({core.node for core in known if not set(core.cpus).isdisjoint(allowed)})
    here = nodes if share.node is None else nodes[share.node : share.node + 1]
    usable = [tuple(cpu for cpu in core.cpus if cpu in allowed) for core in known if core.node in here]
    return [cpus for cpus in usable if cpus][share.first : share.first + share.cores]


def binding(own: list[tuple[int, ...]], share: Share, allowed: Collection[int]) -> dict[str, str]:
    """vLLM's variables: a thread on each core but the last, which its scheduler gets.

    Two threads on one core would compete for its vector units, so each core gives one: its last, as ``auto`` does.
    Without cores of its own a replica computes on as many threads wherever the kernel puts them.
    """
    if not own:
        threads = max(1, min(share.cores, len(allowed)) - 1)
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    computing = own[:-1] or own
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(str(cpus[-1]) for cpus in computing)}


def bind(share: Share, system: Path = SYSTEM) -> str:
    """Bind this thread and all processes that it starts from now on to a replica's cores. Returns what was done.

    The engine reads the variables when its own processes start.
    """
    allowed = os.sched_getaffinity(0)
    try:
        cores = read_cores(system)
    except (OSError, ValueError):
        cores = []  # a sandbox that hides the machine
    own = own_cores(cores, allowed, share)
    variables = binding(own, share, allowed)
    os.environ.update(variables)
    if not own:
        where = "the host" if share.node is None else f"NUMA node {share.node}"
        return f"no core {share.first} of {where} here: {variables['OMP_NUM_THREADS']} threads, bound to no core"
    os.sched_setaffinity(0, {cpu for cpus in own for cpu in cpus})
    missing = f", {share.cores - len(own)} fewer than planned" if len(own) < share.cores else ""
    return f"{len(own)} cores{missing}: threads on CPUs {variables['VLLM_CPU_OMP_THREADS_BIND']}"


def own_threads(system: Path = SYSTEM) -> int:
    """A thread for each core that this process may use: two on one core would compete for its vector units."""
    allowed = os.sched_getaffinity(0)
    try:
        return max(1, sum(bool(allowed & set(core.cpus)) for core in read_cores(system)))
    except (OSError, ValueError):
        return max(1, len(allowed))
