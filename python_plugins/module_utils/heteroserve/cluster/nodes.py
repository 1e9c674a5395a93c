"""May this host be rebooted now, and what has to happen to its node before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
