#!/usr/bin/python
"""Ansible module: what is up, and how to call it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_status
short_description: Show the state of the cells and the gateway
description:
  - Asks each cell's health address and HAProxy's statistics, and prints a table with the endpoint, a command that
    calls it and the places of plan and logs. Changes nothing.
options:
  plan: {description: The plan., type: dict, required: true}
  endpoint: {description: "The endpoint, without C(/v1).", type: str, required: true}
  statistics: {description: Address of HAProxy's statistics., type: str, required: true}
  question: {description: A question for the command., type: str, required: true}
  needs_key: {description: Whether clients must send a key., type: bool, default: false}
  places: {description: Names and paths to show., type: dict, default: {}}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Show what runs
  endpoint_status:
    plan: "{{ plan }}"
    endpoint: http://127.0.0.1:8080
    statistics: http://127.0.0.1:8405
    question: What is the capital of France?
"""

RETURN = r"""
up: {description: Whether every cell is up and the gateway sees it., returned: always, type: bool}
report: {description: The table and the summary., returned: always, type: str}
"""

import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.gateway.haproxy import server_rows
from ansible.module_utils.heteroserve.health.endpoint import cell_url, status_table, summary


def state_of(url: str) -> str:
    """ "up", or why not."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10):
            return "up"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError:
        return "down"


def statistics_of(url: str) -> str:
    """HAProxy's statistics in CSV; nothing if it does not run."""
    try:
        with urllib.request.urlopen(f"{url}/;csv", timeout=10) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "endpoint": {"type": "str", "required": True},
            "statistics": {"type": "str", "required": True},
            "question": {"type": "str", "required": True},
            "needs_key": {"type": "bool", "default": False, "no_log": False},
            "places": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    asked = module.params
    states = {cell["name"]: state_of(cell_url(cell)) for cell in asked["plan"]["cells"]}
    text = statistics_of(asked["statistics"])
    servers = server_rows(text) if text else {}
    down = [name for name, state in states.items() if state != "up"]
    unseen = [name for name in states if servers.get(name, {}).get("status") != "UP" and name not in down]
    faults = [f"{name} is {states[name]}" for name in down]
    faults += [] if text else ["the gateway does not run"]
    faults += [f"the gateway does not see {name}" for name in unseen] if text else []
    report = "\n\n".join(
        [
            status_table(asked["plan"], states, servers),
            summary(asked["endpoint"], asked["plan"], asked["question"], asked["needs_key"], asked["places"]),
        ]
    )
    module.exit_json(changed=False, up=not faults, faults=faults, report=report)


if __name__ == "__main__":
    main()
