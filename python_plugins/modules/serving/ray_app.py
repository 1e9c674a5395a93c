#!/usr/bin/python
"""Ansible module: one Ray Serve application, running, or the reason why it is not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_app
short_description: Apply a cell of the plan to its Ray cluster and wait until it serves
description:
  - Puts the cell's application into its Ray Serve over the REST API and waits until Serve calls it running.
  - If it does not become ready, the module fails with one sentence that says why, from Serve's status, the last
    error in the replica's log and the host's memory.
  - A second run with the same plan changes nothing.
options:
  cell: {description: The cell as plan.json has it., type: dict, required: true}
  model: {description: The cell's model as plan.json has it., type: dict, required: true}
  model_path: {description: Folder of the weights on the host., type: path, required: true}
  models_path: {description: Folder in which adapters and draft models lie that were fetched., type: path, default: /}
  token_file: {description: Ray's authentication token., type: path, required: true}
  application_file:
    description: Where the configuration is kept, so that a restarted Ray gets it back.
    type: path
    required: true
  log_dir: {description: "Ray's log folder of the running session.", type: path, required: true}
  process_log: {description: Log of the process that runs Ray., type: path, required: true}
  timeout: {description: Seconds to wait., type: int, default: 900}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the cell serves its model
  ray_app:
    cell: "{{ plan.cells[0] }}"
    model: "{{ plan.models[0] }}"
    model_path: /var/lib/heteroserve/models/llama
    token_file: /var/lib/heteroserve/secrets/ray-token
    application_file: /var/lib/heteroserve/cells/llama-cpu-0/application.json
    log_dir: /tmp/heteroserve/llama-cpu-0/session_latest/logs
    process_log: /var/lib/heteroserve/logs/llama-cpu-0.log
"""

RETURN = r"""
url: {description: Where the cell answers., returned: success, type: str}
waited_s: {description: Seconds until it served., returned: success, type: float}
up_to_date: {description: Whether the cell served all of it before., returned: success, type: bool}
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.common.records import from_dict
from ansible.module_utils.heteroserve.common.web import at
from ansible.module_utils.heteroserve.models.weights import weights_path
from ansible.module_utils.heteroserve.plan.schema import Cell, PlannedModel
from ansible.module_utils.heteroserve.serving.ray_host import Serve, memory_available, replica_log, tail
from ansible.module_utils.heteroserve.serving.ray_serve import Verdict, explain, serve_config, up_to_date, verdict
from ansible.module_utils.heteroserve.serving.starting import step_of


def reach(serve: Serve, deadline: float, progress: Progress, name: str) -> dict[str, Any] | None:
    """Serve's details once its dashboard answers; None if it never did."""
    while time.monotonic() < deadline:
        try:
            return dict(serve.details())
        except OSError:
            progress.say(f"{name}: waiting for Ray to start")
            time.sleep(1)
    return None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "cell": {"type": "dict", "required": True},
            "model": {"type": "dict", "required": True},
            "model_path": {"type": "path", "required": True},
            "models_path": {"type": "path", "default": "/"},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "application_file": {"type": "path", "required": True},
            "log_dir": {"type": "path", "required": True},
            "process_log": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 900},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    started, since = time.monotonic(), time.time()
    progress = Progress(module.params["progress_path"])
    try:
        cell = from_dict(Cell, module.params["cell"], "cell")
        model = from_dict(PlannedModel, module.params["model"], "model")
    except ValueError as fault:
        module.fail_json(msg=f"plan.json: {fault}")
    beside = {item.name: item.source.path or weights_path(module.params["models_path"], item) for item in model.beside}
    wanted = serve_config(cell, model, module.params["model_path"], cell.address, beside)
    url = f"http://{at(cell.address, cell.ports['serve'])}"
    token_file = Path(module.params["token_file"])
    if module.check_mode and not token_file.exists():
        module.exit_json(changed=True, url=url, waited_s=0.0, up_to_date=False)
    serve = Serve(cell.address, cell.ports["dashboard"], token_file.read_text().strip())
    patience = 5 if module.check_mode else 180
    try:
        details = reach(serve, started + patience, progress, cell.name)
    except ValueError as fault:
        module.fail_json(msg=f"{cell.name}: {fault}")
    if details is None and not module.check_mode:
        words = explain(
            f"{cell.name}: Ray does not answer on {at(cell.address, cell.ports['dashboard'])}",
            tail(Path(module.params["process_log"])),
            memory_available(),
            cell.limits.host_memory_bytes,
        )
        module.fail_json(msg=f"{words} (log: {module.params['process_log']})")
    same = details is not None and up_to_date(details, wanted)
    before = verdict(details or {}, cell.name)
    changed = not same or not before.ok
    if module.check_mode:
        module.exit_json(changed=not same, url=url, waited_s=0.0, up_to_date=not changed)
    given_up = same and before.done and not before.ok
    if not same or given_up:
        try:
            if given_up:
                remove(serve, wanted, started + module.params["timeout"])
            serve.put(wanted)
        except (ValueError, OSError) as fault:
            module.fail_json(msg=f"{cell.name}: {fault}")
        write_whole(Path(module.params["application_file"]), json.dumps(wanted))
    wait(module, serve, cell, progress, started, since)
    module.exit_json(changed=changed, url=url, waited_s=round(time.monotonic() - started, 1), up_to_date=not changed)


def remove(serve: Serve, wanted: dict[str, Any], deadline: float) -> None:
    """Delete an application that Serve failed to deploy, and wait until it is gone.

    Serve does not retry it, not even if the same configuration is applied again, or applied during the deletion
    (seen with Ray 2.60).
    """
    serve.put({**wanted, "applications": []})
    while time.monotonic() < deadline and serve.details().get("applications"):
        time.sleep(1)


def wait(module: AnsibleModule, serve: Serve, cell: Cell, progress: Progress, started: float, since: float) -> None:
    """Return when the cell serves; fail the module with the reason when it cannot, or takes too long."""
    said = verdict({}, cell.name)
    log_dir = Path(module.params["log_dir"])
    while time.monotonic() - started < module.params["timeout"]:
        try:
            said = verdict(serve.details(), cell.name)
        except OSError as fault:
            said = Verdict(False, False, f"Ray does not answer: {fault}")
        if said.ok:
            return
        if said.done:
            break
        doing = step_of(replica_log(log_dir, since)) or said.text[:140]
        progress.say(f"{cell.name}: {doing} ({time.monotonic() - started:.0f} s)")
        time.sleep(1)
    else:
        said = Verdict(True, False, f"not ready after {module.params['timeout']} s: {said.text}", said.detail)
    words = explain(
        said.text, f"{replica_log(log_dir, since)}\n{said.detail}", memory_available(), cell.limits.host_memory_bytes
    )
    module.fail_json(msg=f"{cell.name}: {words} (logs: {log_dir})")


if __name__ == "__main__":
    main()
