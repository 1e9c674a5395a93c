#!/usr/bin/python
"""Documentation of the action plugin support_archive, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: support_archive
short_description: Write what was collected of an installation into one archive, without secrets
description:
  - Adds what the state directory, the inventory and the facts say, puts the findings into words and writes an index.
  - Removes secrets by value, in the forms in which programs write them - all that the state directory keeps, variables
    of the inventory, the command line and the environment whose name says that they are secret, and what a vault
    encrypts. Removes secrets by shape - keys, tokens, passwords in URLs, names followed by a value.
  - Changes nothing but the archive, which is mode 0600.
options:
  folder: {description: Where the archive is written., type: path, required: true}
  state_dir: {description: The state directory., type: path, required: true}
  about: {description: Lines of the index., type: dict, required: true}
  parts:
    description: "What was collected of each host: host, files, findings, cut, and fault where it could not be."
    type: list
    elements: dict
    required: true
  cluster: {description: Return values of M(k3s_findings)., type: dict, default: {}}
  facts: {description: Hardware by host., type: dict, default: {}}
  status: {description: Return values of M(endpoint_status)., type: dict, default: {}}
  commands: {description: Text of the controller's commands by file name., type: dict, default: {}}
  total_kib: {description: KiB of all files together before they are compressed., type: int, default: 32768}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Write the archive
  support_archive:
    folder: "{{ state_dir }}/support"
    state_dir: "{{ state_dir }}"
    about: {runtime: ray}
    parts: [{host: local, files: {df.txt: "..."}}]
"""

RETURN = r"""
path: {description: The archive., returned: success, type: str}
report: {description: The findings and where the archive is., returned: success, type: str}
"""
