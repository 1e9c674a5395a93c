#!/usr/bin/python
"""Ansible module: what a reboot of a host means for its cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_reboot
short_description: Decide what has to happen to a host's node before the host is rebooted
description:
  - Runs on the controller. Fails where the cluster would lose its majority of servers. Changes nothing.
options:
  host: {description: Name of the host and of its node., type: str, required: true}
  nodes: {description: The node objects of the API., type: list, elements: dict, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Look at the cluster
  host_prep_reboot:
    host: r760-1
    nodes: "{{ nodes.resources }}"
"""

RETURN = r"""
is_node: {description: Whether the host is a node of the cluster., returned: always, type: bool}
mark: {description: Whether to cordon and uncordon; false where an operator did., returned: always, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.nodes import decide


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "nodes": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    decision = decide(module.params["nodes"], module.params["host"])
    if decision.fault:
        module.fail_json(msg=decision.fault)
    module.exit_json(changed=False, is_node=decision.is_node, mark=decision.mark)


if __name__ == "__main__":
    main()
