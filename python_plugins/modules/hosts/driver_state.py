#!/usr/bin/python
"""Ansible module: the state of a host's GPU driver, and what has to be done about it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_state
short_description: Plan the GPU driver of a host
description:
  - Reads distribution, kernel, installed packages, loaded and installed kernel modules, Secure Boot and the processes
    that have a GPU open, and says what has to be written, installed and restarted, or refuses with one sentence.
  - Changes nothing.
options:
  vendor: {description: Whose GPUs., type: str, required: true, choices: [nvidia, amd]}
  hardware: {description: The host's C(host_hardware)., type: dict, required: true}
  wanted: {description: The role's options without their prefix., type: dict, required: true}
  distributions: {description: Repositories and package names by distribution., type: dict, required: true}
  record: {description: File in which the role notes what it changed., type: path, required: true}
  resolve:
    description: Also choose the exact versions of what is missing, from the configured repositories.
    type: bool
    default: false
  root:
    description: Folder with a simulated /sys, /proc and /etc/os-release. Packages are always the host's own.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: It changes nothing, so it does the same in check mode.
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the driver's state
  driver_state:
    vendor: nvidia
    hardware: "{{ ansible_facts.host_hardware }}"
    wanted: {branch: "580", toolkit_version: 1.18.1-1}
    distributions: "{{ _nvidia_driver_distributions }}"
    record: /var/lib/heteroserve/was/nvidia_driver.json
"""

RETURN = r"""
present: {description: Whether the host has a GPU of the vendor., returned: always, type: bool}
plan:
  description: >-
    Files, packages, services and groups, whether the driver itself changes, why the host has to restart (reboot), the
    reasons, a refusal, and the processes that block it (busy).
  returned: always
  type: dict
install: {description: What the package manager has to be given., returned: always, type: list}
installed: {description: Names of all installed packages., returned: always, type: list}
users: {description: Processes that have a GPU open., returned: always, type: list}
loaded: {description: Version of the kernel module that runs., returned: always, type: str}
leftovers: {description: Packages that the role brought., returned: always, type: list}
record: {description: What earlier runs noted., returned: always, type: dict}
apt: {description: "Whether packages are apt's, not dnf's.", returned: always, type: bool}
"""

import platform
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.common.records import from_dict, to_dict
from ansible.module_utils.heteroserve.hosts.drivers import nvidia, rocm
from ansible.module_utils.heteroserve.hosts.drivers.host import Host, Probe
from ansible.module_utils.heteroserve.hosts.drivers.plan import Plan, Refusal, choose_versions
from ansible.module_utils.heteroserve.hosts.drivers.record import leftovers


def planned(vendor: str, host: Host, wanted: dict[str, Any], distributions: dict[str, Any]) -> Plan:
    """The vendor's decision. Raises ``ValueError`` for options or tables that are none."""
    if vendor == "nvidia":
        tables = from_dict(dict[str, nvidia.Table], distributions, "distributions")
        return nvidia.decide(host, from_dict(nvidia.Wanted, wanted, "wanted"), tables)
    sources = from_dict(dict[str, rocm.Table], distributions, "distributions")
    return rocm.decide(host, from_dict(rocm.Wanted, wanted, "wanted"), sources)


def specifications(plan: Plan, versions: dict[str, str], apt: bool) -> list[str]:
    """What is missing, in the package manager's own words."""
    sign = "=" if apt else "-"
    return [f"{name}{sign}{versions[name]}" if name in versions else name for name in plan.missing]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "vendor": {"type": "str", "required": True, "choices": ["nvidia", "amd"]},
            "hardware": {"type": "dict", "required": True},
            "wanted": {"type": "dict", "required": True},
            "distributions": {"type": "dict", "required": True},
            "record": {"type": "path", "required": True},
            "resolve": {"type": "bool", "default": False},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    options = module.params
    probe = Probe(Machine(options["root"]), Machine(), options["vendor"])
    try:
        host = probe.host(options["hardware"], platform.machine(), options["record"])
        plan = planned(options["vendor"], host, options["wanted"], options["distributions"])
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    versions: dict[str, str] = {}
    if options["resolve"] and plan.missing and not plan.refusal:
        try:
            versions = choose_versions(plan, probe.available(host.system, plan.missing))
            plan = nvidia.pinned_to(plan, versions) if options["vendor"] == "nvidia" else plan
        except Refusal as fault:
            plan = replace(plan, refusal=str(fault))
    apt = not host.system.name.startswith("el-")
    module.exit_json(
        changed=False,
        present=bool(host.gpus),
        plan=to_dict(plan),
        install=specifications(plan, versions, apt),
        installed=sorted(host.packages),
        users=to_dict(host.users),
        loaded=(host.loaded.version or "") if host.loaded else "",
        leftovers=leftovers(host.record, tuple(host.packages)),
        record=host.record,
        apt=apt,
    )


if __name__ == "__main__":
    main()
