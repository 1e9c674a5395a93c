"""Decisions about hosts and nodes of a K3s cluster."""

from __future__ import annotations

import pytest
from heteroserve.cluster.k3s import HostState, join, parsed, upgrade_fault
from heteroserve.cluster.nodes import Node, label_changes, labels, leaving
from heteroserve.inventory.schema import server_count_fault

SERVERS = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}
BARE = HostState(installed=None, active=False, initialized=False, server_url=None)
STARTED = HostState(installed="v1.34.2+k3s1", active=True, initialized=True, server_url=None)


def joined(address: str) -> HostState:
    return HostState(installed="v1.34.2+k3s1", active=True, initialized=True, server_url=f"https://{address}:6443")


@pytest.mark.parametrize(
    ("installed", "wanted", "fault"),
    [
        (None, "v1.34.2+k3s1", None),
        ("v1.34.2+k3s1", "v1.34.2+k3s1", None),
        ("v1.34.2+k3s1", "v1.34.2+k3s2", None),
        ("v1.34.2+k3s1", "v1.34.10+k3s1", None),
        ("v1.34.2+k3s1", "v1.35.0+k3s1", None),
        ("v1.34.2+k3s1", "v1.36.0+k3s1", "a minor version is left out: set k3s_version to a release of v1.35 first"),
        ("v1.34.2+k3s2", "v1.34.2+k3s1", "K3s cannot go back"),
        ("v1.34.2-rc1+k3s1", "v1.33.9+k3s1", "K3s cannot go back"),
    ],
)
def test_which_release_may_follow_which(installed: str | None, wanted: str, fault: str | None) -> None:
    found = upgrade_fault(installed, wanted)
    assert (found is None) if fault is None else (found is not None and fault in found)


def test_a_release_is_written_as_k3s_writes_it() -> None:
    with pytest.raises(ValueError, match=r"write it as v1.34.2\+k3s1"):
        parsed("1.34")


def test_the_first_server_starts_the_cluster() -> None:
    assert join("a", True, SERVERS, (), BARE).url is None
    assert join("a", True, SERVERS, (), BARE).fault is None


def test_other_servers_join_one_that_answers() -> None:
    assert join("b", True, SERVERS, ("a",), BARE).server == "a"
    assert join("c", True, SERVERS, ("b",), BARE).server == "b"


def test_a_first_server_without_its_database_joins_the_others() -> None:
    """Starting a second cluster would split the hosts."""
    assert join("a", True, SERVERS, ("b", "c"), BARE).url == "https://10.0.0.2:6443"


def test_who_has_joined_keeps_its_way() -> None:
    """Or the second run would change something whenever another server answers first."""
    assert join("c", True, SERVERS, ("a", "b"), joined("10.0.0.2")).server == "b"
    assert join("agent", False, SERVERS, ("a", "b"), joined("10.0.0.3")).server == "c"
    assert join("a", True, SERVERS, ("b", "c"), STARTED).url is None


def test_who_joined_a_server_that_left_the_inventory_joins_another() -> None:
    assert join("agent", False, SERVERS, ("b",), joined("10.0.0.9")).server == "b"


def test_nobody_to_join_is_a_fault_that_names_the_servers() -> None:
    fault = join("agent", False, SERVERS, (), BARE).fault
    assert fault is not None
    assert "https://10.0.0.1:6443, https://10.0.0.2:6443" in fault


@pytest.mark.parametrize(("count", "fine"), [(0, False), (1, True), (2, False), (3, True), (4, False), (5, True)])
def test_servers_are_an_odd_number(count: int, fine: bool) -> None:
    assert (server_count_fault(count) is None) == fine


def nodes(servers: int, agents: int, ready: int | None = None) -> tuple[Node, ...]:
    ready = servers if ready is None else ready
    return tuple(Node(f"s{i}", True, i < ready, {}) for i in range(servers)) + tuple(
        Node(f"a{i}", False, True, {}) for i in range(agents)
    )


def test_a_node_that_the_inventory_does_not_name_leaves() -> None:
    assert leaving(nodes(1, 2), ("s0", "a0"), ()) == (("a1",), None)
    assert leaving(nodes(1, 2), ("s0", "a0", "a1"), ("a1",)) == (("a1",), None)
    assert leaving(nodes(1, 2), ("s0", "a0", "a1"), ()) == ((), None)


def test_a_dead_server_may_be_taken_out_of_three() -> None:
    gone, fault = leaving(nodes(3, 0, ready=2), ("s0", "s1"), ())
    assert gone == ("s2",)
    assert fault is None


@pytest.mark.parametrize(
    ("found", "inventory"),
    [(nodes(3, 0), ("s0",)), (nodes(3, 0, ready=2), ("s0", "s2")), (nodes(1, 1), ("a0",))],
)
def test_servers_do_not_lose_their_majority(found: tuple[Node, ...], inventory: tuple[str, ...]) -> None:
    fault = leaving(found, inventory, ())[1]
    assert fault is not None
    assert "no majority" in fault


def test_another_cluster_s_inventory_empties_nothing() -> None:
    fault = leaving(nodes(1, 2), ("x", "y"), ())[1]
    assert fault is not None
    assert "is it the right one?" in fault


def test_labels_say_what_a_node_has_and_runs() -> None:
    found = labels("nvidia-h100-sxm-80gb", "nvidia", 8, ("llama-3.1-8b", "meta/llama 70b"))
    assert found == {
        "heteroserve.io/accelerator": "nvidia-h100-sxm-80gb",
        "heteroserve.io/accelerator-vendor": "nvidia",
        "heteroserve.io/accelerator-count": "8",
        "heteroserve.io/model-llama-3.1-8b": "true",
        "heteroserve.io/model-meta-llama-70b-6ba8eb": "true",
    }
    assert all(len(key.partition("/")[2]) <= 63 for key in labels("cpu", "cpu", 0, ("x" * 90,)))


def test_only_our_labels_change() -> None:
    now = {"team": "x", "heteroserve.io/accelerator": "cpu", "heteroserve.io/model-old": "true"}
    assert label_changes(now, {"heteroserve.io/accelerator": "cpu", "heteroserve.io/model-new": "true"}) == {
        "heteroserve.io/model-new": "true",
        "heteroserve.io/model-old": None,
    }
    assert label_changes(now, {k: v for k, v in now.items() if k != "team"}) == {}
