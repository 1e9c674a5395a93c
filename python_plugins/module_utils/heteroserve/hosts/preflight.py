"""What keeps a host from its part in a K3s cluster, as pure functions of what was read on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..models.weights import with_beside
from ..plan.builds import build_named
from .swap import Swap

GB = 10**9
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NODE_NAME_LENGTH = 63  # as a label's value (kubernetes.io/hostname)
DISTRIBUTIONS = {
    "ubuntu": ("22.04", "24.04"),
    "debian": ("12",),
    "rhel": ("9",),
    "rocky": ("9",),
}
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
NODE_PORTS = range(30000, 32768)
# What K3s listens on beside NodePorts: docs.k3s.io/installation/requirements, and its components on loopback.
NODE_PORTS_OF_K3S = {
    10250: "kubelet",
    10248: "kubelet's health",
    10249: "kube-proxy's figures",
    10256: "kube-proxy's health",
    6444: "K3s' balancer",
    10010: "containerd",
}
SERVER_PORTS_OF_K3S = {6443: "K3s' API", 2379: "etcd", 2380: "etcd", 10257: "the controllers", 10259: "the scheduler"}
# docs.k3s.io/installation/requirements: what a server and an agent take before any workload.
SERVER_MEMORY, AGENT_MEMORY = 2 * GB, GB // 2
SERVER_DISK, AGENT_DISK = 10 * GB, 4 * GB
# Images are on the disk twice, packed and unpacked. Estimates from what the same software takes in an environment.


@dataclass(frozen=True)
class FileSystem:
    """Free space under a path."""

    device: int  # paths with the same number share their space
    total: int
    free: int


@dataclass(frozen=True)
class Reading:
    """A host as it was found. Nothing here was changed by looking."""

    os_id: str
    os_version: str
    memory_total: int
    memory_available: int
    swaps: tuple[Swap, ...]
    controllers: frozenset[str]  # of cgroups that the kernel offers
    ports: dict[int, str]  # that a process which is not K3s listens on, with who it is
    k3s_runs: bool
    rancher: FileSystem  # /var/lib/rancher
    images_there: bool  # containerd has images already
    machine: FileSystem  # /var/lib/heteroserve
    weights_there: frozenset[str]  # models whose weights are on the host
    missing_modules: tuple[str, ...] = ()  # of the kernel: neither there nor to be loaded
    firewalls: tuple[str, ...] = ()  # "firewalld", "ufw": others that rule


@dataclass(frozen=True)
class Part:
    """A host's part in the cluster."""

    host: str  # its name in the inventory, and of its node
    node: bool
    server: bool
    cells: tuple[dict[str, Any], ...]
    models: dict[str, dict[str, Any]]  # of the plan, by name
    firewall: bool = True
    swap: bool = False
    any_distribution: bool = False


@dataclass(frozen=True)
class Peer:
    """How a host is known to the others."""

    hostname: str
    machine: str  # digest of its machine id
    address: str | None


def faults(part: Part, found: Reading) -> list[str]:
    """Every fault, one sentence each."""
    every = [
        distribution_fault(found, part.any_distribution),
        *([] if not part.firewall else firewall_faults(found.firewalls)),
    ]
    if part.node:
        every += [
            name_fault(part.host),
            *cgroup_faults(found.controllers),
            *module_faults(found.missing_modules),
            *port_faults(part, found.ports),
            memory_fault(part, found),
            *disk_faults(part, found),
            None if part.swap else swap_fault(found),
        ]
    return [fault for fault in every if fault]


def distribution_fault(found: Reading, anything: bool) -> str | None:
    """A distribution that no role was made for."""
    known = DISTRIBUTIONS.get(found.os_id, ())
    if anything or any(found.os_version == version or found.os_version.startswith(f"{version}.") for version in known):
        return None
    table = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in DISTRIBUTIONS.items())
    return (
        f"{found.os_id or 'the distribution'} {found.os_version} is not supported ({table} are):"
        " set host_prep_any_distribution: true to try it all the same"
    )


def firewall_faults(running: tuple[str, ...]) -> list[str]:
    """Firewalls that would drop what K3s sends, whatever this one accepts."""
    return [
        f"{name} runs and drops what pods send, whatever HeteroServe's own rules accept: set host_prep_other_firewalls:"
        f" stopped (it comes back with reset), or host_prep_firewall: false and open the ports in {name}"
        for name in running
    ]


def name_fault(host: str) -> str | None:
    """A name that Kubernetes does not take."""
    if NODE_NAME.fullmatch(host) and len(host) <= NODE_NAME_LENGTH:
        return None
    return (
        f"{host!r} cannot be a node's name: write it in the inventory with small letters, digits, - and ., at most"
        f" {NODE_NAME_LENGTH} characters"
    )


def cgroup_faults(controllers: frozenset[str]) -> list[str]:
    """Controllers that the kubelet needs."""
    missing = [name for name in CONTROLLERS if name not in controllers]
    if not missing:
        return []
    return [
        f"the cgroup controllers {', '.join(missing)} are off: add cgroup_enable={' cgroup_enable='.join(missing)}"
        " to the kernel's command line and reboot"
    ]


def module_faults(missing: tuple[str, ...]) -> list[str]:
    """Parts of the kernel that cannot be had."""
    return [
        f"the kernel has no {name} and no module of that name to load: install the distribution's own kernel with all"
        " its modules (Ubuntu: linux-modules-extra-$(uname -r)), or reboot if the kernel was just updated"
        for name in missing
    ]


def port_faults(part: Part, taken: dict[int, str]) -> list[str]:
    """Ports that K3s or a cell needs and something else has."""
    wanted = {**NODE_PORTS_OF_K3S, **(SERVER_PORTS_OF_K3S if part.server else {})}
    found = [
        f"port {port}, of {what}, is used by {taken[port]}: end it or give it another port"
        for port, what in sorted(wanted.items())
        if port in taken
    ]
    for cell in part.cells:
        ports = sorted(cell["ports"].values())
        outside = [port for port in ports if port not in NODE_PORTS]
        if outside:
            found.append(
                f"port {outside[0]} of cell {cell['name']} is no NodePort ({NODE_PORTS[0]} to {NODE_PORTS[-1]}):"
                " set cell_port_base: 30000 and plan again"
            )
        found += [
            f"port {port}, of cell {cell['name']}, is used by {taken[port]}: end it, or name the port in the host's"
            " reserved_ports and plan again"
            for port in ports
            if port in taken
        ]
    return found


def memory_fault(part: Part, found: Reading) -> str | None:
    """Memory for K3s and the cells: of what is free, or, where K3s and the cells may run already, of all."""
    own = SERVER_MEMORY if part.server else AGENT_MEMORY
    needed = own + sum(cell["limits"]["host_memory_bytes"] for cell in part.cells)
    there, word = (found.memory_total, "built in") if found.k3s_runs else (found.memory_available, "free now")
    if there >= needed:
        return None
    names = ", ".join(cell["name"] for cell in part.cells)
    who = f"K3s with {names}" if names else "K3s"
    what = "end programs, or lower the model's context" if names else "end programs"
    return f"{who} needs {needed / GB:.1f} GB of memory and {there / GB:.1f} GB is {word}: {what}"


def disk_faults(part: Part, found: Reading) -> list[str]:
    """Room for images and weights that are not there yet. The kubelet evicts pods where less than 5 % is left."""
    builds = {cell["build"] for cell in part.cells}
    images = sum(build_named(build).image_bytes for build in builds)
    base = SERVER_DISK if part.server else AGENT_DISK
    rancher = 0 if found.images_there else base + images
    missing = {
        item["name"]: item["weight_bytes"]
        for model in {cell["model"] for cell in part.cells}
        for item in with_beside(part.models[model])
        if item["name"] not in found.weights_there
    }
    names, weights = sorted(missing), sum(missing.values())
    asked = [
        ("/var/lib/rancher", found.rancher, rancher, "what K3s and its images take"),
        ("/var/lib/heteroserve", found.machine, weights, f"the weights of {', '.join(names)}"),
    ]
    if found.rancher.device == found.machine.device:
        what = " and ".join(text for _, _, needed, text in asked if needed)
        asked = [("/var/lib", found.rancher, rancher + weights, what)]
    return [
        f"{what} needs {needed / GB:.1f} GB of disk and {place} has {free / GB:.1f} GB free beside the 5 % that the"
        f" kubelet keeps: free {(needed - free) / GB:.1f} GB there or mount a larger disk at {place}"
        for place, disk, needed, what in asked
        if needed and (free := max(0, disk.free - disk.total // 20)) < needed
    ]


def swap_fault(found: Reading) -> str | None:
    """Swap that cannot be given up because memory has no room for what it holds."""
    used = sum(swap.used for swap in found.swaps)
    if used <= found.memory_available:
        return None
    return (
        f"swap holds {used / GB:.1f} GB and {found.memory_available / GB:.1f} GB of memory is free, so it cannot be"
        " turned off: end programs, or set host_prep_swap: true"
    )


def peer_faults(host: str, peers: dict[str, Peer]) -> list[str]:
    """What this host has in common with another one, though it must be its own."""
    own = peers[host]
    found = []
    for name, peer in sorted(peers.items()):
        if name == host:
            continue
        if peer.hostname == own.hostname:
            found.append(f"{name} has the same host name, {own.hostname}: set another one (hostnamectl set-hostname)")
        if peer.address and peer.address == own.address:
            found.append(f"{name} has the same address, {own.address}: correct the inventory or the network")
    return found


def peer_warning(host: str, peers: dict[str, Peer]) -> str | None:
    """What hosts share that were copied from one image. Containers on one machine share it and live with it."""
    same = [
        name
        for name, peer in sorted(peers.items())
        if name != host and peer.machine and peer.machine == peers[host].machine
    ]
    if not same:
        return None
    return (
        f"{', '.join(same)} and {host} have the same /etc/machine-id, from which addresses of interfaces are"
        " made: empty the file on all but one of them and reboot those"
    )
