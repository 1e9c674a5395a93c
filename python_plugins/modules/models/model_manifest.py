#!/usr/bin/python
"""Ansible module: size and SHA-256 of every file of a model's weights."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_manifest
short_description: Compute size and SHA-256 of each file of a model's weights
description:
  - Reads the folder once and keeps what it found in O(manifest). A later call reads only files whose size or time
    has changed.
  - A folder that is not there gives no files; one that an engine could not load is a fault.
options:
  name: {description: The model's name., type: str, required: true}
  path: {description: Folder of the weights., type: path, required: true}
  config: {description: The file that says what the weights are., type: str, default: config.json}
  reader: {description: Uid and gid of the user that has to be able to read the weights., type: int}
  manifest: {description: File that keeps what was found., type: path, required: true}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the weights' checksums are recorded
  model_manifest:
    name: llama
    path: /models/llama
    manifest: /var/lib/heteroserve/models/.manifests/llama.json
"""

RETURN = r"""
files: {description: Size and sha256 of each file by its path in the folder., returned: success, type: dict}
bytes: {description: Size of them all., returned: success, type: int}
"""

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.models.weights import (
    checksums,
    contents,
    fault_of_files,
    note,
    read_manifest,
    unchanged,
    unreadable,
)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "config": {"type": "str", "default": "config.json"},
            "reader": {"type": "int"},
            "manifest": {"type": "path", "required": True},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    name, folder, kept = module.params["name"], Path(module.params["path"]), Path(module.params["manifest"])
    if not folder.is_dir():
        module.exit_json(changed=False, files={}, bytes=0)
    fault = fault_of_files(name, folder, module.params["config"])
    if not fault and module.params["reader"]:
        fault = unreadable(name, folder, module.params["reader"])
    if fault:
        module.fail_json(msg=fault)
    root = folder.resolve()
    outside = [path for path in contents(folder) if not path.resolve().is_relative_to(root)]
    if outside:
        module.fail_json(msg=f"models: {name}: {outside[0]} is a link out of its folder: put the file itself there")
    progress = Progress(module.params["progress_path"])
    known = read_manifest(kept)
    files: dict[str, Any] = {}
    fresh: list[Path] = []
    for path in contents(folder):
        inside = str(path.relative_to(folder))
        if inside in known["files"] and unchanged(path, known["files"][inside]):
            files[inside] = known["files"][inside]
        else:
            fresh.append(path)

    def tell(done: int, total: int) -> None:
        progress.say(f"{name}: checksums, {done / 1e9:.1f} of {total / 1e9:.1f} GB")

    if module.check_mode:
        files |= {str(path.relative_to(folder)): note(path, "") for path in fresh}
    else:
        progress.say(f"{name}: checksums of {len(fresh)} files")
        for path, sha256 in checksums(fresh, tell).items():
            files[str(path.relative_to(folder))] = note(path, sha256)
    changed = bool(fresh) or files != known["files"]
    if changed and not module.check_mode:
        text = json.dumps({"source": known["source"] or {"path": str(folder)}, "files": files}, indent=1) + "\n"
        write_whole(kept, text, 0o644)
    offered = {inside: {"size": file["size"], "sha256": file["sha256"]} for inside, file in files.items()}
    module.exit_json(changed=changed, files=offered, bytes=sum(file["size"] for file in files.values()))


if __name__ == "__main__":
    main()
