"""Whether a host's node may be drained, whether it is cordoned, and whether its cordon may be lifted.

HeteroServe marks each cordon that it sets with an annotation. A cordon without that mark is an operator's, and is never
lifted. Mark and cordon are changed in one request, so that a run that is killed leaves no cordon without its mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

MARK = "heteroserve.io/cordoned-for"  # annotation; its value is the reason, a key of REASONS
SERVER_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd")
MAINTENANCE = "maintenance"  # the only reason that outlasts a run
REASONS = {
    "driver": "a change of the GPU driver",
    "leave": "leaving the cluster",
    MAINTENANCE: "maintenance (playbooks/drain.yml)",
    "reboot": "a reboot",
    "upgrade": "an upgrade of K3s",
}

State = Literal["drained", "returned"]


@dataclass(frozen=True)
class Node:
    """A node as it is now."""

    name: str
    server: bool = False
    ready: bool = True
    unschedulable: bool = False
    mark: str | None = None  # value of our annotation


@dataclass(frozen=True)
class Cordon:
    """What a node's cordon and our mark on it have to become, in one change."""

    unschedulable: bool
    mark: str | None

    def patch(self) -> dict[str, Any]:
        """What to merge into the node's object; None removes a key."""
        return {"metadata": {"annotations": {MARK: self.mark}}, "spec": {"unschedulable": self.unschedulable}}


@dataclass(frozen=True)
class Decision:
    """What to do with a node, and why."""

    is_node: bool  # the cluster has a node of this name
    why: str
    cordon: Cordon | None = None  # None: it stays as it is
    kept: bool = False  # it was to be returned, but its cordon is not ours to lift
    fault: str | None = None  # why the host must not be drained


def decide(nodes: tuple[Node, ...], host: str, state: State, reason: str) -> Decision:
    """What has to change for ``host`` to be drained or returned.

    ``reason`` is a key of ``REASONS``: what the host is drained for, or what is over when it is returned. A later run
    thus also returns what an interrupted one left cordoned, whatever that one was about. Only what
    playbooks/drain.yml cordoned waits for playbooks/drain.yml.
    """
    node = next((item for item in nodes if item.name == host), None)
    if node is None:
        return Decision(False, f"{host} is not a node of the cluster")
    if state == "returned":
        return _returned(node, reason)
    fault = majority_fault(nodes, node) if reason == "reboot" else None
    if fault:
        return Decision(True, fault, fault=fault)
    return _drained(node, reason)


def _drained(node: Node, reason: str) -> Decision:
    if not node.unschedulable:
        return Decision(True, f"{node.name} is cordoned for {REASONS[reason]}", Cordon(True, reason))
    if node.mark is None:
        return Decision(True, f"{node.name} was already cordoned, not by HeteroServe")
    if reason == MAINTENANCE != node.mark:
        why = f"{node.name} is cordoned by an interrupted run; now it stays so until it is returned"
        return Decision(True, why, Cordon(True, reason))
    return Decision(True, f"{node.name} is already cordoned for {REASONS.get(node.mark, node.mark)}")


def _returned(node: Node, reason: str) -> Decision:
    if node.mark is None and not node.unschedulable:
        return Decision(True, f"{node.name} is not cordoned")
    if node.mark is None:
        why = f"{node.name} stays cordoned: HeteroServe did not cordon it; kubectl uncordon {node.name} returns it"
        return Decision(True, why, kept=True)
    if not node.unschedulable:
        # An operator uncordoned it. The mark must go, or it would pass for ours when the operator cordons it again.
        return Decision(True, f"{node.name} was uncordoned meanwhile", Cordon(False, None))
    if node.mark == MAINTENANCE != reason:
        why = (
            f"{node.name} stays cordoned for maintenance: playbooks/drain.yml -e drain_host={node.name}"
            " -e drain_state=absent returns it"
        )
        return Decision(True, why, kept=True)
    return Decision(True, f"{node.name} was cordoned for {REASONS.get(node.mark, node.mark)}", Cordon(False, None))


def majority_fault(nodes: tuple[Node, ...], node: Node) -> str | None:
    """Why ``node`` must not go down, because etcd would lose its majority; None if it may."""
    servers = [item for item in nodes if item.server]
    others = [item for item in servers if item is not node]
    waiting = [item.name for item in others if not item.ready]
    if not node.server or not waiting or len(others) - len(waiting) > len(servers) // 2:
        return None
    return (
        f"{node.name} must not be rebooted: {', '.join(waiting)} of the other servers is not Ready, so etcd would lose"
        " its majority; repair it first"
    )


def node(resource: dict[str, Any]) -> Node:
    """A node from the API's object."""
    metadata = resource["metadata"]
    conditions = {item["type"]: item["status"] for item in resource.get("status", {}).get("conditions", [])}
    return Node(
        name=metadata["name"],
        server=any(label in (metadata.get("labels") or {}) for label in SERVER_LABELS),
        ready=conditions.get("Ready") == "True",
        unschedulable=bool(resource.get("spec", {}).get("unschedulable")),
        mark=(metadata.get("annotations") or {}).get(MARK),
    )
