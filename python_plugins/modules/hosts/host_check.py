#!/usr/bin/python
"""Ansible module: can this host carry its part of the plan?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Check a host before anything is changed on it
description:
  - Looks at the ports of the cells, free memory and disk, the Python interpreter and the folders that will be
    written, and fails with all faults at once. What is already in place, or runs already, is not asked for again.
options:
  state_dir: {description: Folder of everything that is written on the host., type: path, required: true}
  installation: {description: "Mark of its processes: the state directory's real path.", type: path, required: true}
  run_dir: {description: Folder of the sockets., type: path, required: true}
  python: {description: Interpreter for the environments., type: str, required: true}
  cells: {description: Cells of the plan on this host., type: list, elements: dict, required: true}
  models: {description: Models of the plan., type: list, elements: dict, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check the host
  host_check:
    state_dir: /var/lib/heteroserve
    installation: /var/lib/heteroserve
    run_dir: /run/heteroserve
    python: /usr/bin/python3
    cells: "{{ plan.cells }}"
    models: "{{ plan.models }}"
"""

RETURN = r"""
faults: {description: One sentence for each fault., returned: always, type: list}
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.files import existing_parent, missing_space
from ansible.module_utils.heteroserve.common.processes import UNIT, clashes, members, running, taken_ports
from ansible.module_utils.heteroserve.models.weights import fault_of_folder, with_beside
from ansible.module_utils.heteroserve.plan.builds import build_named

# HAProxy takes 97 bytes for a socket's path (the kernel 107, less what a reload puts behind it), and Ray Serve puts
# its HAProxy's socket into PORT/h/NODE, where a node's id has 56 characters.
SOCKET_BYTES = 97
SOCKET_TAIL = len("/65535/h//admin.sock") + 56
# Ray's sessions with their logs, and what programs keep in the folder for temporary files.
TEMPORARY_BYTES = 200_000_000


def python_fault(python: str) -> str | None:
    """What keeps an interpreter from making environments."""
    script = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"engine_python: {python} cannot be run ({error}): set it to a Python 3.11 to 3.13 on this host"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"engine_python: {python} cannot make environments ({last}): install its venv module"
    version = tuple(map(int, done.stdout.split()))
    if not (3, 11) <= version <= (3, 13):
        found = ".".join(map(str, version))
        return f"engine_python: {python} is Python {found}, the engines need 3.11 to 3.13: name another interpreter"
    return None


def folder_fault(path: Path, key: str) -> str | None:
    """What keeps a folder from being made or written."""
    place = existing_parent(path)
    if not place.is_dir():
        return f"{key}: {place} is a file, not a folder: set {key} to another path"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{key}: {place} cannot be written by user id {os.getuid()}: set {key} to a folder that it may write"
    return None


def temporary_faults(run_dir: Path) -> list[str]:
    """What is wrong with the folder of the sockets and with the one for temporary files."""
    faults = []
    if not re.fullmatch(r"[A-Za-z0-9._/@+=,~-]+", str(run_dir)):
        faults.append(f"ray_host_run_dir: {run_dir} has spaces or special characters: set a path without")
    places: dict[int, tuple[Path, list[str]]] = {}
    for setting, place in (("ray_host_run_dir", existing_parent(run_dir)), ("TMPDIR", Path(tempfile.gettempdir()))):
        places.setdefault(place.stat().st_dev, (place, []))[1].append(setting)
    for place, settings in places.values():
        names = " and ".join(settings)
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            found = f"{place} is mounted noexec, and engines load there what they compile"
            faults.append(f"{found}: mount it without, or set {names} to a folder elsewhere")
        elif fault := missing_space(place, TEMPORARY_BYTES, "what is temporary", names):
            faults.append(fault)
    return faults


def disk_fault(state_dir: Path, cells: list[dict[str, Any]], models: dict[str, dict[str, Any]]) -> str | None:
    """What is missing on disk for environments and weights that are not there yet."""
    builds = {cell["build"] for cell in cells if not (state_dir / "envs" / cell["build"] / ".complete").exists()}
    names = {cell["model"] for cell in cells}
    fetched = [
        item
        for name in names
        for item in with_beside(models[name])
        if not item["source"].get("path") and not (state_dir / "models" / item["folder"]).exists()
    ]
    # Weights are there twice while they are made: as fetched and as converted or moved.
    needed = sum(build_named(build).environment_bytes for build in builds) + sum(
        2 * model["weight_bytes"] for model in fetched
    )
    return missing_space(state_dir, needed, "what is still to be installed") if needed else None


def memory_fault(installation: str, cells: list[dict[str, Any]]) -> str | None:
    """What is missing in memory for the cells that do not run yet."""
    processes = running()
    waiting = [cell for cell in cells if not members(UNIT, f"{installation}/cells/{cell['name']}", processes)]
    needed = sum(cell["limits"]["host_memory_bytes"] for cell in waiting)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            if free < needed:
                names = ", ".join(cell["name"] for cell in waiting)
                return (
                    f"{names} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB is free now:"
                    f" end programs that hold {(needed - free) / 1e9:.1f} GB, or lower the model's context"
                )
    return None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "required": True},
            "installation": {"type": "path", "required": True},
            "run_dir": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "cells": {"type": "list", "elements": "dict", "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    state_dir, run_dir, cells = Path(module.params["state_dir"]), module.params["run_dir"], module.params["cells"]
    models = {model["name"]: model for model in module.params["models"]}
    taken = taken_ports([port for cell in cells for port in cell["ports"].values()], module.params["installation"])
    faults = [
        folder_fault(state_dir, "state_dir"),
        folder_fault(Path(run_dir), "ray_host_run_dir"),
        *temporary_faults(Path(run_dir)),
        python_fault(module.params["python"]),
        disk_fault(state_dir, cells, models),
        memory_fault(module.params["installation"], cells),
        *(
            fault_of_folder(item["name"], Path(item["source"]["path"]), item.get("config", "config.json"))
            for name in sorted({cell["model"] for cell in cells})
            for item in with_beside(models[name])
            if item["source"].get("path")
        ),
        *(f"{clash}: set cell_port_base to a free range" for clash in clashes(taken)),
    ]
    excess = len(run_dir) + SOCKET_TAIL - SOCKET_BYTES
    if excess > 0:
        faults.append(f"ray_host_run_dir: {run_dir} is {excess} characters too long for sockets: set a shorter path")
    found = [fault for fault in faults if fault]
    if found:
        module.fail_json(msg=listing("This host", found, "nothing was changed on it"), faults=found)
    module.exit_json(changed=False, faults=[])


if __name__ == "__main__":
    main()
