#!/usr/bin/python
"""Ansible module: can this inventory work?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Check the inventory before anything is touched
description:
  - Compares the inventory with everything that HeteroServe reads, and reports all faults at once, each with the
    file, the key, what was found and what to set.
  - The action plugin of the same name reads the inventory's files on the controller and hands over what it found;
    the options below are its, not the user's.
options:
  values: {description: Effective values of the settings., type: dict}
  places: {description: Where each key stands., type: dict}
  groups: {description: Groups with their hosts., type: dict}
  plain_secrets: {description: Secrets that stand in plain text., type: dict}
  template_faults: {description: Templates that cannot be resolved., type: dict}
  host_keys: {description: Where the keys of single hosts and of groups in the host file stand., type: dict}
  hosts: {description: Variables of the serving hosts that the planner reads., type: dict}
  lines: {description: Where nested keys stand., type: dict}
  owned: {description: "What hosts and groups set for themselves, as their hosts have it.", type: dict}
  role_options: {description: What the roles say they take., type: dict}
  job_folder: {description: "The folder of a job of AWX, which is removed after it; empty outside of AWX.", type: str}
  has_password: {description: Whether there is a password of backups and of what the state host keeps., type: bool}
  gateway_is_local: {description: Whether the gateway is on this machine., type: bool}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check the inventory
  inventory_check:
"""

RETURN = r"""
faults: {description: One sentence for each fault., returned: always, type: list}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.processes import taken_ports
from ansible.module_utils.heteroserve.common.records import number
from ansible.module_utils.heteroserve.inventory.schema import Fault, Inventory, check
from ansible.module_utils.heteroserve.metal import settings as metal
from ansible.module_utils.heteroserve.plan.builds import engines_of
from ansible.module_utils.heteroserve.plan.refusals import builds_of, refusals


def ports_in_use(inventory: Inventory) -> list[Fault]:
    """The gateway's ports that something else has on this machine."""
    names = {
        port: name
        for name in ("gateway_port", "gateway_stats_port")
        if (port := number(inventory.values.get(name))) is not None
    }
    taken = taken_ports(list(names), os.path.realpath(str(inventory.values.get("state_dir", ""))))
    return [
        Fault(
            inventory.places.get(names[port], "group_vars/all"),
            names[port],
            f"port {port} is used by {owner}",
            f"set {names[port]} to a free port or end that process",
        )
        for port, owner in taken.items()
    ]


def main() -> None:
    """Entry point."""
    mapping = {"type": "dict", "default": {}}
    module = AnsibleModule(
        argument_spec={
            "values": mapping,
            "places": mapping,
            "groups": mapping,
            "plain_secrets": {**mapping, "no_log": False},
            "template_faults": mapping,
            "host_keys": {**mapping, "no_log": False},
            "hosts": mapping,
            "lines": mapping,
            "owned": mapping,
            "role_options": {**mapping, "no_log": False},
            "job_folder": {"type": "str", "default": ""},
            "has_password": {"type": "bool", "default": False, "no_log": False},
            "gateway_is_local": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    parameters = dict(module.params)
    local = parameters.pop("gateway_is_local")
    inventory = Inventory(**parameters)
    builds = builds_of(inventory)
    faults = [*check(inventory, engines_of(builds)), *refusals(inventory, builds), *metal.refusals(inventory)]
    faults += ports_in_use(inventory) if local else []
    sentences = list(dict.fromkeys(map(str, faults)))
    if sentences:
        module.fail_json(msg=listing("The inventory", sentences, "nothing was changed"), faults=sentences)
    module.exit_json(changed=False, faults=[])


if __name__ == "__main__":
    main()
