#!/usr/bin/python
"""Ansible module: the gateway's ports are free, or the gateway's own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_ports
short_description: Check that the gateway's ports are free
description:
  - Names the process that holds a port. P(community.general.listen_ports_facts#module) names it too, but cannot tell
    the gateway's own HAProxy from another one.
options:
  ports: {description: "Settings, each with its port.", type: dict, required: true}
  installation: {description: Mark of the gateway's own processes in their environment., type: str, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check that the ports are free
  gateway_ports:
    ports: {gateway_port: 8080}
    installation: /etc/heteroserve/gateway
"""

RETURN = r"""
faults: {description: One sentence for each port that is taken., returned: always, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.processes import taken_ports


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "dict", "required": True},
            "installation": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    names = {int(port): name for name, port in module.params["ports"].items()}
    faults = [
        f"{names[port]}: port {port} is used by {owner}: end it, or set {names[port]} to a free port"
        for port, owner in sorted(taken_ports(list(names), module.params["installation"]).items())
    ]
    if faults:
        module.fail_json(msg="; ".join(faults), faults=faults)
    module.exit_json(changed=False, faults=[])


if __name__ == "__main__":
    main()
