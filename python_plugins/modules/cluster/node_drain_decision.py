#!/usr/bin/python
"""Ansible module: what has to change at a node for its host to be drained or returned."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain_decision
short_description: Decide whether a node is cordoned or uncordoned
description:
  - Runs on the controller. Changes nothing.
  - Fails where the host is to be rebooted and the cluster would lose its majority of servers.
  - Warns where the host was to be returned and stays cordoned, because its cordon is not HeteroServe's to lift.
options:
  host: {description: Name of the host and of its node., type: str, required: true}
  state: {description: What is wanted of it., type: str, required: true, choices: [drained, returned]}
  reason:
    description:
      - What the host is drained for, or what is over when it is returned.
      - Any reason returns what any other one cordoned, as an interrupted run may have left it. Only V(maintenance), of
        playbooks/drain.yml, outlasts a run, and is returned by V(maintenance) alone.
    type: str
    required: true
    choices: [driver, leave, maintenance, reboot, upgrade]
  nodes: {description: The node objects of the API., type: list, elements: dict, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Decide what happens to the node
  node_drain_decision:
    host: r760-1
    state: returned
    reason: upgrade
    nodes: "{{ found.resources }}"
"""

RETURN = r"""
is_node: {description: Whether the host is a node of the cluster., returned: success, type: bool}
patch: {description: What to merge into the node's object; empty if it stays as it is., returned: success, type: dict}
why: {description: The reason., returned: success, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.node_drain import REASONS, decide, node


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["drained", "returned"]},
            "reason": {"type": "str", "required": True, "choices": [*REASONS]},
            "nodes": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    decision = decide(tuple(map(node, given["nodes"])), given["host"], given["state"], given["reason"])
    if decision.fault:
        module.fail_json(msg=decision.fault)
    if decision.kept:
        module.warn(decision.why)
    patch = decision.cordon.patch() if decision.cordon else {}
    module.exit_json(changed=False, is_node=decision.is_node, patch=patch, why=decision.why)


if __name__ == "__main__":
    main()
