"""What a machine may use is not what it has: control groups, CPU affinity, cpusets, and sockets that are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captured_machines as machines
import pytest
from heteroserve.common.machine import open_machine
from heteroserve.facts.allowance import cgroup_folders, parse_allowed, parse_ids, probe_allowance
from heteroserve.facts.collect import collect
from heteroserve.facts.hardware import Hardware
from heteroserve.plan.bays import shape_of_host
from heteroserve.plan.request import HostEntry, PlanOptions

GIB = 1024**3
V2 = "33 22 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 22 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 22 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
ROOT = "28 1 253:0 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
NODE = "/sys/devices/system/node/node"
Read = Callable[..., Hardware]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Facts of the R760 (two sockets of 56 cores, two threads each, 512 GB) within what ``files`` allow."""

    def run(name: str = "r760-amx", files: dict[str, Any] | None = None, mounts: str = V2, **changes: Any) -> Hardware:
        description = {**machines.describe(name), **changes, "mountinfo": ROOT + mounts}
        nodes = description.get("numa_nodes", 1)
        sockets, cores = description["cpu"]["sockets"], description["cpu"]["cores"]
        first, each = sockets * cores, sockets * cores // nodes
        lists = {
            f"{NODE}{node}/cpulist": f"{node * each}-{node * each + each - 1}"
            + (f",{first + node * each}-{first + node * each + each - 1}" if description["cpu"]["threads"] == 2 else "")
            for node in range(nodes)
        }
        description["files"] = {**description.get("files", {}), **lists, **(files or {})}
        return collect(open_machine(machines.materialise(description, tmp_path / "root")))

    return run


def units(facts: Hardware) -> tuple[int, int, tuple[Any, ...]]:
    """How many parts with memory of their own the planner sees, cores of each, and where they begin."""
    (bay,) = shape_of_host(HostEntry(facts), PlanOptions(builds=("vllm-cpu",)), 1, True).bays
    return len(bay.indices), bay.unit_cores, bay.seats


def test_nothing_limits_a_plain_host(read: Read) -> None:
    facts = read(files={"/proc/self/cgroup": "0::/user.slice/session-1.scope\n",
                        "/sys/fs/cgroup/user.slice/memory.max": "max\n",
                        "/sys/fs/cgroup/user.slice/cpu.max": "max 100000\n"})  # fmt: skip
    assert (facts.cpu.cores, facts.cpu.domains, facts.cpu.reachable_cores) == (112, 2, None)
    assert facts.sources["cpu"] == "/proc/cpuinfo"
    assert facts.sources["memory"] == "/proc/meminfo"
    assert units(facts) == (2, 56, ((0, 0), (1, 0)))


V2_FILES = {
    "/proc/self/cgroup": "0::/user.slice/a.scope\n",
    "/sys/fs/cgroup/user.slice/memory.max": f"{64 * GIB}\n",
    "/sys/fs/cgroup/user.slice/memory.current": f"{20 * GIB}\n",
    "/sys/fs/cgroup/user.slice/memory.stat": f"anon 1\ninactive_file {4 * GIB}\n",
    "/sys/fs/cgroup/user.slice/a.scope/memory.max": "max\n",
    "/sys/fs/cgroup/user.slice/a.scope/memory.high": f"{100 * GIB}\n",
    "/sys/fs/cgroup/user.slice/a.scope/cpu.max": "850000 100000\n",
    "/sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
}
V1_FILES = {
    "/proc/self/cgroup": "5:cpu,cpuacct:/a/b\n4:memory:/a/b\n",
    "/sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{64 * GIB}\n",
    "/sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{20 * GIB}\n",
    "/sys/fs/cgroup/memory/a/memory.stat": f"total_inactive_file {4 * GIB}\n",
    "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "9223372036854771712\n",
    "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "850000\n",
    "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
    "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n",
    "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
}


@pytest.mark.parametrize(("mounts", "files"), [(V2, V2_FILES), (V1, V1_FILES)], ids=["v2", "v1"])
def test_limits_of_control_groups(mounts: str, files: dict[str, str], read: Read) -> None:
    """The tightest of a process's group and those above it; page cache that can be dropped counts as free."""
    facts = read(files=files, mounts=mounts)
    assert (facts.memory, facts.memory_available) == (64 * GIB, 48 * GIB)
    assert (facts.cpu.cores, facts.cpu.reachable_cores) == (8, 112)
    assert "a control group allows 64.0 of 503.8 GiB" in facts.sources["memory"]
    assert "a control group allows 8.5 CPUs' worth of time" in facts.sources["cpu"]
    # Eight of 112 cores: replicas are bound, or 112 threads would share the time of eight.
    assert units(facts) == (2, 4, ((0, 0), (1, 0)))


@pytest.mark.parametrize(
    ("cgroups", "mounts", "folders"),
    [
        ("0::/\n", V2, ["/sys/fs/cgroup"]),  # a container with a namespace of its own
        ("4:memory:/docker/abc\n", "33 22 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
         ["/sys/fs/cgroup/memory"]),  # and one without
        ("4:memory:/elsewhere\n", "33 22 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
         ["/sys/fs/cgroup/memory"]),
        ("0::/../outside\n", V2, ["/sys/fs/cgroup"]),
        ("4:memory:/a\n0::/b\n", V1 + "35 22 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
         ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]),
        ("garbage\n", V2, None),
    ],
)  # fmt: skip
def test_where_limits_are(cgroups: str, mounts: str, folders: list[str] | None) -> None:
    found = cgroup_folders(cgroups, ROOT + mounts)
    assert found.get("memory", found.get("")) == folders


def test_affinity_and_cpusets(read: Read) -> None:
    """Two cores with both their threads, and one of a third, all on the second socket."""
    status = "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t60-61,70,172-173\nMems_allowed_list:\t1\n"
    memory = {f"{NODE}{node}/meminfo": f"Node {node} MemTotal:  {200 * 1024 * 1024} kB\n" for node in (0, 1)}
    facts = read(files={"/proc/self/status": status, **memory})
    assert (facts.cpu.sockets, facts.cpu.cores, facts.cpu.threads, facts.cpu.domains) == (1, 3, 5, 1)
    assert facts.memory == 200 * GIB
    assert "allows 5 of 224 CPUs" in facts.sources["cpu"]
    assert "a cpuset allows 200.0 of" in facts.sources["memory"]
    assert units(facts) == (1, 3, ((None, None),))


def test_a_virtual_machine_with_a_socket_for_each_core_is_one_processor(read: Read) -> None:
    cpu = {**machines.describe("vm-h100")["cpu"], "sockets": 16, "cores": 1}
    facts = read("vm-h100", cpu=cpu)
    assert (facts.cpu.sockets, facts.cpu.cores, facts.cpu.domains) == (1, 16, 1)
    entry = HostEntry(Hardware(facts.cpu, facts.memory))
    (bay,) = shape_of_host(entry, PlanOptions(builds=("vllm-cpu",)), 1, True).bays
    assert (bay.label[:2], len(bay.indices), bay.unit_cores) == ("1x", 1, 16)


def test_memory_domains_are_numa_nodes(read: Read) -> None:
    """Sub-NUMA clusters: four nodes on two sockets. vLLM takes a replica's memory from one node."""
    facts = read(numa_nodes=4)
    assert (facts.cpu.sockets, facts.cpu.domains) == (2, 4)
    assert units(facts) == (4, 28, ((0, 0), (1, 0), (2, 0), (3, 0)))


def test_interleaved_memory_is_one_domain(read: Read) -> None:
    facts = read(numa_nodes=1)
    assert (facts.cpu.sockets, units(facts)) == (2, (1, 112, ((None, None),)))


def test_nodes_without_processors_are_no_domains(read: Read) -> None:
    """Memory of GPUs (GH200, GB200) and memory behind CXL."""
    assert read(files={f"{NODE}{node}/cpulist": "\n" for node in range(2, 9)}).cpu.domains == 2


def test_lists_of_ids() -> None:
    assert parse_ids("0-2,7\n") == {0, 1, 2, 7}
    assert parse_ids("") == frozenset()
    assert parse_allowed("Cpus_allowed_list:\t3\n", "Cpus") == {3}
    assert parse_allowed("", "Cpus") is None


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_this_machine_allows_something() -> None:
    found = probe_allowance(open_machine())
    assert found.cpus
    assert found.memory is None or found.memory > GIB // 8
    assert found.quota is None or found.quota > 0
