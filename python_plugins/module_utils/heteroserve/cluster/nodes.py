"""The nodes of the cluster: which leave it, and what labels they have."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.names import LABEL, VENDOR_LABEL, model_label


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
