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
  chatbot_file:
    description: File that says where the chatbot's page is (C(url)); without the file there is no chatbot.
    type: path
  places: {description: Names and paths to show., type: dict, default: {}}
  gpu_faults: {description: "File of the guard of the GPUs, which drains cells on broken ones.", type: path}
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

import json
import ssl
import urllib.error
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.web import open_own
from ansible.module_utils.heteroserve.gateway.haproxy import server_rows
from ansible.module_utils.heteroserve.health.endpoint import cell_url, status_table, summary


def state_of(url: str, context: ssl.SSLContext | None = None) -> str:
    """ "up", or why not."""
    try:
        with open_own(f"{url}/health", 10, context):
            return "up"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError:
        return "down"


def any_certificate() -> ssl.SSLContext:
    """For what is asked whether it runs, not who it is: its certificate may be one that only browsers know."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def statistics_of(url: str) -> str:
    """HAProxy's statistics in CSV; nothing if it does not run."""
    try:
        with open_own(f"{url}/;csv", 10) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def chatbot_of(path: str | None) -> str | None:
    """Where the chatbot's page is; None if there is no chatbot."""
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["url"]) if path else None
    except FileNotFoundError:
        return None


def out_of_use(plan: dict[str, Any], drained: list[str]) -> list[str]:
    """Drained cells, and the command that returns their hosts."""
    hosts = sorted({host for cell in plan["cells"] if cell["name"] in drained for host in cell["hosts"]})
    ways = [f"./heteroserve run playbooks/drain.yml -e drain_host={host} -e drain_state=absent" for host in hosts]
    return [f"{', '.join(drained)}: drained; {' and '.join(ways)} takes it into use again"] if drained else []


def gpu_faults(path: str | None) -> list[str]:
    """Why cells are drained, as the guard of the GPUs says; nothing where there is none."""
    try:
        return [str(record["reason"]) for record in json.loads(Path(path or "").read_text())]
    except (OSError, ValueError, KeyError):
        return []


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "endpoint": {"type": "str", "required": True},
            "statistics": {"type": "str", "required": True},
            "question": {"type": "str", "required": True},
            "needs_key": {"type": "bool", "default": False, "no_log": False},
            "chatbot_file": {"type": "path"},
            "places": {"type": "dict", "default": {}},
            "gpu_faults": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    states = {cell["name"]: state_of(cell_url(cell)) for cell in asked["plan"]["cells"]}
    text = statistics_of(asked["statistics"])
    servers = server_rows(text) if text else {}
    down = [name for name, state in states.items() if state != "up"]
    drained = [name for name in states if servers.get(name, {}).get("status", "").startswith(("DRAIN", "MAINT"))]
    unseen = [name for name in states if servers.get(name, {}).get("status") != "UP" and name not in [*down, *drained]]
    missing = [f"{name} is {states[name]}" for name in down if name not in drained]
    missing += [] if text else ["the gateway does not run"]
    missing += [f"the gateway does not see {name}" for name in unseen] if text else []
    faults = [*missing, "./heteroserve up starts what is missing"] if missing else []
    faults += out_of_use(asked["plan"], drained)
    broken = gpu_faults(asked["gpu_faults"])
    faults += broken
    places = dict(asked["places"])
    if chatbot := chatbot_of(asked["chatbot_file"]):
        state = state_of(chatbot, any_certificate())
        places = {"chatbot": chatbot if state == "up" else f"{chatbot} ({state})", **places}
        faults += (
            [] if state == "up" else [f"the chatbot is {state}; ./heteroserve run playbooks/chatbot.yml starts it"]
        )
    report = "\n\n".join(
        [
            status_table(asked["plan"], states, servers),
            *broken,
            summary(asked["endpoint"], asked["plan"], asked["question"], asked["needs_key"], places),
        ]
    )
    module.exit_json(changed=False, up=not faults, faults=faults, report=report)


if __name__ == "__main__":
    main()
