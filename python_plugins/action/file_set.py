"""Compare files by checksum in one call of the module file_set, and send those that differ in another."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import generate_ansible_template_vars, trust_as_template

TEXT = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str"},
    "template": {"type": "str"},
    "vars": {"type": "dict", "default": {}},
    "mode": {"type": "str"},
    "group": {"type": "str"},
    "validate": {"type": "str"},
}


def described(content: bytes, **how: Any) -> dict[str, Any]:
    """What the module is told of a file: its checksum, whether it is a text, and how it is to be put in place."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "text": False, "executable": False, **how}


class ActionModule(ActionBase):
    """See the module's documentation."""

    def rendered(self, name: str, task_vars: dict[str, Any]) -> str:
        """A template of the role, as ``ansible.builtin.template`` renders it."""
        path = self._find_needle("templates", name)
        own = generate_ansible_template_vars(path=name, fullpath=path)
        templar = self._templar.copy_with_new_env(
            searchpath=[str(Path(path).parent)], available_variables={**task_vars, **own}
        )
        return str(templar.template(trust_as_template(Path(path).read_text()), escape_backslashes=False))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            {
                "path": {"type": "str"},
                "files": {"type": "dict", "default": {}},
                "texts": {"type": "list", "elements": "dict", "default": [], "options": TEXT},
                "folders": {"type": "list", "elements": "raw", "default": []},
                "absent": {"type": "list", "elements": "str", "default": []},
                "mode": {"type": "str", "required": True},
            }
        )
        sources, texts = asked.pop("files"), {text["path"]: text for text in asked.pop("texts")}
        try:
            contents = {place: Path(file).read_bytes() for place, file in sources.items()}
        except OSError as fault:
            raise AnsibleActionFail(f"a file to copy cannot be read: {fault}") from fault
        files = {
            place: described(content, executable=os.access(sources[place], os.X_OK))
            for place, content in contents.items()
        }
        for place, text in texts.items():
            if (text["content"] is None) == (text["template"] is None):
                raise AnsibleActionFail(f"{place} needs either a content or a template")
            rendered = (
                self.rendered(text["template"], {**(task_vars or {}), **text["vars"]})
                if text["template"]
                else text["content"]
            )
            contents[place] = rendered.encode()
            files[place] = described(
                contents[place], text=True, **{key: text[key] for key in ("mode", "group", "validate")}
            )
        digest = hashlib.sha1("".join(f"{place}:{file['sha256']}\n" for place, file in sorted(files.items())).encode())

        def call(places: list[str]) -> dict[str, Any]:
            sent = {place: base64.b64encode(contents[place]).decode() for place in places}
            given = {**asked, "files": files, "contents": sent}
            return dict(self._execute_module(module_name="file_set", module_args=given, task_vars=task_vars))

        # Texts are short and go along at once; a library is sent where it differs.
        result = call(list(texts))
        if set(result.get("missing") or []) - set(texts) and not result.get("failed") and not self._task.check_mode:
            result = {**call(result["missing"]), "changed": True, "diff": result["diff"]}
        # The contents of a library would fill the screen at -vvv.
        result.pop("invocation", None)
        return {
            **result,
            "digest": digest.hexdigest(),
            "sums": {place: file["sha256"] for place, file in files.items()},
        }
