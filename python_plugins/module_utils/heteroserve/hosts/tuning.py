"""Settings of a host's kernel and limits that its part in the cluster and the plan ask for, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
GOVERNORS = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
NUMA_BALANCING = "kernel.numa_balancing"
# A module of the kernel, and what is there as soon as its code is, loaded or built in.
MODULES = {
    "overlay": "/sys/module/overlay",
    "br_netfilter": "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "vxlan": "/sys/module/vxlan",
    "nf_conntrack": "/sys/module/nf_conntrack",
}
# docs.k3s.io/security/hardening-guide. The kubelet refuses to start with protect-kernel-defaults where one differs;
# it also looks at the two kernel.keys, which most distributions leave as it wants them.
HARDENING = {
    "vm.panic_on_oom": "0",
    "vm.overcommit_memory": "1",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxbytes": "25000000",
    "kernel.keys.root_maxkeys": "1000000",
}
NETWORK = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
# Every pod's log is followed by inotify; distributions allow 128 instances a user, which some 100 pods use up.
INOTIFY = {"fs.inotify.max_user_instances": "8192", "fs.inotify.max_user_watches": "524288"}


@dataclass(frozen=True)
class Setting:
    """A value that the kernel is to have; ``key`` is a sysctl's name or a path below /sys, where * may stand."""

    key: str
    value: str
    reason: str

    @property
    def path(self) -> str:
        """The file that holds the value."""
        if self.key.startswith("/"):
            return self.key
        # sysctl's own rule: dots part folders, a slash stands for a dot inside a name (net/ipv4/conf/eth0.100).
        return "/proc/sys/" + self.key.translate(str.maketrans("./", "/."))


@dataclass(frozen=True)
class Tuning:
    """All that a host is set to."""

    settings: tuple[Setting, ...]
    memlock: bool  # services may lock all memory
    memlock_reason: str = ""


def tuning(
    host: str,
    node: bool,
    cells: list[dict[str, Any]],
    huge_pages: int = 0,
    extra: dict[str, str] | None = None,
    governor: str = "",
    now: dict[str, int] | None = None,
) -> Tuning:
    """What ``host`` is set to. ``cells`` are the plan's on it; ``governor`` overrides the choice ("none": leave it).

    ``now`` are the values of INOTIFY on the host: one that is larger already (the kernel goes by memory) stays.
    """
    settings: dict[str, Setting] = {}

    def put(values: dict[str, str], reason: str) -> None:
        settings.update({key: Setting(key, value, reason) for key, value in values.items()})

    if node:
        put(HARDENING, "K3s's hardening guide")
        put(NETWORK, "pods' packets are routed, and seen by kube-proxy")
        put(
            {key: str(max(int(value), (now or {}).get(key, 0))) for key, value in INOTIFY.items()},
            "logs of many pods are followed",
        )
    on_cpu = sorted(cell["name"] for cell in cells if cell["vendor"] == "cpu")
    on_gpu = sorted(cell["name"] for cell in cells if cell["vendor"] != "cpu")
    if cells and governor != "none":
        reason = "a processor that sleeps between tokens answers late, also where it only feeds a GPU"
        put({GOVERNORS: governor or "performance"}, reason)
    if on_cpu:
        put(
            {THP: "madvise"},
            f"{', '.join(on_cpu)}: large pages for what asks for them, as engines do",
        )
    pinned = sorted(cell["name"] for cell in cells if _bound(cell, host) or cell["vendor"] == "amd")
    if pinned:
        put({NUMA_BALANCING: "0"}, f"{', '.join(pinned)}: memory stays beside the cores or GPUs that it was given to")
    if huge_pages:
        put({"vm.nr_hugepages": str(huge_pages)}, "host_prep_huge_pages")
    put({key: str(value) for key, value in (extra or {}).items()}, "host_prep_sysctls")
    reason = f"{', '.join(on_gpu)}: buffers that a GPU or an RDMA card reads are locked in memory" if on_gpu else ""
    return Tuning(tuple(settings.values()), bool(on_gpu), reason)


def _bound(cell: dict[str, Any], host: str) -> bool:
    """A replica of the cell is bound to one socket of the host."""
    return any(replica.get("numa_node") is not None and host in replica["hosts"] for replica in cell["replicas"])


def chosen(text: str) -> str:
    """The value of a file in /sys that lists choices and marks one: "always [madvise] never"; else the text itself."""
    _, opening, rest = text.partition("[")
    inner, closing, _ = rest.partition("]")
    return inner if opening and closing else " ".join(text.split())


def modules_to_load(exists: Callable[[str], bool], loadable: frozenset[str]) -> tuple[str, ...]:
    """Modules that must be loaded at every start: those that are missing, and those that are loaded, not built in."""
    return tuple(name for name, sign in MODULES.items() if name in loadable or not exists(sign))


@dataclass(frozen=True)
class Change:
    """What to do to the kernel's values, and what to remember of it."""

    write: dict[str, str]  # path -> value
    record: dict[str, str]  # path -> value before the first change
    before: dict[str, str]  # what is overwritten now


def change(wanted: dict[str, str], now: dict[str, str], record: dict[str, str]) -> Change:
    """From what is wanted, found and remembered. A value that is wanted no longer goes back to what it was."""
    write = {path: value for path, value in wanted.items() if path in now and now[path] != value}
    back = {path: value for path, value in record.items() if path not in wanted}
    write |= {path: value for path, value in back.items() if path in now and now[path] != value}
    kept = {path: value for path, value in record.items() if path in wanted}
    kept |= {path: now[path] for path in write if path in wanted and path not in record}
    return Change(write, kept, {path: now[path] for path in write})
