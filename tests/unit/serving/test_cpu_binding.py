"""Which cores a CPU replica gets, on simulated machines, and that a process keeps to them, on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.engines.cpu_binding import SYSTEM, Share, bind, binding, cpu_ids, own_cores, read_cores


def machine(folder: Path, rows: list[tuple[int, int, str]], online: str) -> Path:
    """A /sys/devices/system of cores given as socket, NUMA node and list of hardware threads."""
    (folder / "cpu").mkdir()
    (folder / "cpu" / "online").write_text(f"{online}\n")
    nodes: dict[int, list[str]] = {}
    for socket, node, threads in rows:
        nodes.setdefault(node, []).append(threads)
        for cpu in cpu_ids(threads):
            topology = folder / "cpu" / f"cpu{cpu}" / "topology"
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text(f"{socket}\n")
            (topology / "thread_siblings_list").write_text(f"{threads}\n")
    for node, lists in nodes.items():
        (folder / "node" / f"node{node}").mkdir(parents=True)
        (folder / "node" / f"node{node}" / "cpulist").write_text(",".join(lists) + "\n")
    (folder / "node" / "node9").mkdir()
    (folder / "node" / "node9" / "cpulist").write_text("\n")  # a node with memory and no processor
    return folder


@pytest.fixture
def dual(tmp_path: Path) -> Path:
    """Two sockets of four cores with two threads each, numbered as Intel's servers do: 0-3,8-11 and 4-7,12-15."""
    return machine(tmp_path, [(core // 4, core // 4, f"{core},{core + 8}") for core in range(8)], "0-15")


def shares(system: Path, allowed: set[int], *asked: Share) -> list[list[tuple[int, ...]]]:
    return [own_cores(read_cores(system), allowed, share) for share in asked]


ALL = set(range(16))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0-3,8-11\n", [0, 1, 2, 3, 8, 9, 10, 11]),
        ("5", [5]),
        ("\n", []),
    ],
)
def test_lists_are_read_as_the_kernel_prints_them(text: str, ids: list[int]) -> None:
    assert cpu_ids(text) == ids


def test_a_replica_has_the_numa_node_of_the_plan(dual: Path) -> None:
    first, second = shares(dual, ALL, Share(4, 0), Share(4, 1))
    assert first == [(0, 8), (1, 9), (2, 10), (3, 11)]
    assert second == [(4, 12), (5, 13), (6, 14), (7, 15)]


def test_four_replicas_on_two_nodes_have_cores_of_their_own(dual: Path) -> None:
    asked = [Share(2, node, first) for node in (0, 1) for first in (0, 2)]
    found = shares(dual, ALL, *asked)
    assert found == [[(0, 8), (1, 9)], [(2, 10), (3, 11)], [(4, 12), (5, 13)], [(6, 14), (7, 15)]]


def test_two_replicas_share_one_node(tmp_path: Path) -> None:
    one = machine(tmp_path, [(0, 0, str(cpu)) for cpu in range(4)], "0-3")
    assert shares(one, ALL, Share(2, None, 0), Share(2, None, 2)) == [[(0,), (1,)], [(2,), (3,)]]


def test_ids_may_alternate_between_sockets_and_sockets_may_be_numbered_otherwise(tmp_path: Path) -> None:
    odd = machine(tmp_path, [(3 if cpu % 2 else 1, cpu % 2, str(cpu)) for cpu in range(8)], "0-7")
    assert shares(odd, ALL, Share(4, 0), Share(2, 1, 2)) == [[(0,), (2,), (4,), (6,)], [(5,), (7,)]]


def test_a_part_of_a_socket_lies_on_one_numa_node_where_it_can(tmp_path: Path) -> None:
    # Two nodes in the socket, whose ids alternate: vLLM takes its memory from one node.
    split = machine(tmp_path, [(0, cpu % 2, str(cpu)) for cpu in range(8)], "0-7")
    assert shares(split, ALL, Share(4, None, 0), Share(4, None, 4)) == [
        [(0,), (2,), (4,), (6,)],
        [(1,), (3,), (5,), (7,)],
    ]


def test_threads_that_are_off_are_not_counted(tmp_path: Path) -> None:
    # SMT switched off for core 1, core 2 off altogether: the kernel leaves them out of the lists of siblings.
    some = machine(tmp_path, [(0, 0, "0,4"), (0, 0, "1"), (0, 0, "3,7")], "0-1,3-4,7")
    assert shares(some, ALL, Share(2), Share(2, None, 1)) == [[(0, 4), (1,)], [(1,), (3, 7)]]


def test_a_cpuset_smaller_than_the_machine_is_what_replicas_share(dual: Path) -> None:
    allowed = {2, 3, 6, 7, 10, 14, 15}
    assert shares(dual, allowed, Share(1, 0, 0), Share(1, 0, 1)) == [[(2, 10)], [(3,)]]
    assert shares(dual, allowed, Share(4, 1)) == [[(6, 14), (7, 15)]]  # fewer than the plan thinks
    assert shares(dual, {0, 1}, Share(4, 1), Share(4, 2), Share(2, 0, 2)) == [[], [], []]


def test_each_core_but_the_last_gives_one_thread() -> None:
    assert binding([(0, 8), (1, 9), (2, 10)], Share(3), ALL) == {"VLLM_CPU_OMP_THREADS_BIND": "8,9"}
    assert binding([(5,)], Share(1), ALL) == {"VLLM_CPU_OMP_THREADS_BIND": "5"}


def test_without_cores_of_its_own_a_replica_is_bound_to_none() -> None:
    free = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    assert binding([], Share(4, 1), ALL) == {**free, "OMP_NUM_THREADS": "3"}
    assert binding([], Share(56, 1), {0, 1}) == {**free, "OMP_NUM_THREADS": "1"}


def test_where_the_machine_is_hidden_nothing_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    before = os.sched_getaffinity(0)
    assert "bound to no core" in bind(Share(2, 1), tmp_path)
    assert os.sched_getaffinity(0) == before
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


ENGINE = """
import json, os, subprocess, sys
from serving.engines.cpu_binding import Share, bind
if sys.argv[2:]:
    os.sched_setaffinity(0, json.loads(sys.argv[2]))
bind(Share(**json.loads(sys.argv[1])))
look = "import json, os; print(json.dumps([sorted(os.sched_getaffinity(0)), os.environ['VLLM_CPU_OMP_THREADS_BIND']]))"
subprocess.run([sys.executable, "-c", look], check=True)
"""


def engine(root: Path, share: str, *allowed: str) -> tuple[list[int], str]:
    """What a process that a bound replica starts may use, and what vLLM is told in it."""
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, share, *allowed], cwd=root, capture_output=True, text=True, check=True
    )
    ids, threads = json.loads(done.stdout)
    return ids, threads


@pytest.mark.skipif(not (SYSTEM / "cpu" / "online").exists(), reason="the machine does not show its processors")
def test_the_engines_processes_keep_to_the_cores(root: Path) -> None:
    cores = own_cores(read_cores(), os.sched_getaffinity(0), Share(1 << 20))
    seen = [engine(root, json.dumps({"cores": 1, "first": first}))[0] for first in range(len(cores))[:4]]
    assert seen == [sorted(cpus) for cpus in cores[:4]]
    # In a cpuset of one CPU, the last, the first core is that one.
    last = cores[-1][-1]
    assert engine(root, '{"cores": 2}', f"[{last}]") == ([last], str(last))
