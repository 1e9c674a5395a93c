"""Nodes of the cluster: their labels, which of them leave it, and whether a host may be rebooted now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.names import LABEL, VENDOR_LABEL, model_label

CORDONED = "heteroserve.io/cordoned"  # annotation of a node that HeteroServe took out of use
SERVER_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/etcd")


@dataclass(frozen=True)
class Decision:
    """What to do with the node of a host that reboots."""

    is_node: bool
    mark: bool  # take it out of use, and note that it was HeteroServe that did
    fault: str | None = None


def decide(nodes: list[dict[str, Any]], host: str) -> Decision:
    """From the API's node objects. A node that an operator cordoned stays so afterwards."""
    own = next((node for node in nodes if node["metadata"]["name"] == host), None)
    if own is None:
        return Decision(False, False)
    cordoned = bool(own.get("spec", {}).get("unschedulable"))
    marked = CORDONED in own["metadata"].get("annotations", {})
    servers = [node for node in nodes if _is_server(node)]
    others = [node for node in servers if node is not own]
    waiting = [node["metadata"]["name"] for node in others if not _ready(node)]
    fault = None
    if _is_server(own) and waiting and len(others) - len(waiting) <= len(servers) // 2:
        down = ", ".join(waiting)
        fault = (
            f"{host} is not rebooted: {down} of the other servers is not Ready, so etcd would lose its majority;"
            " repair it first"
        )
    return Decision(True, marked or not cordoned, fault)


def _is_server(node: dict[str, Any]) -> bool:
    return any(label in node["metadata"].get("labels", {}) for label in SERVER_LABELS)


def _ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


@dataclass(frozen=True)
class Node:
    """A node as the API shows it."""

    name: str
    server: bool
    ready: bool
    labels: dict[str, str]


def leaving(
    nodes: tuple[Node, ...], inventory: tuple[str, ...], retired: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """Nodes that the inventory does not name, or names as retired; and why they must not be taken out, if so."""
    gone = tuple(node.name for node in nodes if node.name not in inventory or node.name in retired)
    staying = [node for node in nodes if node.name not in gone]
    servers = [node for node in nodes if node.server]
    left = [node for node in servers if node.name not in gone]
    if not gone:
        return (), None
    if not staying:
        return gone, "the inventory names none of the cluster's nodes: is it the right one?"
    ready = sum(node.ready for node in left)
    if len(left) < len(servers) and ready <= len(servers) // 2:
        out = ", ".join(node.name for node in servers if node.name in gone)
        return gone, (
            f"without {out} only {ready} of {len(servers)} servers would be ready, which is no majority: take out one"
            " server at a time, or add servers first"
        )
    return gone, None


def labels(accelerator: str, vendor: str, count: int, models: tuple[str, ...]) -> dict[str, str]:
    """Labels of a node: what it has, and ``heteroserve.io/model-NAME`` for what the plan runs on it."""
    found = {
        f"{LABEL}accelerator": accelerator,
        VENDOR_LABEL: vendor,
        f"{LABEL}accelerator-count": str(count),
    }
    return found | dict.fromkeys(map(model_label, models), "true")


def label_changes(now: dict[str, str], wanted: dict[str, str]) -> dict[str, str | None]:
    """What to merge into a node's labels; None takes one away. Labels of others are left alone."""
    ours = {key: value for key, value in now.items() if key.startswith(LABEL)}
    changes: dict[str, str | None] = {key: value for key, value in wanted.items() if ours.get(key) != value}
    return changes | dict.fromkeys(set(ours) - set(wanted))
