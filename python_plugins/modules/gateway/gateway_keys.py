#!/usr/bin/python
"""Ansible module: API keys of the endpoint, of which only their SHA-256 is kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_keys
short_description: Create, change, revoke and list API keys
description:
  - Keeps keys in a file on the controller, from which the role gateway writes HAProxy's maps. A key itself is shown
    once, when it is made, and not kept.
options:
  path: {description: The file., type: path, required: true}
  state:
    description:
      - C(present) makes the key, or changes the limits of one that exists. C(absent) revokes it. C(listed) changes
        nothing.
    type: str
    choices: [present, absent, listed]
    default: listed
  name: {description: Whose key it is., type: str, default: ""}
  expires: {description: "Its last day, in UTC, such as 2027-12-31; an empty text takes the end away.", type: str}
  models: {description: "Models that it may use; an empty list allows all.", type: list, elements: str}
  requests_per_minute: {description: Requests in a minute of the clock; 0 takes the limit away., type: int}
  concurrent_requests: {description: Requests in progress; 0 takes the limit away., type: int}
  tokens_per_day: {description: "Tokens of prompts and answers in a day, in UTC; 0 takes the limit away.", type: int}
  priority: {description: "C(interactive), or C(batch), whose requests wait until others have their turn.", type: str}
  known_models: {description: Models and adapters of the plan., type: list, elements: str, default: []}
  inventory: {description: "C(gateway_api_keys) without keys and digests.", type: list, elements: dict, default: []}
attributes:
  check_mode:
    support: full
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure alice has a key
  gateway_keys:
    path: /srv/heteroserve/secrets/keys.json
    state: present
    name: alice
    requests_per_minute: 60
"""

RETURN = r"""
report: {description: "The new key, or all keys as a table.", returned: success, type: str}
keys: {description: "All keys of the file, without what is secret.", returned: success, type: list}
"""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.common.records import to_dict
from ansible.module_utils.heteroserve.gateway import keys as decide


def read(module: AnsibleModule, path: Path) -> tuple[decide.Key, ...]:
    """What is kept; nothing before the first key was made."""
    try:
        return decide.read(json.loads(path.read_text())) if path.exists() else ()
    except ValueError as fault:
        module.fail_json(
            msg=f"{path} cannot be read ({fault}): restore it from a backup, or remove it and all its keys"
        )
        raise


def wanted(module: AnsibleModule) -> decide.Wanted:
    """What is asked for, if it can be done."""
    given = module.params
    models = None if given["models"] is None else tuple(given["models"])
    limits = {name: given[name] for name in decide.LIMITS if name != "models"}
    asked = decide.Wanted(given["name"], models=models, **limits)
    faults = decide.faults(asked, given["known_models"], [str(key.get("name")) for key in given["inventory"]])
    if faults:
        module.fail_json(msg="; ".join(faults))
    return asked


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "listed"], "default": "listed"},
            "name": {"type": "str", "default": ""},
            "expires": {"type": "str"},
            "models": {"type": "list", "elements": "str"},
            "requests_per_minute": {"type": "int"},
            "concurrent_requests": {"type": "int"},
            "tokens_per_day": {"type": "int"},
            "priority": {"type": "str"},
            "known_models": {"type": "list", "elements": "str", "default": []},
            "inventory": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given, path = module.params, Path(module.params["path"])
    today = datetime.now(UTC).date().isoformat()
    old = read(module, path)
    names = [key.name for key in old]
    secret, found, news = f"sk-{secrets.token_urlsafe(32)}", old, ""
    if given["state"] == "present":
        found = decide.present(old, wanted(module), secret, today)
        if given["name"] not in names and not module.check_mode:
            news = f"The key of {given['name']}, which is shown this once: {secret}\n\n"
    elif given["state"] == "absent":
        found = decide.absent(old, wanted(module).name)
    if found != old and not module.check_mode:
        write_whole(path, json.dumps(to_dict(found), indent=1) + "\n")
    shown: list[dict[str, Any]] = [
        {name: value for name, value in to_dict(key).items() if name != "sha256"} for key in found
    ]
    module.exit_json(changed=found != old, keys=shown, report=news + decide.shown(found, given["inventory"], today))


if __name__ == "__main__":
    main()
