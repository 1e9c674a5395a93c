#!/usr/bin/python
"""Ansible module: what keys have used, of a gateway's ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_usage
short_description: Read the tokens that each API key has used
description:
  - Runs on a gateway's host and reads the ledger there, whether or not the gateway runs.
options:
  ledger: {description: The ledger's file., type: path, required: true}
  config: {description: "Configuration of the ledger, which has the limits of keys.", type: path, required: true}
  days: {description: "Days to read, today among them.", type: int, default: 7}
  key: {description: "Name of the only key to read; empty for all.", type: str, default: ""}
attributes:
  check_mode:
    support: full
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the tokens of this month
  gateway_usage:
    ledger: /var/lib/heteroserve/usage/ledger.sqlite3
    config: /etc/heteroserve/gateway/bookkeeper.json
    days: 31
"""

RETURN = r"""
report: {description: A table., returned: success, type: str}
usage:
  description: "For each day, key and model: requests, prompt_tokens, completion_tokens and tokens."
  returned: success
  type: list
"""

import json
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.gateway import usage
from ansible.module_utils.heteroserve.gateway.ledger import read


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "ledger": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "days": {"type": "int", "default": 7},
            "key": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given, now = module.params, time.time()
    if not Path(given["ledger"]).exists():
        module.fail_json(msg=f"{given['ledger']} does not exist: run playbooks/gateway.yml, which starts the ledger")
    try:
        used = read(Path(given["ledger"]), usage.day_of(now - (max(given["days"], 1) - 1) * usage.DAY_S))
        keys = json.loads(Path(given["config"]).read_text())["keys"]
    except (sqlite3.Error, OSError, ValueError) as fault:
        module.fail_json(msg=f"the ledger {given['ledger']} cannot be read: {fault}")
        raise
    used = [use for use in used if given["key"] in ("", use.key)]
    found = [{**asdict(use), "tokens": use.tokens} for use in used]
    module.exit_json(changed=False, usage=found, report=usage.report(used, keys, now))


if __name__ == "__main__":
    main()
