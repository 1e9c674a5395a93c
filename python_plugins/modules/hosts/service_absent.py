#!/usr/bin/python
"""Ansible module: what a role brought to a host is gone, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_absent
short_description: Stop services and remove their files and accounts, in one call
description:
  - Stops and disables units that the host has, removes files and folders, has systemd read its units again, and removes
    accounts, in this order. What is not there is left out, so a second call changes nothing.
  - The reverse of M(file_set). M(ansible.builtin.systemd_service), M(ansible.builtin.file) and M(ansible.builtin.user)
    take a call for each unit, file and account, and M(ansible.builtin.service_facts) one before them.
options:
  units: {description: "Units of systemd, with their suffix.", type: list, elements: str, default: []}
  paths: {description: "Files, links and folders with all that is in them.", type: list, elements: path, default: []}
  empty:
    description: Folders to remove unless something is in them, innermost first.
    type: list
    elements: path
    default: []
  accounts: {description: Accounts of services., type: list, elements: str, default: []}
attributes:
  check_mode: {support: full, description: Says what would be removed.}
  diff_mode: {support: full, description: Lists what is removed.}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the registry is removed
  service_absent:
    units: [heteroserve-registry.service]
    paths: [/etc/systemd/system/heteroserve-registry.service, /etc/heteroserve/registry]
    empty: [/etc/heteroserve]
    accounts: [heteroserve-registry]
"""

RETURN = r"""
removed: {description: "Units, paths and accounts that were there.", returned: success, type: list}
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.hosts.units import enabled, in_use, of_systemctl, runs

UNITS = (Path("/etc/systemd/system"), Path("/run/systemd/system"))
STOP_S = 180  # systemd kills a service after TimeoutStopSec, which is 90 s by default


def run(*words: str) -> str:
    """What a command printed. Raises ``ValueError`` with its own words if it failed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=STOP_S)
    if done.returncode:
        raise ValueError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Removal:
    """The steps in their order; each adds what it removed."""

    def __init__(self, check: bool) -> None:
        self._check = check
        self.removed: list[str] = []

    def _do(self, what: str) -> bool:
        self.removed.append(what)
        return not self._check

    def units(self, names: list[str]) -> None:
        """Stop and disable."""
        if not names:
            return
        wanted = ("Id", "LoadState", "ActiveState", "UnitFileState")
        found = of_systemctl(run("systemctl", "show", f"--property={','.join(wanted)}", "--", *names))
        for unit in in_use(names, found):
            if not self._do(unit):
                continue
            if runs(found[unit]):
                run("systemctl", "stop", "--", unit)
            if enabled(found[unit]):  # a transient unit cannot be disabled
                run("systemctl", "disable", "--", unit)

    def path(self, path: Path) -> None:
        """Remove a file, a link, or a folder with all that is in it."""
        if not os.path.lexists(path) or not self._do(str(path)):
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def empty(self, path: Path) -> None:
        """Remove a folder in which nothing is, or nothing would be."""
        if path.is_dir() and not path.is_symlink():
            left = [entry for entry in path.iterdir() if str(entry) not in self.removed]
            if not left and self._do(str(path)):
                path.rmdir()

    def reload(self) -> None:
        """Have systemd read its units again where one is gone."""
        if not self._check and any(Path(name).parent in UNITS for name in self.removed):
            run("systemctl", "daemon-reload")

    def account(self, name: str) -> None:
        """Remove an account, and its group with it. Its files are none of these."""
        try:
            pwd.getpwnam(name)
        except KeyError:
            return
        if self._do(name):
            run("userdel", name)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        {
            "units": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "path", "default": []},
            "empty": {"type": "list", "elements": "path", "default": []},
            "accounts": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    removal = Removal(module.check_mode)
    try:
        removal.units(module.params["units"])
        for path in module.params["paths"]:
            removal.path(Path(path))
        for path in module.params["empty"]:
            removal.empty(Path(path))
        removal.reload()
        for account in module.params["accounts"]:
            removal.account(account)
    except ValueError as fault:
        module.fail_json(msg=str(fault), removed=removal.removed)
    except subprocess.TimeoutExpired as fault:
        module.fail_json(msg=f"{' '.join(fault.cmd)}: no end after {STOP_S} s", removed=removal.removed)
    except OSError as fault:
        module.fail_json(msg=f"{fault.filename}: {fault.strerror}", removed=removal.removed)
    diff = {"before": "".join(f"{name}\n" for name in removal.removed), "after": ""}
    module.exit_json(changed=bool(removal.removed), removed=removal.removed, diff=diff)


if __name__ == "__main__":
    main()
