"""A host that cannot take its part is told why, all at once, and what is in place is not asked for again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heteroserve.hosts.preflight import GB, FileSystem, Part, Peer, Reading, faults, peer_faults, peer_warning
from heteroserve.hosts.swap import Swap

CELL = {
    "name": "llama-1",
    "model": "llama",
    "build": "vllm-cuda",
    "limits": {"host_memory_bytes": 20 * GB},
    "ports": {"serve": 30000, "dashboard": 30001},
}
GOOD = Reading(
    os_id="debian",
    os_version="12",
    memory_total=64 * GB,
    memory_available=60 * GB,
    swaps=(),
    controllers=frozenset({"cpu", "cpuset", "memory", "pids", "io"}),
    ports={22: "process 1 (sshd)"},
    k3s_runs=False,
    rancher=FileSystem(1, 1000 * GB, 500 * GB),
    images_there=False,
    machine=FileSystem(2, 1000 * GB, 500 * GB),
    weights_there=frozenset(),
)
LLAMA = {"name": "llama", "weight_bytes": 140 * GB}
PART = Part("r760-1", node=True, server=True, cells=(CELL,), models={"llama": LLAMA})


def test_a_good_host_has_no_fault() -> None:
    assert faults(PART, GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"os_id": "arch", "os_version": ""}, "arch  is not supported"),
        ({"os_version": "11"}, "debian 11 is not supported"),
        ({"os_id": "rhel", "os_version": "8.10"}, "rhel 8.10 is not supported"),
        ({"controllers": frozenset({"cpu", "cpuset", "pids"})}, "cgroup_enable=memory"),
        ({"missing_modules": ("br_netfilter",)}, "the kernel has no br_netfilter"),
        ({"ports": {6443: "process 7 (haproxy)"}}, "port 6443, of K3s' API, is used by process 7 (haproxy)"),
        ({"ports": {10250: "process 7 (kubelet)"}}, "port 10250, of kubelet, is used by"),
        ({"ports": {30001: "process 7 (x)"}}, "port 30001, of cell llama-1, is used by process 7 (x)"),
        ({"memory_available": 21 * GB}, "K3s with llama-1 needs 22.0 GB of memory and 21.0 GB is free now"),
        ({"rancher": FileSystem(1, 100 * GB, 20 * GB)}, "/var/lib/rancher has 15.0 GB free"),
        ({"machine": FileSystem(2, 100 * GB, 90 * GB)}, "the weights of llama needs 140.0 GB"),
        ({"firewalls": ("firewalld",)}, "firewalld runs and drops what pods send"),
        ({"swaps": (Swap("/swap", "file", 99 * GB, 61 * GB),)}, "swap holds 61.0 GB"),
    ],
)
def test_what_was_found_and_what_to_set(change: dict[str, object], words: str) -> None:
    (fault,) = faults(PART, replace(GOOD, **change))  # type: ignore[arg-type]
    assert words in fault


@pytest.mark.parametrize(("name", "version"), [("rocky", "9.4"), ("rhel", "9"), ("ubuntu", "24.04"), ("debian", "12")])
def test_supported_distributions(name: str, version: str) -> None:
    assert faults(PART, replace(GOOD, os_id=name, os_version=version)) == []


def test_all_faults_come_at_once() -> None:
    bad = replace(GOOD, os_id="arch", memory_available=0, controllers=frozenset(), ports={6443: "x", 10250: "y"})
    assert len(faults(PART, bad)) == 5


def test_a_distribution_can_be_tried_all_the_same() -> None:
    assert faults(replace(PART, any_distribution=True), replace(GOOD, os_id="arch")) == []


@pytest.mark.parametrize("name", ["R760", "r760_1", "-a", "a" * 64, "a..b"])
def test_names_that_no_node_may_have(name: str) -> None:
    (fault,) = faults(replace(PART, host=name), GOOD)
    assert "cannot be a node's name" in fault


def test_a_port_outside_of_the_node_ports_is_named() -> None:
    cell = {**CELL, "ports": {"serve": 18000}}
    (fault,) = faults(replace(PART, cells=(cell,)), GOOD)
    assert "port 18000 of cell llama-1 is no NodePort (30000 to 32767): set cell_port_base" in fault


def test_an_agent_needs_no_ports_of_a_server() -> None:
    assert faults(replace(PART, server=False), replace(GOOD, ports={6443: "x", 2379: "y"})) == []


def test_one_disk_for_both_is_counted_once() -> None:
    disk = FileSystem(1, 200 * GB, 100 * GB)
    (fault,) = faults(PART, replace(GOOD, rancher=disk, machine=disk))
    assert "what K3s and its images take and the weights of llama needs 175.0 GB of disk and /var/lib has 90.0" in fault


def test_an_adapter_that_is_added_needs_its_own_room_only() -> None:
    model = {**LLAMA, "beside": [{"name": "sql", "weight_bytes": 2 * GB}]}
    full = replace(GOOD, machine=FileSystem(2, 100 * GB, 6 * GB), weights_there=frozenset({"llama"}))
    (fault,) = faults(replace(PART, models={"llama": model}), full)
    assert "the weights of sql needs 2.0 GB of disk and /var/lib/heteroserve has 1.0 GB free" in fault


def test_what_is_there_is_not_asked_for_again() -> None:
    full = replace(
        GOOD,
        k3s_runs=True,
        images_there=True,
        weights_there=frozenset({"llama"}),
        memory_available=GB,
        rancher=FileSystem(1, 100 * GB, 6 * GB),
        machine=FileSystem(1, 100 * GB, 6 * GB),
    )
    assert faults(PART, full) == []


def test_a_gateway_alone_needs_nothing_of_a_node() -> None:
    gateway = Part("GATEWAY_1", node=False, server=False, cells=(), models={})
    assert faults(gateway, replace(GOOD, controllers=frozenset(), memory_available=0, ports={10250: "x"})) == []


def test_hosts_that_are_one_are_told_apart() -> None:
    peers = {
        "a": Peer("node", "1", "10.0.0.1"),
        "b": Peer("node", "2", "10.0.0.1"),
        "c": Peer("other", "1", "10.0.0.3"),
        "d": Peer("none", "", None),
    }
    assert [fault.partition(":")[0] for fault in peer_faults("a", peers)] == [
        "b has the same host name, node",
        "b has the same address, 10.0.0.1",
    ]
    assert (peer_warning("a", peers) or "").startswith("c and a have the same /etc/machine-id")
    assert peer_faults("d", peers) == []
    assert peer_warning("d", peers) is None
