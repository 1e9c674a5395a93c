"""Which addresses Prometheus reads, from inventory and plan: the content of its file_sd files.

A host or cell that comes or goes changes these files alone, and Prometheus reads them again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Jobs in the order of docs/monitoring.md. Each has a file, empty where there is nothing of its kind.
JOBS = (
    "node", "dcgm", "amd", "power", "gateway", "usage", "cells", "engines", "k3s", "kuberay", "health", "plan",
    "prometheus", "alertmanager",
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """A host of the inventory, as monitoring sees it."""

    address: str  # on which its exporters listen
    groups: tuple[str, ...] = ()
    vendors: tuple[str, ...] = ()  # of its GPUs
    bmc: str = ""  # address of its iDRAC; none where nobody knows it


@dataclass(frozen=True)
class Ports:
    """What exporters listen on."""

    node: int = 9100
    dcgm: int = 9400
    amd: int = 5000
    gateway: int = 8405
    exporter: int = 9188  # HeteroServe's own, on the monitoring host
    prometheus: int = 9090
    alertmanager: int = 9093


@dataclass(frozen=True)
class Wanted:
    """All that the targets follow from."""

    monitor: str  # the host that Prometheus runs on
    hosts: Mapping[str, Host]
    plan: Mapping[str, Any]
    ports: Ports = field(default_factory=Ports)
    power: bool = False  # whether iDRACs are asked
    cluster: bool = False  # whether there is a K3s cluster to read
    operator_namespace: str = "kuberay-operator"


Group = dict[str, Any]  # an entry of a file_sd file


def targets(wanted: Wanted) -> dict[str, list[Group]]:
    """For each job its targets, hosts and cells in the order of their names."""
    hosts = sorted(wanted.hosts.items())
    ports = wanted.ports
    found: dict[str, list[Group]] = {job: [] for job in JOBS}
    found["node"] = [_of(name, host.address, ports.node) for name, host in hosts]
    found["dcgm"] = [_of(name, host.address, ports.dcgm) for name, host in hosts if "nvidia" in host.vendors]
    found["amd"] = [_of(name, host.address, ports.amd) for name, host in hosts if "amd" in host.vendors]
    found["gateway"] = [
        _of(name, "127.0.0.1" if name == wanted.monitor else host.address, ports.gateway)
        for name, host in hosts
        if "gateway" in host.groups
    ]
    # The ledgers' figures, on the same ports.
    ledger = {"__metrics_path__": "/usage/metrics"}
    found["usage"] = [{**group, "labels": {**group["labels"], **ledger}} for group in found["gateway"]]
    for cell in wanted.plan.get("cells", ()):
        # Under k3s the role publishes Ray's figures on the node port that the plan keeps for monitoring.
        port = cell["ports"].get("metrics", cell["ports"].get("dashboard"))
        if port is not None:
            found["cells"].append(_group(cell["address"], port, _cell_labels(cell)))
        found["engines"].append(_group(cell["address"], cell["ports"]["serve"], _cell_labels(cell)))
    if wanted.cluster:
        found["k3s"] = list(_k3s(hosts))
        server = next(host for _, host in hosts if "k3s_server" in host.groups)
        path = f"/api/v1/namespaces/{wanted.operator_namespace}/services/kuberay-operator:8080/proxy/metrics"
        found["kuberay"] = [_group(server.address, 6443, {"__metrics_path__": path})]
    own = {"host": wanted.monitor}
    for job, wants in {"health": True, "plan": True, "power": wanted.power}.items():
        if wants:
            found[job] = [_group("127.0.0.1", ports.exporter, {**own, "__metrics_path__": f"/{job}"})]
    found["prometheus"] = [_group("127.0.0.1", ports.prometheus, own)]
    found["alertmanager"] = [_group("127.0.0.1", ports.alertmanager, own)]
    return found


def _k3s(hosts: Iterable[tuple[str, Host]]) -> Iterable[Group]:
    """The API of each server, and each node's kubelet with what it counts of containers."""
    for name, host in hosts:
        if "k3s_server" in host.groups:
            yield _group(host.address, 6443, {"host": name, "component": "server"})
        if {"k3s_server", "serving"} & set(host.groups) and "retired" not in host.groups:
            for component, path in {"kubelet": "/metrics", "cadvisor": "/metrics/cadvisor"}.items():
                yield _group(host.address, 10250, {"host": name, "component": component, "__metrics_path__": path})


def _cell_labels(cell: Mapping[str, Any]) -> dict[str, str]:
    return {
        "host": cell["hosts"][0],
        **{key: cell[key] for key in ("model", "engine", "accelerator")},
        "cell": cell["name"],
    }


def _of(name: str, address: str, port: int) -> Group:
    return _group(address, port, {"host": name})


def _group(address: str, port: int, labels: dict[str, str]) -> Group:
    shown = f"[{address}]" if ":" in address else address
    return {"targets": [f"{shown}:{port}"], "labels": labels}
