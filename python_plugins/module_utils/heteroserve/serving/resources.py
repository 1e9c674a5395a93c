"""What a cell takes of each of its hosts, and under which name Kubernetes and Ray count it."""

from __future__ import annotations

from collections import defaultdict

from ..cluster.gpu_plugins import RESOURCES as COUNTED
from ..plan.schema import Cell

# Exactly one of these, or none, is in a pod. Intel's plugin offers gpu.intel.com/xe with the driver xe, and
# gpu.intel.com/i915 with the older one.
RESOURCES = {**COUNTED, "intel": "gpu.intel.com/xe", "habana": "habana.ai/gaudi"}
# KubeRay tells Ray of resources whose name ends in "gpu"; what Ray calls otherwise has to be said to it.
RAY_RESOURCES = {"habana": "HPU"}
TAINTS = {**RESOURCES, "intel": "gpu.intel.com"}


def devices(cell: Cell, host: str) -> int:
    """Accelerators of a host that the cell takes."""
    return sum(
        len(own)
        for one in cell.replicas
        for name, own in zip(one.hosts, one.devices or ((),) * len(one.hosts), strict=True)
        if name == host
    )


def cores(cell: Cell, host: str) -> int:
    """Cores of a host that the cell's replicas compute on."""
    return sum(one.cores for one in cell.replicas if host in one.hosts)


def replicas(cell: Cell, host: str) -> int:
    """Replicas of which at least a part is on the host."""
    return sum(1 for one in cell.replicas if host in one.hosts)


def host_memory(cell: Cell, host: str) -> int:
    """Bytes of a host's RAM that the plan gives to the cell."""
    return sum(cell.limits.host_memory_bytes // len(one.hosts) for one in cell.replicas if host in one.hosts)


def takes(cell: Cell) -> dict[str, dict[str, int]]:
    """Host -> resource -> how much of it nobody else can have while the cell runs."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for host in cell.hosts:
        if cell.vendor == "cpu":
            found[host]["cpu"] = cores(cell, host)
        else:
            found[host][RESOURCES[cell.vendor]] = devices(cell, host)
    return dict(found)
