#!/usr/bin/python
"""Ansible module: note what a host was like before its GPU driver was changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_record
short_description: Record what the installation of a GPU driver changes on a host
description:
  - O(step=begin) notes, before anything is changed, which packages, files and groups the host has.
  - O(step=end) notes which packages came, and for which driver the host was asked to restart.
  - A run that is killed in between is no matter, because the next one goes on from the notes.
options:
  path: {description: File of the notes., type: path, required: true}
  step: {description: Before or after the change., type: str, required: true, choices: [begin, end]}
  packages: {description: Names of the packages that are installed now., type: list, elements: str, required: true}
  files: {description: Files that will be written., type: list, elements: path, default: []}
  groups: {description: Groups that will be made., type: list, elements: str, default: []}
  installing: {description: Whether packages will be installed., type: bool, default: false}
  hold: {description: Packages that upgrades will leave alone., type: list, elements: str, default: []}
  services: {description: Units that will be enabled., type: list, elements: str, default: []}
  restart_for: {description: "Version whose module has to be loaded by a restart, or nothing.", type: str}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Note what the host has
  driver_record:
    path: /var/lib/heteroserve/was/nvidia_driver.json
    step: begin
    packages: "{{ state.installed }}"
    installing: true
"""

RETURN = r"""
record: {description: The notes., returned: success, type: dict}
"""

import grp
import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.hosts.drivers.record import Change, begin, end


def content_of(path: str) -> str | None:
    """Text of a file that is there."""
    try:
        return Path(path).read_text()
    except OSError:
        return None


def missing_groups(names: list[str]) -> tuple[str, ...]:
    """Those of ``names`` that the host has not."""
    known = {entry.gr_name for entry in grp.getgrall()}
    return tuple(name for name in names if name not in known)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "step": {"type": "str", "required": True, "choices": ["begin", "end"]},
            "packages": {"type": "list", "elements": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "groups": {"type": "list", "elements": "str", "default": []},
            "installing": {"type": "bool", "default": False},
            "hold": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "list", "elements": "str", "default": []},
            "restart_for": {"type": "str"},
        },
        supports_check_mode=True,
    )
    options = module.params
    path, packages = Path(options["path"]), tuple(options["packages"])
    try:
        record = dict(json.loads(path.read_text()))
    except FileNotFoundError:
        record = {}
    except (OSError, ValueError) as fault:
        module.fail_json(msg=f"{path}: the notes of earlier runs cannot be read ({fault}): repair or remove the file")
    if options["step"] == "begin":
        files = {name: content_of(name) for name in options["files"] if name not in record.get("files", {})}
        change = Change(
            files,
            missing_groups(options["groups"]),
            tuple(options["hold"]),
            tuple(options["services"]),
            options["installing"],
        )
        fresh = begin(record, packages, change)
    else:
        boot = (content_of("/proc/sys/kernel/random/boot_id") or "").strip()
        version = options["restart_for"]
        restart = {"installed": version, "boot": boot} if version else None
        fresh = end(record, packages, restart)
    changed = fresh != record
    if changed and not module.check_mode:
        write_whole(path, json.dumps(fresh, indent=2, sort_keys=True) + "\n", 0o644)
    module.exit_json(changed=changed, record=fresh)


if __name__ == "__main__":
    main()
