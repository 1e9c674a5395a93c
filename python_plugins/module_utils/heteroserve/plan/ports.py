"""Ports of cells: which each has, and how they are handed out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .allocate import Replica
from .request import HostEntry, PlanOptions

BLOCK = 20  # ports a cell has; replicas with many Ray workers take several blocks
RAY_PORTS = (
    "serve", "dashboard", "gcs", "dashboard_agent", "metrics", "haproxy_metrics", "haproxy_stats",
    "client", "node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc",
    "fallback", "fallback_grpc",
)  # fmt: skip
RAY_OWN_WORKERS = 24  # Serve's controller, proxies and routers, and the idle workers that Ray keeps ready
REPLICA_PORTS = 16  # ports a replica: Serve takes a new one for each restart, and gives back those of the dead late
LAST_PORT = 65535


def port_names(runtime: str) -> tuple[str, ...]:
    """Names of a cell's ports."""
    return (
        (*RAY_PORTS, "replica_min", "replica_max", "worker_min", "worker_max")
        if runtime == "ray"
        else ("serve", "dashboard")
    )


class Ports:
    """Blocks of ports, handed out in order around those in use.

    Under ``ray`` a cell listens on its host, so hosts repeat the same blocks. Under ``k3s`` it listens on a NodePort,
    which is one for the whole cluster.
    """

    def __init__(self, hosts: dict[str, HostEntry], options: PlanOptions, runtime: str) -> None:
        self.runtime = runtime
        self.base = options.port_base
        self.used: dict[str, set[int]] = defaultdict(set)
        self.leaving: set[int] = set()
        self.next: dict[str, int] = defaultdict(lambda: self.base)
        for name, entry in hosts.items():
            for place in self._places([name]):
                self.used[place] |= set(entry.reserved_ports)

    def _places(self, hosts: Iterable[str]) -> list[str]:
        return sorted(hosts) if self.runtime == "ray" else ["cluster"]

    def hold(self, hosts: tuple[str, ...], ports: dict[str, int]) -> None:
        """Mark the ports of a kept cell as in use."""
        for place in self._places(hosts):
            self.used[place] |= set(range(min(ports.values()), max(ports.values()) + 1))

    def leave(self, ports: dict[str, int]) -> None:
        """Avoid a removed cell's ports where there are others: under ``k3s`` it goes after the new cells have come."""
        if self.runtime == "k3s":
            self.leaving |= set(ports.values())

    def give(self, members: list[Replica]) -> dict[str, int]:
        """The next free block. Raises ``ValueError`` when there is none below 65536."""
        places = self._places({host for one in members for host in one.hosts})
        names = self._names(members)
        length = sum(names.values())
        if self.runtime == "ray":
            length = -(-length // BLOCK) * BLOCK
        start = self._free(places, length, self.leaving)
        if start + length > LAST_PORT + 1:
            self.leaving, self.next = set(), defaultdict(lambda: self.base)
            start = self._free(places, length, self.leaving)
        if start + length > LAST_PORT + 1:
            raise ValueError(f"ports {self.base} to {LAST_PORT} are all taken: set a lower port_base")
        ports, port = {}, start
        for name, number in names.items():
            ports[name] = port
            port += number
        if self.runtime == "ray":
            ports["replica_max"] = ports["worker_min"] - 1
            ports["worker_max"] = start + length - 1
        for place in places:
            self.next[place] = start + length
            self.used[place] |= set(range(start, start + length))
        return ports

    def _free(self, places: list[str], length: int, avoided: set[int]) -> int:
        """The first port of the next block that is not in use."""
        start = max(self.next[place] for place in places)
        while any(port in avoided | self.used[place] for place in places for port in range(start, start + length)):
            start += BLOCK if self.runtime == "ray" else length
        return start

    def _names(self, members: list[Replica]) -> dict[str, int]:
        """Ports by name and how many each stands for: two a replica, one for each Ray worker that there may be."""
        if self.runtime != "ray":
            return {"serve": 1, "dashboard": 1}
        workers = RAY_OWN_WORKERS + sum(1 + one.fit.tensor_parallel_size for one in members)
        return {**dict.fromkeys(RAY_PORTS, 1), "replica_min": REPLICA_PORTS * len(members), "worker_min": workers}
