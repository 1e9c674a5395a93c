#!/usr/bin/python
"""Documentation of the action plugin run_state, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_state
short_description: Lock the state directory for this run and read its plan
description:
  - Makes the state directory on the controller (mode 0700) and notes in it which ansible-playbook works with it.
    While that process lives, another one that needs the directory fails with one sentence.
  - The note needs no removal. It counts only as long as the process that it names lives, so a run that was killed
    leaves nothing to clean up.
  - Returns the plan if there is one.
options:
  path: {description: The state directory., type: path, required: true}
  plan_required: {description: Fail if there is no plan., type: bool, default: false}
  read_only: {description: Neither make the directory nor lock it., type: bool, default: false}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure this run has the state directory to itself
  run_state:
    path: "{{ state_dir }}"
    plan_required: true
"""

RETURN = r"""
plan: {description: The content of plan.json; empty if there is none., returned: success, type: dict}
"""
