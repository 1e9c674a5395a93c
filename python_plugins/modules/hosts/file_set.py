#!/usr/bin/python
"""Ansible module: have many files on a host, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Ensure folders and files exist, in one call
description:
  - Compares all files by their checksums in one call, and sends those of the controller that differ in a second one.
    M(ansible.builtin.copy) and M(ansible.builtin.template) take two calls for each file, changed or not.
  - Other files are left alone.
options:
  path:
    description:
      - The folder. It and the folders of its files are made, with O(mode).
      - Without it, places are absolute paths, and the folders that they need are named in O(folders).
    type: path
  files:
    description:
      - Files to copy, by their place below O(path), as paths on the controller.
      - An executable file stays executable, for whoever may read it.
    type: dict
    default: {}
  texts:
    description: Files with a text that the controller has, such as a template's.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: "Its place, absolute or below the set's path.", type: str, required: true}
      content: {description: The text., type: str}
      template: {description: "A template of the role, instead of O(texts[].content).", type: str}
      vars: {description: Variables for the template., type: dict}
      mode: {description: "Another mode than the set's.", type: str}
      group: {description: "The group. Empty: as it is.", type: str}
      validate:
        description: A command that must accept a new text before it is put in place, with C(%s) for a file that has it.
        type: str
  folders:
    description: Further folders, absolute or below O(path), or mappings of C(path) and C(mode).
    type: list
    elements: raw
    default: []
  absent: {description: "Files to remove, absolute or below O(path).", type: list, elements: str, default: []}
  mode:
    description: Mode of the files, such as V(0600). Folders get the execute bit wherever they get the read bit.
    type: str
    required: true
attributes:
  check_mode: {support: full, description: Says what would change.}
  diff_mode: {support: partial, description: "Shows O(texts), and the names of other files."}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the library is in place
  file_set:
    path: /opt/heteroserve/lib
    files: {serving/__init__.py: "{{ role_path }}/files/__init__.py"}
    mode: "0644"

- name: Ensure K3s is configured
  file_set:
    folders: [{path: /etc/rancher/k3s, mode: "0700"}]
    texts:
      - {path: /etc/rancher/k3s/config.yaml, content: "{{ k3s_config | to_nice_yaml }}"}
      - {path: /etc/systemd/system/k3s.service, template: k3s.service.j2, mode: "0644"}
    absent: [/etc/systemd/system/k3s.service.env]
    mode: "0600"
"""

RETURN = r"""
digest: {description: Checksum of all files and their places., returned: success, type: str}
sums: {description: The SHA-256 of each file., returned: success, type: dict}
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


def under(params: dict[str, Any]) -> Path:
    """The folder that places are below."""
    return Path(os.path.expanduser(params["path"] or "/"))


def all_folders(params: dict[str, Any], mode: int) -> dict[Path, int]:
    """Every folder with its mode, from the top: named ones, and under a root also it and those of its files."""
    root = under(params)
    found: dict[Path, int] = {}
    if params["path"]:
        found[root] = readers_enter(mode)
        for place in params["files"]:
            found.update({parent: found[root] for parent in (root / place).parents if root in parent.parents})
    for folder in params["folders"]:
        named = folder if isinstance(folder, dict) else {"path": folder}
        found[root / os.path.expanduser(named["path"])] = (
            octal(named["mode"]) if "mode" in named else readers_enter(mode)
        )
    return dict(sorted(found.items()))


def octal(text: str) -> int:
    """A mode; raises ValueError with a sentence."""
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"mode: {text} is not an octal number such as 0600") from None


def text_of(content: bytes) -> str:
    """What a diff shows of a file."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"({len(content)} bytes)\n"


def shown(path: Path, content: bytes | None) -> dict[str, str]:
    """The difference between a file on the host and what it becomes; without a content its name alone."""
    if content is None:
        return {"prepared": f"{path}\n"}
    before = path.read_bytes() if path.is_file() else b""
    return {
        "before": text_of(before),
        "after": text_of(content),
        "before_header": str(path),
        "after_header": str(path),
    }


def write(module: AnsibleModule, path: Path, content: bytes, validate: str | None) -> None:
    """Put a file in its place, whole. Until it gets its mode, nobody else may read it."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    if validate:
        code, out, err = module.run_command(validate.replace("%s", name))
        if code:
            module.fail_json(msg=f"{path} would not be valid: {(err or out).strip()}; it was not changed")
    usual = os.umask(0o077)
    try:
        module.atomic_move(name, str(path))
    finally:
        os.umask(usual)


def ensure(module: AnsibleModule) -> dict[str, Any]:
    """Make folders, write what was sent, remove what has to go, set modes; returns the module's results."""
    params = module.params
    root, mode = under(params), octal(params["mode"])
    contents = {place: base64.b64decode(content) for place, content in params["contents"].items()}
    changed, missing, diff = False, [], []
    for folder, folder_mode in all_folders(params, mode).items():
        if not folder.is_dir():
            changed = True
            if not module.check_mode:
                folder.mkdir(mode=0o700, parents=True)
        if folder.is_dir():
            changed |= module.set_mode_if_different(str(folder), folder_mode, False)
    for place, file in sorted(params["files"].items()):
        path = root / os.path.expanduser(place)
        wanted = octal(file.get("mode") or params["mode"])
        if differs(path, file["sha256"]):
            missing.append(place)
            changed = True
            diff.append(shown(path, contents.get(place) if file["text"] else None))
            if place not in contents or module.check_mode:
                continue
            write(module, path, contents[place], file.get("validate"))
        if file.get("group"):
            changed |= module.set_group_if_different(str(path), file["group"], False)
        changed |= module.set_mode_if_different(
            str(path), readers_enter(wanted) if file["executable"] else wanted, False
        )
    for path in map(root.joinpath, map(os.path.expanduser, params["absent"])):
        if path.is_symlink() or path.exists():
            changed = True
            diff.append({"before": f"{path}\n", "after": ""})
            if not module.check_mode:
                path.unlink()
    return {"changed": changed, "missing": missing, **({"diff": diff} if diff else {})}


def main() -> None:
    """Entry point. The action plugin of this name gives the files' checksums and texts, and content where needed."""
    module = AnsibleModule(
        {
            "path": {"type": "path"},
            "files": {"type": "dict", "default": {}},
            "folders": {"type": "list", "elements": "raw", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
            "mode": {"type": "str", "required": True},
            "contents": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**ensure(module))
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    except OSError as fault:
        module.fail_json(msg=f"{fault.filename}: {fault.strerror}")


if __name__ == "__main__":
    main()
