"""Run a Redfish module against a host's BMC. Documented in modules/metal/bmc.py.

Collections name the same things differently, and what they print of a failure is the request and its stack of reasons.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]


def sentence(*words: str) -> str:
    """The shared code's, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return str(importlib.import_module("ansible.module_utils.heteroserve.metal.faults").sentence(*words))


def arguments(module: str, bmc: dict[str, Any]) -> dict[str, Any]:
    """Where the BMC is and who asks, as the module's collection calls it."""
    checked = {"validate_certs": bool(bmc["ca"]), **({"ca_path": bmc["ca"]} if bmc["ca"] else {})}
    address = f"[{bmc['address']}]" if ":" in bmc["address"] else bmc["address"]
    if module.startswith("dellemc.openmanage.idrac_"):
        own = {"idrac_ip": bmc["address"], "idrac_port": bmc["port"], "idrac_user": bmc["user"]}
        return {**own, "idrac_password": bmc["password"], **checked}
    return {"baseuri": f"{address}:{bmc['port']}", "username": bmc["user"], "password": bmc["password"], **checked}


class ActionModule(ActionBase):
    """Runs on the controller only."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            argument_spec={
                "module": {"type": "str", "required": True},
                "arguments": {"type": "dict", "default": {}},
                "bmc": {"type": "dict", "required": True},
                "doing": {"type": "str", "required": True},
            }
        )
        bmc = given["bmc"]
        if self._task.check_mode and given["doing"] != "read":
            return {**result, "changed": True}
        done = self._execute_module(
            module_name=given["module"],
            module_args={**given["arguments"], **arguments(given["module"], bmc)},
            task_vars=task_vars,
        )
        if done.pop("unreachable", False) or done.get("failed"):
            said = str(done.get("msg") or done.get("status_msg") or done.get("error_info") or "")
            image = str((given["arguments"].get("virtual_media") or {}).get("image_url") or "")
            msg = sentence(said, given["doing"], str(bmc["address"]), str(bmc["user"]), image)
            return {**result, "failed": True, "changed": False, "msg": msg, "said": said}
        done.pop("invocation", None)
        return {**result, **done}
