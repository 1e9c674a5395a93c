#!/usr/bin/python
"""Documentation of the action plugin ``bmc``."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bmc
short_description: Run a Redfish module against a host's BMC
description:
  - Runs on the controller. Hands address, account and certificate authority to a module of C(community.general) or
    C(dellemc.openmanage), each in its own words, and says in one sentence what the BMC refused.
options:
  module: {description: The module by its full name., type: str, required: true}
  arguments: {description: The module's other arguments., type: dict, default: {}}
  bmc:
    description:
      - "The BMC: address, port, user, password, ca. With an empty ca its certificate is not checked."
    type: dict
    required: true
  doing:
    description: What the call is for, as it stands in the sentence.
    type: str
    required: true
    choices: [bios, boot, firmware, media, power, read]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the system
  bmc:
    module: community.general.redfish_info
    doing: read
    bmc: {address: 10.20.0.11, port: 443, user: root, password: "{{ vault_bmc_password }}", ca: ""}
    arguments: {category: [Systems], command: [GetSystemInventory]}
  delegate_to: localhost
"""

RETURN = r"""
said: {description: What the module said., returned: failure, type: str}
"""
