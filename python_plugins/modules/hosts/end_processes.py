#!/usr/bin/python
"""Ansible module: end what was started for a state directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: end_processes
short_description: Stop every process of an installation
description:
  - Ends the supervisor, the Ray clusters with all their workers and engines, and the gateway, also those whose
    parents are gone. Processes are known by a mark in their environment and by their session, so nothing else on
    the host is touched.
options:
  installation: {description: "Mark of its processes: the state directory's real path.", type: path, required: true}
  grace: {description: Seconds between the request to end and the end., type: int, default: 20}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure all processes of this installation are stopped
  end_processes:
    installation: /var/lib/heteroserve
"""

RETURN = r"""
ended: {description: How many processes there were., returned: always, type: int}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.processes import INSTALLATION, end, members


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"installation": {"type": "path", "required": True}, "grace": {"type": "int", "default": 20}},
        supports_check_mode=True,
    )
    installation = module.params["installation"]
    count = (
        len(members(INSTALLATION, installation))
        if module.check_mode
        else end(INSTALLATION, installation, module.params["grace"])
    )
    module.exit_json(changed=count > 0, ended=count)


if __name__ == "__main__":
    main()
