#!/usr/bin/python
"""Ansible module: what a host's preparation follows from, read without changing anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_facts
short_description: Read a host's cluster network and kernel state
description:
  - Sets the fact C(cluster_network) with the interface and the address that face the other hosts, which K3s takes for
    node-ip and flannel-iface, and returns which kernel modules must be loaded and what the kernel is to be set to.
  - Changes nothing.
options:
  host: {description: Name of this host in the inventory., type: str, required: true}
  node: {description: Whether it is a node of the cluster., type: bool, required: true}
  cells: {description: Cells of the plan on this host., type: list, elements: dict, default: []}
  others: {description: Addresses or names of the other hosts., type: list, elements: str, default: []}
  interface: {description: Interface to take instead of the one that routes lead to., type: str, default: ""}
  governor: {description: "Governor; empty for the plan's choice, none to leave it.", type: str, default: ""}
  huge_pages: {description: Huge pages to reserve., type: int, default: 0}
  sysctls: {description: Further sysctls., type: dict, default: {}}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the host's state
  host_prep_facts:
    host: r760-1
    node: true
    others: [10.20.5.12]
"""

RETURN = r"""
ansible_facts:
  description: C(cluster_network) with interface, address, hostname and machine (a digest of the machine's id).
  returned: always
  type: dict
modules: {description: Modules of the kernel to load at every start., returned: always, type: list}
settings: {description: "What the kernel is to be set to: key, value, path and reason.", returned: always, type: list}
memlock: {description: Why services may lock all memory; empty if they need not., returned: always, type: str}
"""

import hashlib
import platform
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.facts.network import parse_addresses, probe_network
from ansible.module_utils.heteroserve.hosts.tuning import INOTIFY, Setting, modules_to_load, tuning


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "node": {"type": "bool", "required": True},
            "cells": {"type": "list", "elements": "dict", "default": []},
            "others": {"type": "list", "elements": "str", "default": []},
            "interface": {"type": "str", "default": ""},
            "governor": {"type": "str", "default": ""},
            "huge_pages": {"type": "int", "default": 0},
            "sysctls": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    machine = Machine(timeout=30)
    network = probe_network(machine, tuple(wanted["others"])).value
    interface = next((nic.name for nic in network.nics if nic.faces_cluster), None)
    address = network.address
    if wanted["interface"]:
        addresses = parse_addresses(machine.run("ip", "-j", "addr", timeout=5).stdout)
        interface, address = wanted["interface"], addresses.get(wanted["interface"])
        if address is None:
            there = ", ".join(addresses) or "none"
            module.fail_json(
                msg=f"host_prep_interface: {interface} has no address that other hosts reach; those that have: {there}."
                " Nothing was changed on this host."
            )
    loaded = frozenset(line.split()[0] for line in (machine.read("/proc/modules") or "").splitlines())
    limits = {key: machine.read_int(Setting(key, "", "").path) or 0 for key in INOTIFY}
    plan = tuning(
        wanted["host"],
        wanted["node"],
        wanted["cells"],
        wanted["huge_pages"],
        wanted["sysctls"],
        wanted["governor"],
        limits,
    )
    identity = machine.read("/etc/machine-id") or ""
    facts = {
        "interface": interface,
        "address": address,
        "hostname": platform.node(),
        "machine": hashlib.sha256(f"heteroserve {identity}".encode()).hexdigest()[:16] if identity else "",
    }
    module.exit_json(
        changed=False,
        ansible_facts={"cluster_network": facts},
        modules=list(modules_to_load(lambda path: Path(path).exists(), loaded)) if wanted["node"] else [],
        settings=[
            {"key": item.key, "value": item.value, "path": item.path, "reason": item.reason} for item in plan.settings
        ],
        memlock=plan.memlock_reason,
    )


if __name__ == "__main__":
    main()
