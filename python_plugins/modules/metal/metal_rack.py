#!/usr/bin/python
"""Ansible module: which hosts a run of bare_metal.yml is about."""

from __future__ import annotations

DOCUMENTATION = r"""
module: metal_rack
short_description: Select the hosts of one rack that have a BMC
description: Runs on the controller. Changes nothing. Fails with one sentence where it is not clear which rack is meant.
options:
  hosts: {description: "By host: rack, and bmc, the address of its BMC.", type: dict, required: true}
  rack: {description: The rack that is asked for. Empty if the inventory has one only., type: str, default: ""}
  report: {description: Whether nothing is to be changed. A report may be about all racks., type: bool, default: false}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Select the hosts
  metal_rack:
    hosts: {r760-1: {rack: A1, bmc: 10.20.0.11}}
    rack: A1
"""

RETURN = r"""
hosts: {description: Names of the hosts., returned: success, type: list}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.metal.rack import Candidate, rack


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True},
            "rack": {"type": "str", "default": ""},
            "report": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    hosts = {name: Candidate(str(host["rack"] or ""), str(host["bmc"] or "")) for name, host in given["hosts"].items()}
    found = rack(hosts, given["rack"], given["report"])
    if isinstance(found, str):
        module.fail_json(msg=f"{found}. Nothing was changed")
    module.exit_json(changed=False, hosts=found)


if __name__ == "__main__":
    main()
