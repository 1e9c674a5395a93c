#!/usr/bin/python
"""Ansible module: have many small files on a host, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Ensure folders, and files of the controller, exist
description:
  - Compares all files by their checksums in one call, and sends those that differ in a second one.
    M(ansible.builtin.copy) takes two calls for each file, changed or not.
  - Files with other names in O(path) are left alone.
options:
  path: {description: The folder. It and the folders below it are made., type: path, required: true}
  files:
    description:
      - The files to copy, by their place below O(path), as paths on the controller.
      - An executable file stays executable, for whoever may read it.
    type: dict
    required: true
  folders: {description: "Further folders, absolute or below O(path).", type: list, elements: str, default: []}
  mode:
    description: Mode of the files, such as V(0600). Folders get the execute bit wherever they get the read bit.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would change.}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the library is in place
  file_set:
    path: /opt/heteroserve/lib
    files: {serving/__init__.py: "{{ role_path }}/files/__init__.py"}
    mode: "0644"
"""

RETURN = r"""
digest: {description: Checksum of all files and their places., returned: success, type: str}
missing: {description: Places of the files that were missing or differed., returned: success, type: list}
"""

import base64
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def differs(path: Path, sha256: str) -> bool:
    """Whether a file has another content, or is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() != sha256
    except OSError:
        return True


def readers_enter(mode: int) -> int:
    """A mode, with the right to execute for whoever has that to read."""
    return mode | (mode & 0o444) >> 2


def all_folders(root: Path, places: list[str], further: list[str]) -> list[Path]:
    """The root, every folder below it that has a file, and further ones, from the top."""
    found = {root, *(root / folder for folder in further)}
    for place in places:
        found.update(parent for parent in (root / place).parents if root in parent.parents)
    return sorted(found)


def write(module: AnsibleModule, path: Path, content: bytes) -> None:
    """Put a file in its place, whole."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    module.atomic_move(name, str(path))


def ensure(module: AnsibleModule, root: Path, mode: int) -> dict[str, Any]:
    """Make folders, write what was sent, set modes; returns the module's results."""
    files, contents = module.params["files"], module.params["contents"]
    changed = False
    for folder in all_folders(root, list(files), module.params["folders"]):
        if not folder.is_dir():
            changed = True
            if not module.check_mode:
                folder.mkdir(parents=True)
        if folder.is_dir():
            changed |= module.set_mode_if_different(str(folder), readers_enter(mode), False)
    missing = sorted(place for place, file in files.items() if differs(root / place, file["sha256"]))
    for place, file in sorted(files.items()):
        path = root / place
        if place in missing:
            changed = True
            if place not in contents or module.check_mode:
                continue
            write(module, path, base64.b64decode(contents[place]))
        changed |= module.set_mode_if_different(str(path), readers_enter(mode) if file["executable"] else mode, False)
    if not missing:
        return {"changed": changed, "missing": []}
    return {
        "changed": changed,
        "missing": missing,
        "diff": {"prepared": "".join(f"{root / name}\n" for name in missing)},
    }


def main() -> None:
    """Entry point. The action plugin of this name gives each file's checksum and, the second time, content."""
    module = AnsibleModule(
        {
            "path": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "folders": {"type": "list", "elements": "str", "default": []},
            "mode": {"type": "str", "required": True},
            "contents": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        mode = int(module.params["mode"], 8)
    except ValueError:
        module.fail_json(msg=f"mode: {module.params['mode']} is not an octal number such as 0600")
    try:
        module.exit_json(**ensure(module, Path(module.params["path"]), mode))
    except OSError as fault:
        module.fail_json(msg=f"{fault.filename}: {fault.strerror}")


if __name__ == "__main__":
    main()
