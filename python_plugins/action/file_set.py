"""Compare files by checksum in one call of the module file_set, and send those that differ in another."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            {
                "path": {"type": "str", "required": True},
                "files": {"type": "dict", "required": True},
                "folders": {"type": "list", "elements": "str", "default": []},
                "mode": {"type": "str", "required": True},
            }
        )
        try:
            contents = {place: Path(file).read_bytes() for place, file in asked["files"].items()}
        except OSError as fault:
            raise AnsibleActionFail(f"a file to copy cannot be read: {fault}") from fault
        files = {
            place: {
                "sha256": hashlib.sha256(content).hexdigest(),
                "executable": os.access(asked["files"][place], os.X_OK),
            }
            for place, content in contents.items()
        }
        digest = hashlib.sha1("".join(f"{place}:{file['sha256']}\n" for place, file in sorted(files.items())).encode())

        def call(sent: dict[str, str]) -> dict[str, Any]:
            given = {**asked, "files": files, "contents": sent}
            return dict(self._execute_module(module_name="file_set", module_args=given, task_vars=task_vars))

        found = call({})
        if found.get("missing") and not found.get("failed") and not self._task.check_mode:
            sent = {place: base64.b64encode(contents[place]).decode() for place in found["missing"]}
            found = {**call(sent), "changed": True}
        # The contents of a library would fill the screen at -vvv.
        found.pop("invocation", None)
        return {**found, "digest": digest.hexdigest()}
