#!/usr/bin/python
"""Ansible module: swap off, so that it can be put back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_swap
short_description: Turn swap off or restore it
description:
  - Off takes the lines of swap out of /etc/fstab (each becomes a comment), ends swap that is in use and notes which
    it was. Swap that a unit of its own brings at each start (zram, a partition that systemd finds) is masked.
  - On puts back what was taken out, and no more.
options:
  state: {description: Whether there is swap., type: str, choices: ["off", "as_before"], required: true}
  record: {description: File of what was there before., type: path, required: true}
  fstab: {description: Table of file systems., type: path, default: /etc/fstab}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure there is no swap
  host_prep_swap:
    state: "off"
    record: /var/lib/heteroserve/was/host_prep_live.json
"""

RETURN = r"""
swaps: {description: Swap that was ended or started., returned: always, type: list}
"""

import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.hosts.record import load, save
from ansible.module_utils.heteroserve.hosts.swap import parse_swaps, with_swap, without_swap

KEY = "swap"
MASKED = "masked swap units"


def units_of_their_own(module: AnsibleModule, names: list[str]) -> list[str]:
    """Units of swap that no line of fstab has made, and that would come back at the next start."""
    found = []
    for name in names:
        # An argument that is a path of a device or file becomes the unit's name; aliases of a device name one unit.
        text = module.run_command(["systemd-escape", "--path", "--suffix=swap", name], check_rc=True)[1].strip()
        command = ["systemctl", "show", text, "--property=SourcePath,LoadState,Id"]
        shown = dict(line.split("=", 1) for line in module.run_command(command)[1].splitlines() if "=" in line)
        made = shown.get("SourcePath", "")
        if shown.get("LoadState") == "loaded" and made not in ("/etc/fstab", "/proc/swaps", ""):
            found.append(shown.get("Id", text))
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["off", "as_before"], "required": True},
            "record": {"type": "path", "required": True},
            "fstab": {"type": "path", "default": "/etc/fstab"},
        },
        supports_check_mode=True,
    )
    record, fstab = Path(module.params["record"]), Path(module.params["fstab"])
    noted: dict[str, Any] = load(record)
    off = module.params["state"] == "off"
    text = fstab.read_text() if fstab.exists() else ""
    fresh = without_swap(text) if off else with_swap(text)
    # A container also sees its machine's swap, under paths that it has not.
    running = [swap.name for swap in parse_swaps(Path("/proc/swaps").read_text()) if Path(swap.name).exists()]
    before: list[str] = noted.get(KEY, [])
    change = running if off else [name for name in before if name not in running and Path(name).exists()]
    masked: list[str] = noted.get(MASKED, [])
    mask = [unit for unit in units_of_their_own(module, running) if unit not in masked] if off else []
    changed = fresh != text or bool(change or mask) or (not off and bool(before or masked))
    if changed and not module.check_mode:
        if off:
            save(record, MASKED, masked + mask)
            save(record, KEY, before + [name for name in change if name not in before])
        if fresh != text:
            write_whole(fstab, fresh, stat.S_IMODE(fstab.stat().st_mode))
        if mask:
            module.run_command(["systemctl", "mask", *mask], check_rc=True)
        if masked and not off:
            module.run_command(["systemctl", "unmask", *masked], check_rc=True)
        for name in change:
            module.run_command(["swapoff" if off else "swapon", name], check_rc=True)
        if fresh != text:
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        if not off:
            save(record, MASKED, [])
            save(record, KEY, [])
    after = fresh + "".join(f"# in use: {name}\n" for name in ([] if off else sorted({*running, *change})))
    shown = text + "".join(f"# in use: {name}\n" for name in running)
    module.exit_json(changed=changed, swaps=change, diff={"before": shown, "after": after})


if __name__ == "__main__":
    main()
