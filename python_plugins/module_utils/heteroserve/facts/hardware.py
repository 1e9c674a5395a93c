"""The hardware of one host, as the module ``accelerator_facts`` reports it and the planner reads it.

The same shape serves hosts that were probed and hosts that an inventory only declares (``hardware:``).
Sizes are bytes, rates are bytes/s or bits/s as named, clocks MHz. A value that could not be found is
None (or an empty tuple), never a guess; ``Hardware.sources`` names where each group of facts came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..common.records import from_dict, to_dict

GIB = 1024**3


@dataclass(frozen=True)
class Cpu:
    """All processors of a host together; ``isa`` holds kernel flag names such as ``avx512f``, ``amx_bf16``."""

    model: str
    vendor: str  # "intel" | "amd" | "arm" | "other"
    sockets: int
    cores: int  # physical cores of all sockets that may be used
    threads: int
    numa_nodes: int = 1
    isa: tuple[str, ...] = ()
    memory_channels: int | None = None  # of all sockets together
    memory_mts: int | None = None  # mega-transfers a second
    memory_bandwidth: float | None = None  # bytes/s of all sockets, read or estimated (see sources)
    reachable_cores: int | None = None  # that processes may run on, where a limit of CPU time lets fewer work at once

    @property
    def domains(self) -> int:
        """Parts with memory of their own: NUMA nodes. A socket can have several, a virtual machine's many have one."""
        return max(1, min(self.numa_nodes, self.cores))


@dataclass(frozen=True)
class Accelerator:
    """One GPU, or one partition of it (``partition`` set) that can be scheduled by itself."""

    index: int
    vendor: str  # "nvidia" | "amd" | "intel" | "habana"
    model: str  # the vendor's product name
    kind: str  # planner's key, such as "nvidia-h100-sxm-80gb"; "unknown-<pci id>" where no card fits
    memory: int | None  # bytes that a process can see
    pci_address: str | None = None
    pci_id: str | None = None  # "10de:2330"
    numa_node: int | None = None
    link: str = "pcie"  # widest link to its peers: "nvlink" | "nvswitch" | "xgmi" | "xe-link" | "roce" | "pcie"
    peers: tuple[int, ...] = ()  # indices that it reaches over that link
    driver: str | None = None
    partition: str | None = None  # "mig-1g.10gb" and the like
    usable: bool = True
    why_not: str | None = None  # one sentence if not usable
    uuid: str | None = None  # the driver's name for it, as CUDA_VISIBLE_DEVICES takes it; a MIG instance has no other
    ordinal: int | None = None  # its number among what the vendor's driver runs, as its own runtime counts


@dataclass(frozen=True)
class Nic:
    """A network interface; ``faces_cluster`` marks the one through which the other hosts are reached."""

    name: str
    speed_mbits: int | None = None
    driver: str | None = None
    model: str | None = None
    rdma_device: str | None = None
    address: str | None = None
    faces_cluster: bool = False


@dataclass(frozen=True)
class Disk:
    """The file system that holds ``path``."""

    path: str
    total: int
    free: int
    device: str | None = None
    kind: str | None = None  # "nvme" | "ssd" | "hdd"


@dataclass(frozen=True)
class Problem:
    """Something that an operator should know: what was found and what would change it."""

    code: str  # stable, such as "driver-mismatch", "no-driver", "nvidia-smi-failed", "secure-boot"
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Hardware:
    """Everything that the planner may know of one host."""

    cpu: Cpu
    memory: int  # bytes that may be used: what is installed, or less within a control group or some NUMA nodes
    memory_available: int | None = None  # bytes free when probed
    accelerators: tuple[Accelerator, ...] = ()
    nics: tuple[Nic, ...] = ()
    disks: tuple[Disk, ...] = ()
    server_model: str | None = None
    service_tag: str | None = None
    bmc_address: str | None = None
    os: str | None = None
    kernel: str | None = None
    cgroup_version: int | None = None
    secure_boot: bool | None = None
    virtualization: str | None = None
    address: str | None = None  # the address that faces the other hosts
    driver_versions: dict[str, str] = field(default_factory=dict)  # {"nvidia": "580.65.06 (running), ..."}
    problems: tuple[Problem, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)  # {"cpu": "/proc/cpuinfo", ...}


def hardware_from_dict(data: dict[str, Any]) -> Hardware:
    """Rebuild ``Hardware`` from JSON. Raises ``ValueError`` that names an unknown or mistyped key."""
    return from_dict(Hardware, data)


def hardware_to_dict(hardware: Hardware) -> dict[str, Any]:
    """Plain JSON types, every field written out."""
    data: dict[str, Any] = to_dict(hardware)
    return data
