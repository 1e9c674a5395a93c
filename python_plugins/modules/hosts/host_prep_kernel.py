#!/usr/bin/python
"""Ansible module: values of the running kernel, with what they were before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_kernel
short_description: Set kernel values and record the previous ones
description:
  - Writes files below /proc/sys and /sys where they hold something else, after noting what that was. A value that is
    no longer wanted goes back to what was noted. What the host does not have (a governor in a virtual machine) is
    left out and named.
options:
  values:
    description: What is wanted, key by file; a * in the last folders stands for several files.
    type: dict
    default: {}
  record: {description: File of what was there before., type: path, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the kernel is set
  host_prep_kernel:
    values: {/proc/sys/kernel/panic: "10"}
    record: /var/lib/heteroserve/was/host_prep_live.json

- name: Ensure kernel settings are restored
  host_prep_kernel:
    record: /var/lib/heteroserve/was/host_prep_live.json
"""

RETURN = r"""
written: {description: What was written to which file., returned: always, type: dict}
absent: {description: Files that this host does not have., returned: always, type: list}
"""

import glob
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.hosts.record import load, save
from ansible.module_utils.heteroserve.hosts.tuning import change, chosen

KEY = "kernel"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "values": {"type": "dict", "default": {}},
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    record = Path(module.params["record"])
    noted: dict[str, str] = load(record).get(KEY, {})
    wanted: dict[str, str] = {}
    absent = []
    for pattern, value in module.params["values"].items():
        paths = sorted(glob.glob(pattern))
        wanted.update(dict.fromkeys(paths, str(value)))
        if not paths:
            absent.append(pattern)
    now = {path: chosen(Path(path).read_text()) for path in {*wanted, *noted} if Path(path).exists()}
    plan = change(wanted, now, noted)
    diff = {
        "before": "".join(f"{path}: {value}\n" for path, value in sorted(plan.before.items())),
        "after": "".join(f"{path}: {value}\n" for path, value in sorted(plan.write.items())),
    }
    changed = bool(plan.write) or plan.record != noted
    if changed and not module.check_mode:
        # First the note of what is wanted, then the values, then what is noted no longer: a run may be killed between.
        save(record, KEY, {**noted, **plan.record})
        for path, value in plan.write.items():
            try:
                Path(path).write_text(f"{value}\n")
            except OSError as error:
                module.fail_json(msg=f"{path} does not take {value} (it holds {now[path]}): {error.strerror}")
        save(record, KEY, plan.record)
    module.exit_json(changed=changed, written=plan.write, absent=absent, diff=diff)


if __name__ == "__main__":
    main()
