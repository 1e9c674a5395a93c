#!/usr/bin/python
"""Ansible module: K3s runs on this host, and its node is Ready."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_service
short_description: Start K3s and wait until its node is Ready
description:
  - Enables and starts the unit, or restarts it where C(restart) gives reasons, and waits until the node is Ready, as
    the node sees itself. Where it does not become Ready, says why with the last words of K3s or of the kubelet.
options:
  host: {description: Name of the node., type: str, required: true}
  unit: {description: Name of the systemd unit., type: str, required: true}
  restart: {description: Reasons to restart a running unit., type: list, elements: str, default: []}
  timeout: {description: Seconds to wait., type: int, default: 300}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure K3s is started
  k3s_service:
    host: r760-1
    unit: k3s
    restart: [/etc/rancher/k3s/config.yaml]
"""

RETURN = r"""
waited_s: {description: Seconds until the node was Ready., returned: success, type: float}
"""

import json
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.common.systemd import last_words, properties

BINARY = "/usr/local/bin/k3s"
# Root on a server may ask as the administrator; an agent asks as its own kubelet, which may read its own node.
KUBECONFIGS = ("/etc/rancher/k3s/k3s.yaml", "/var/lib/rancher/k3s/agent/kubelet.kubeconfig")
ENDED_TOO_OFTEN = 3  # times that the unit may end by itself before it is called broken


def node_trouble(host: str) -> str | None:
    """What keeps the node from being Ready, in the kubelet's words; None if it is Ready."""
    kubeconfig = next((path for path in KUBECONFIGS if Path(path).exists()), None)
    if kubeconfig is None:
        return "it has not got its certificates yet"
    # By its path, or kubectl would first ask for all kinds of objects and keep them in root's home.
    path = f"/api/v1/nodes/{host}"
    command = [BINARY, "kubectl", "--kubeconfig", kubeconfig, "get", "--raw", path, "--request-timeout=5s"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "the API does not answer"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["the API does not answer"])[-1]
    for condition in json.loads(done.stdout)["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return None if condition["status"] == "True" else condition["message"]
    return "it has not reported yet"


def systemctl(*words: str) -> None:
    """Run systemctl. Raises ``ValueError`` with its words."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise ValueError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")


def wait(host: str, unit: str, timeout: int, progress: Progress) -> str | None:
    """Wait until unit and node are up; why they are not, if time runs out or the unit keeps ending."""
    began = time.monotonic()
    ended_before = int(properties(unit)["NRestarts"] or 0)
    trouble = "it does not start"
    while time.monotonic() - began < timeout:
        state = properties(unit)
        if int(state["NRestarts"] or 0) - ended_before >= ENDED_TOO_OFTEN or state["ActiveState"] == "failed":
            return f"{unit} keeps ending. Its last words: {' / '.join(last_words(unit)) or 'none'}"
        if state["ActiveState"] == "active":
            found = node_trouble(host)
            if found is None:
                return None
            trouble = f"the node is not Ready ({found})"
        else:
            trouble = f"{unit} is {state['ActiveState']}"
        progress.say(f"{unit}: {trouble}, {time.monotonic() - began:.0f} s")
        time.sleep(1)
    words = " / ".join(last_words(unit))
    return f"after {timeout} s {trouble}{'. Last words: ' + words if words else ''}"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "restart": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 300},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    host, unit, restart = module.params["host"], module.params["unit"], module.params["restart"]
    began = time.monotonic()
    state = properties(unit)
    enabled = state["UnitFileState"] == "enabled"
    start = state["ActiveState"] != "active"
    changed = start or bool(restart) or not enabled
    if module.check_mode:
        module.exit_json(changed=changed, waited_s=0.0)
    try:
        if not enabled:
            systemctl("enable", unit)
        if restart and not start:
            systemctl("restart", "--no-block", unit)
        elif state["ActiveState"] not in ("active", "activating"):
            systemctl("start", "--no-block", unit)
        trouble = wait(host, unit, module.params["timeout"], Progress(module.params["progress_path"]))
    except ValueError as error:
        trouble = str(error)
    if trouble:
        module.fail_json(
            msg=f"{host}: {trouble}. Repair that and run this again; journalctl -u {unit} on the host tells more"
        )
    module.exit_json(changed=changed, waited_s=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
