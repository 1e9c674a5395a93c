#!/usr/bin/python
"""Ansible module: what is wrong with the cells of a host under the runtime ray."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_findings
short_description: Say why cells of a host do not answer
description:
  - Reads supervisord's states and log, Ray Serve's status and the logs of replicas. Waits for nothing and changes
    nothing.
  - A host that shows nothing of this is what a finding says.
options:
  cells: {description: Cells of the host as plan.json has them., type: list, elements: dict, required: true}
  token_file: {description: Ray's authentication token., type: path, required: true}
  supervisorctl: {description: The command that asks supervisord., type: list, elements: str, required: true}
  logs: {description: Folder with the logs of the processes that run Ray., type: path, required: true}
  run_dir: {description: "Folder of Ray's sessions, each named after its cell's port.", type: path, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Find what is wrong with the host's cells
  ray_findings:
    cells: "{{ plan.cells }}"
    token_file: /var/lib/heteroserve/secrets/ray-token
    supervisorctl: [supervisorctl, -c, /var/lib/heteroserve/supervisor/supervisord.conf]
    logs: /var/lib/heteroserve/logs
    run_dir: /tmp/hs-1a2b3c4d
"""

RETURN = r"""
findings: {description: A sentence for each cell with which something is wrong., returned: always, type: list}
files: {description: "Serve's status of each cell by file name, as JSON.", returned: always, type: dict}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.common.records import from_dict
from ansible.module_utils.heteroserve.plan.schema import Cell
from ansible.module_utils.heteroserve.serving.ray_diagnosis import Seen, finding, programs, unexpected_ends
from ansible.module_utils.heteroserve.serving.ray_host import Serve, memory_available, replica_log, tail


def details_of(cell: Cell, token_file: Path) -> tuple[dict[str, Any] | None, str]:
    """What Serve says of itself, or why it does not."""
    try:
        return Serve(cell.address, cell.ports["dashboard"], token_file.read_text().strip()).details(), ""
    except (OSError, ValueError) as fault:
        return None, str(fault)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cells": {"type": "list", "elements": "dict", "required": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "supervisorctl": {"type": "list", "elements": "str", "required": True},
            "logs": {"type": "path", "required": True},
            "run_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    states = programs(Machine(timeout=20).run(*asked["supervisorctl"], "status").text)
    logs = Path(asked["logs"])
    findings, files = [], {}
    for cell in (from_dict(Cell, one, "cell") for one in asked["cells"]):
        details, fault = details_of(cell, Path(asked["token_file"]))
        seen = Seen(
            cell.name,
            states.get(cell.name, "not known to it" if states else ""),
            details,
            fault,
            tail(logs / f"{cell.name}.log"),
            replica_log(Path(asked["run_dir"], str(cell.ports["serve"]), "session_latest", "logs"), 0),
            memory_available(),
            cell.limits.host_memory_bytes * len(cell.replicas),
        )
        findings += [said for said in [finding(seen)] if said]
        files[f"serve-{cell.name}.json"] = json.dumps(details if details is not None else {"fault": fault}, indent=1)
    findings += unexpected_ends(tail(logs / "supervisord.log"))
    module.exit_json(changed=False, findings=findings, files=files)


if __name__ == "__main__":
    main()
