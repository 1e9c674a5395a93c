"""Which processes, mounts, interfaces and firewall rules of a host are K3s's. After K3s's own k3s-killall.sh."""

from __future__ import annotations

import re

# The socket that K3s's containerd is reached by: another containerd of the host has another one.
SHIM = re.compile(r"containerd-shim\S* .*-address /run/k3s/containerd/containerd\.sock")
INTERFACE = re.compile(r"cni0|flannel\.\d+|flannel-v6\.\d+|flannel-wg(-v6)?|kube-ipvs0|nodelocaldns")
BRIDGE = "cni0"
IPSET = re.compile(r"KUBE-.*|inet6:KUBE-.*")
RULE = re.compile(r"KUBE-|CNI-|flannel|cni-hostport", re.IGNORECASE)


def descendants_of_shims(processes: dict[int, tuple[int, str]]) -> set[int]:
    """Process ids of K3s's shims and all below them, from {pid: (parent, command line)}."""
    found = {pid for pid, (_, command) in processes.items() if SHIM.search(command)}
    grew = True
    while grew:
        below = {pid for pid, (parent, _) in processes.items() if parent in found}
        grew = not below <= found
        found |= below
    return found


def mounts_below(table: str, prefixes: tuple[str, ...]) -> list[str]:
    """Mount points below the prefixes, the innermost first, from the text of /proc/self/mounts.

    A prefix that is itself a mount, such as a disk of its own for /var/lib/rancher, is the host's and stays.
    """
    targets = [
        re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[1]) for line in table.splitlines()
    ]
    ours = {target for target in targets if target.startswith(prefixes) and target not in prefixes}
    return sorted(ours, key=lambda target: (-target.count("/"), target))


def is_interface(name: str, master: str) -> bool:
    """Whether a network interface is K3s's: one that it names, or a pod's end on its bridge."""
    return bool(INTERFACE.fullmatch(name)) or master == BRIDGE


def is_ipset(name: str) -> bool:
    """Whether a set of addresses is Kubernetes's."""
    return bool(IPSET.fullmatch(name))


def without_rules(saved: str) -> str | None:
    """What iptables-save printed, without chains and rules of Kubernetes; None if there is none of them."""
    kept = [line for line in saved.splitlines() if not RULE.search(line)]
    return None if len(kept) == len(saved.splitlines()) else "\n".join(kept) + "\n"
