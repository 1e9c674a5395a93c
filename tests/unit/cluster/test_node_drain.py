"""Draining and returning nodes: what is cordoned, what is uncordoned, and what is left alone."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from heteroserve.cluster.node_drain import MAINTENANCE, MARK, REASONS, Cordon, Node, State, decide, node

TEMPORARY = sorted({*REASONS} - {MAINTENANCE})


def after(now: Node, state: State, reason: str) -> Node:
    """The node once the decision is carried out."""
    cordon = decide((now,), now.name, state, reason).cordon
    return Node(now.name, now.server, now.ready, cordon.unschedulable, cordon.mark) if cordon else now


@pytest.mark.parametrize("reason", REASONS)
def test_a_cordon_that_is_not_ours_is_never_lifted(reason: str) -> None:
    """Whatever is done, in whatever order: an operator's cordon outlasts it, and never gets our mark."""
    now = Node("a", unschedulable=True)
    for state, other in itertools.product(get_args(State), REASONS):
        assert after(after(now, state, other), "returned", reason) == now
    decision = decide((now,), "a", "returned", reason)
    assert decision.kept
    assert decision.why == "a stays cordoned: HeteroServe did not cordon it; kubectl uncordon a returns it"


@pytest.mark.parametrize("reason", REASONS)
def test_what_is_drained_is_returned(reason: str) -> None:
    now = Node("a")
    drained = after(now, "drained", reason)
    assert drained == Node("a", unschedulable=True, mark=reason)
    assert after(drained, "drained", reason) == drained
    assert after(drained, "returned", reason) == now
    assert after(now, "returned", reason) == now


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("interrupted", TEMPORARY)
def test_what_an_interrupted_run_left_is_returned_by_the_next_one(interrupted: str, reason: str) -> None:
    left = Node("a", unschedulable=True, mark=interrupted)
    assert after(left, "returned", reason) == Node("a")
    assert after(after(left, "drained", reason), "returned", reason) == Node("a")


@pytest.mark.parametrize("reason", TEMPORARY)
def test_a_host_under_maintenance_waits_for_its_operator(reason: str) -> None:
    closed = Node("a", unschedulable=True, mark=MAINTENANCE)
    assert after(closed, "drained", reason) == closed
    decision = decide((closed,), "a", "returned", reason)
    assert decision.kept
    assert decision.cordon is None
    assert "playbooks/drain.yml -e drain_host=a -e drain_state=absent returns it" in decision.why
    # Also where a run had been killed before the operator took the host out of use.
    assert after(Node("a", unschedulable=True, mark=reason), "drained", MAINTENANCE) == closed


def test_a_mark_goes_when_an_operator_has_uncordoned_the_node() -> None:
    """It would pass for ours if the operator cordoned the node again."""
    assert after(Node("a", mark="upgrade"), "returned", "upgrade") == Node("a")
    assert after(Node("a", mark=MAINTENANCE), "returned", "reboot") == Node("a")
    assert after(Node("a", mark=MAINTENANCE), "drained", "reboot").mark == "reboot"


@pytest.mark.parametrize("state", get_args(State))
def test_a_host_that_is_not_a_node_yet_is_left_alone(state: State) -> None:
    decision = decide((Node("b"),), "a", state, "reboot")
    assert (decision.is_node, decision.cordon, decision.fault) == (False, None, None)


def servers(*ready: bool) -> tuple[Node, ...]:
    return tuple(Node(f"s{number}", True, is_ready) for number, is_ready in enumerate(ready, 1))


@pytest.mark.parametrize(
    ("ready", "fault"),
    [
        ((True,), False),
        ((True, True), False),
        ((True, True, True), False),
        ((True, True, False), True),
        ((True, False, False), True),
        ((True, True, True, True, False), False),
        ((True, True, True, False, False), True),
        ((False, True, True), False),
    ],
)
def test_a_reboot_leaves_the_servers_their_majority(ready: tuple[bool, ...], fault: bool) -> None:
    decision = decide(servers(*ready), "s1", "drained", "reboot")
    assert (decision.fault is not None) == fault
    assert (decision.cordon is None) == fault
    assert decide(servers(*ready), "s1", "returned", "reboot").fault is None


def test_an_agent_may_reboot_whatever_the_servers_do() -> None:
    assert decide((*servers(True, False, False), Node("a")), "a", "drained", "reboot").fault is None


def test_mark_and_cordon_are_one_change() -> None:
    """A run that is killed between two changes would leave a cordon that nobody knows for ours."""
    assert Cordon(True, "reboot").patch() == {
        "metadata": {"annotations": {MARK: "reboot"}},
        "spec": {"unschedulable": True},
    }
    assert Cordon(False, None).patch() == {"metadata": {"annotations": {MARK: None}}, "spec": {"unschedulable": False}}


def test_a_node_of_the_api() -> None:
    resource: dict[str, Any] = {
        "metadata": {
            "name": "a",
            "labels": {"node-role.kubernetes.io/etcd": "true"},
            "annotations": {MARK: "reboot", "other": "x"},
        },
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    assert node(resource) == Node("a", server=True, ready=False, unschedulable=True, mark="reboot")
    assert node({"metadata": {"name": "b"}}) == Node("b", ready=False)
