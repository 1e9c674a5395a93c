#!/usr/bin/python
"""Ansible module: the end of a host's logs, and what its own commands say."""

from __future__ import annotations

DOCUMENTATION = r"""
module: support_files
short_description: Collect the end of logs and what commands print
description:
  - Reads the newest files of each pattern from their end, and runs commands that only look. A file that cannot be read
    and a command that hangs or fails is what the result says of it.
  - Secrets are not removed here. Use C(no_log).
options:
  logs:
    description: Patterns of files by the folder of the archive that they are for.
    type: dict
    default: {}
  commands: {description: Commands by the name of the file for what they print., type: dict, default: {}}
  log_kib: {description: KiB of each log from its end., type: int, default: 256}
  newest: {description: "How many files of a pattern, the newest.", type: int, default: 20}
  total_kib: {description: KiB of all files together. The longest are cut to the same length., type: int, default: 4096}
  timeout: {description: Seconds that a command may take., type: float, default: 20}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read logs and states
  support_files:
    logs: {logs: [/var/lib/heteroserve/logs/*.log]}
    commands: {df.txt: [df, -h]}
  no_log: true
"""

RETURN = r"""
files: {description: Text by file name., returned: always, type: dict}
cut: {description: Names of files of which the beginning was left out., returned: always, type: list}
"""

import glob
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.support.archive import bounded


def newest(pattern: str, count: int) -> list[tuple[Path, Path]]:
    """The files of a pattern that were written last, the oldest first: a folder, and the path below it.

    The folder is where the pattern begins to be one: of "/var/log/pods/*/*.log" it is "/var/log/pods".
    """
    place = Path(re.split(r"[*?\[]", pattern)[0] + "x").parent
    found = {}
    for name in glob.glob(pattern):
        with suppress(OSError):  # rotated away meanwhile
            status = os.stat(name)
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_mtime
    ordered = sorted(found, key=lambda name: found[name])[-count:]
    return [(place, Path(name).relative_to(place)) for name in ordered]


def end_of(path: Path, size: int) -> tuple[str, bool]:
    """The last bytes of a file, and whether it has more; why it cannot be read, where that is so."""
    try:
        with path.open("rb") as stream:
            whole = path.stat().st_size
            stream.seek(max(0, whole - size))
            return stream.read(size).decode(errors="replace"), whole > size
    except OSError as fault:
        return f"{path} cannot be read: {fault.strerror}\n", False


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "logs": {"type": "dict", "default": {}},
            "commands": {"type": "dict", "default": {}},
            "log_kib": {"type": "int", "default": 256},
            "newest": {"type": "int", "default": 20},
            "total_kib": {"type": "int", "default": 4096},
            "timeout": {"type": "float", "default": 20.0},
        },
        supports_check_mode=True,
    )
    asked = module.params
    machine = Machine(timeout=asked["timeout"])
    files: dict[str, str] = {}
    cut: list[str] = []
    for name, command in asked["commands"].items():
        result = machine.run(*map(str, command))
        if result.fault != "missing":
            files[name] = (
                f"$ {' '.join(map(str, command))}\n{result.text if result.code is not None else result.explain()}\n"
            )
    for folder, patterns in asked["logs"].items():
        for place, path in (found for pattern in patterns for found in newest(pattern, asked["newest"])):
            name = f"{folder}/{path}"
            files[name], more = end_of(place / path, asked["log_kib"] * 1024)
            cut += [name] if more else []
    files, shortened = bounded(files, asked["total_kib"] * 1024)
    module.exit_json(changed=False, files=files, cut=sorted({*cut, *shortened}))


if __name__ == "__main__":
    main()
