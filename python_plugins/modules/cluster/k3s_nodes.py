#!/usr/bin/python
"""Ansible module: what has to be changed at the nodes of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_nodes
short_description: Compare a cluster's nodes with the inventory and the plan
description:
  - Says which nodes have to leave, because the inventory does not name them any more or names them as retired, and
    which labels have to change. Fails where taking them out would cost the servers their majority. Changes nothing.
options:
  nodes: {description: Nodes as the API lists them., type: list, elements: dict, required: true}
  hosts: {description: "Host to its C(host_hardware), empty if unknown.", type: dict, required: true}
  retired: {description: Hosts of the inventory that are to leave., type: list, elements: str, default: []}
  cells: {description: Cells of the plan., type: list, elements: dict, default: []}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Compare
  k3s_nodes:
    nodes: "{{ found.resources }}"
    hosts: {r760-1: "{{ hostvars['r760-1'].ansible_facts.host_hardware }}"}
"""

RETURN = r"""
leaving: {description: Names of the nodes that have to leave., returned: success, type: list}
lost: {description: Those of them that nothing can be moved from any more., returned: success, type: list}
labels: {description: "Node to labels that have to change, null for one that has to go.", returned: success, type: dict}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.nodes import Node, label_changes, labels, leaving
from ansible.module_utils.heteroserve.facts.declared import hardware_of

SERVER_LABEL = "node-role.kubernetes.io/control-plane"


def node(resource: dict[str, Any]) -> Node:
    """A node from the API's object."""
    metadata = resource["metadata"]
    conditions = {item["type"]: item["status"] for item in resource.get("status", {}).get("conditions", [])}
    own = metadata.get("labels") or {}
    return Node(metadata["name"], own.get(SERVER_LABEL) == "true", conditions.get("Ready") == "True", own)


def wanted(name: str, given: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, str] | None:
    """Labels of a host; None if nothing is known of its hardware."""
    if not given:
        return None
    usable = [item for item in hardware_of(given).accelerators if item.usable]
    models = tuple(sorted({cell["model"] for cell in cells if name in cell["hosts"]}))
    kind, vendor = (usable[0].kind, usable[0].vendor) if usable else ("cpu", "cpu")
    found: dict[str, str] = labels(kind, vendor, len(usable), models)
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "dict", "required": True},
            "hosts": {"type": "dict", "required": True},
            "retired": {"type": "list", "elements": "str", "default": []},
            "cells": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    hosts = module.params["hosts"]
    nodes = tuple(map(node, module.params["nodes"]))
    gone, fault = leaving(nodes, tuple(hosts), tuple(module.params["retired"]))
    if fault:
        module.fail_json(msg=f"k3s_server: {fault}. Nothing was taken out", leaving=gone)
    changes = {}
    for item in nodes:
        own = wanted(item.name, hosts.get(item.name, {}), module.params["cells"])
        if item.name not in gone and own is not None:
            change = label_changes(item.labels, own)
            if change:
                changes[item.name] = change
    lost = [item.name for item in nodes if item.name in gone and not item.ready]
    module.exit_json(changed=False, leaving=gone, lost=lost, labels=changes)


if __name__ == "__main__":
    main()
