#!/usr/bin/python
"""Documentation of the action plugin run_state, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_state
short_description: Lock the state directory for this run and read its plan
description:
  - Makes the state directory on the controller (mode 0700) and locks it (flock of C(run.lock)) until this
    ansible-playbook ends. Another run that needs the directory, in another container or on another host too, fails
    with one sentence that names this one.
  - The lock needs no removal. The kernel drops it with the process, so a run that was killed leaves nothing to clean
    up.
  - Where the inventory has a host in the group C(state), the directory is this run's copy of what that host keeps. This
    run takes the state there too, copies it, and starts a process that writes back what changes until the run ends.
  - Returns the plan if there is one. In a check run that is the one which the stage plan has made and not written.
options:
  path: {description: "The state directory, as an absolute path.", type: str, required: true}
  plan_required: {description: Fail if there is no plan., type: bool, default: false}
  read_only:
    description: Neither make the directory nor lock it. A state host is read, whoever works with it.
    type: bool
    default: false
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
kept: {description: "The directory, if a state host keeps it for this run.", returned: with a state host, type: str}
"""
