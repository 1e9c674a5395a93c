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
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.common.records import from_dict
from ansible.module_utils.heteroserve.common.web import at, open_own
from ansible.module_utils.heteroserve.models.weights import weights_path
from ansible.module_utils.heteroserve.plan.schema import Cell, PlannedModel
from ansible.module_utils.heteroserve.serving.ray_serve import Verdict, explain, serve_config, up_to_date, verdict
from ansible.module_utils.heteroserve.serving.starting import step_of

TAIL_BYTES = 60_000


class Serve:
    """The REST API of one cell's Ray Serve. Raises OSError when it cannot be reached."""

    def __init__(self, address: str, port: int, token: str) -> None:
        self._url = f"http://{at(address, port)}/api/serve/applications/"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def details(self) -> dict[str, Any]:
        """Everything that Serve says of itself. Raises ValueError if it does not take the token."""
        request = urllib.request.Request(self._url, headers=self._headers)
        try:
            with open_own(request, 30) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise ValueError(
                    f"the Ray on {self._url} does not take this installation's token: another Ray has its port"
                    " (set cell_port_base to a free range), or the token was changed (run down, then up)"
                ) from error
            raise

    def put(self, config: dict[str, Any]) -> None:
        """Make ``config`` the whole of what Serve runs. Raises ValueError with Serve's words if it refuses."""
        data = json.dumps(config).encode()
        request = urllib.request.Request(self._url, data=data, headers=self._headers, method="PUT")
        try:
            with open_own(request, 120):
                return
        except urllib.error.HTTPError as error:
            raise ValueError(f"Serve refused the application ({error.code}): {error.read().decode()[-600:]}") from error


def tail(path: Path) -> str:
    """The end of a log; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def replica_log(log_dir: Path, since: float) -> str:
    """What replicas and their engines wrote since ``since`` (Unix time), the newest last."""
    files = [*log_dir.glob("serve/replica_*.log"), *log_dir.glob("worker-*.err"), *log_dir.glob("worker-*.out")]
    recent = sorted((path.stat().st_mtime, path) for path in files if path.stat().st_mtime >= since)
    return "\n".join(tail(path) for _, path in recent)


def memory_available() -> int:
    """Bytes of memory that the host has free."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def reach(serve: Serve, deadline: float, progress: Progress, name: str) -> dict[str, Any] | None:
    """Serve's details once its dashboard answers; None if it never did."""
    while time.monotonic() < deadline:
        try:
            return serve.details()
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
