#!/usr/bin/python
"""Ansible module: which device plugins a cluster needs, and what they should count."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_device_plan
short_description: Decide which device plugins a cluster needs and how many GPUs each host should offer
description:
  - Reads what hosts have and the settings, and fails with all faults at once where a MIG strategy cannot represent a
    host. Touches neither host nor cluster.
options:
  hosts: {description: "Host to its C(host_hardware), empty if unknown.", type: dict, required: true}
  mig_strategy: {description: How MIG instances are named., type: str, choices: [none, single, mixed], default: none}
  time_slicing: {description: Pods that share one NVIDIA GPU; 0 is off., type: int, default: 0}
  namespace: {description: Namespace of the plugins., type: str, required: true}
  charts: {description: "For each vendor: name, chart, version, url, sha256.", type: dict, required: true}
  cells:
    description: Cells of the plan, whose hosts must have the devices that the plan gives to models.
    type: list
    elements: dict
    default: []
  values: {description: "For each vendor, values that win over the role's.", type: dict, default: {}}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Select the device plugins
  gpu_device_plan:
    hosts:
      node-1: "{{ hostvars['node-1'].ansible_facts.host_hardware }}"
    namespace: heteroserve-devices
    charts: "{{ charts }}"
"""

RETURN = r"""
releases: {description: "For each vendor C(wanted), and C(release) for the role helm.", returned: success, type: list}
names: {description: Name of each vendor's release., returned: success, type: dict}
expected: {description: "For each host, devices by resource.", returned: success, type: dict}
gpu_hosts: {description: Hosts that have GPUs of these vendors., returned: success, type: list}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.gpu_counts import expected, shortage
from ansible.module_utils.heteroserve.cluster.gpu_plugins import RESOURCES, Sharing, values_of
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.facts.declared import hardware_of


def hardware_given(name: str, given: dict[str, Any]) -> Any:
    """What a host has. Raises ``ValueError`` with a sentence."""
    if given:
        return hardware_of(given, f"{name}: hardware")
    raise ValueError(f"{name}: its hardware is unknown; run the facts stage first or declare `hardware:`")


def needed(cells: list[dict[str, Any]], host: str) -> dict[str, int]:
    """Devices of ``host`` that the plan gives to models, by vendor."""
    found: dict[str, int] = {}
    for cell in cells:
        for replica in cell["replicas"]:
            for name, devices in zip(replica["hosts"], replica.get("devices") or [], strict=False):
                if name == host and devices:
                    found[cell["vendor"]] = found.get(cell["vendor"], 0) + len(devices)
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True},
            "mig_strategy": {"type": "str", "choices": ["none", "single", "mixed"], "default": "none"},
            "time_slicing": {"type": "int", "default": 0},
            "namespace": {"type": "str", "required": True},
            "charts": {"type": "dict", "required": True},
            "values": {"type": "dict", "default": {}},
            "cells": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    sharing = Sharing(asked["mig_strategy"], asked["time_slicing"])
    faults: list[str] = []
    if sharing.time_slicing < 0 or sharing.time_slicing == 1:
        faults.append(f"gpu_device_plugin_time_slicing is {sharing.time_slicing}: set 0 (off), or 2 and more")
    plans = {}
    for name, given in sorted(asked["hosts"].items()):
        try:
            accelerators = hardware_given(name, given).accelerators
            plans[name] = expected(name, accelerators, sharing)
            faults += [fault] if (fault := shortage(name, accelerators, needed(asked["cells"], name))) else []
        except ValueError as error:
            faults.append(str(error))
    faults += [plan.fault for plan in plans.values() if plan.fault]
    if faults:
        module.fail_json(msg=listing("This inventory", faults, "nothing was changed"))
    releases = []
    for vendor in RESOURCES:
        wanted = any(vendor in plan.vendors for plan in plans.values())
        named = {"name": asked["charts"][vendor]["name"], "namespace": asked["namespace"]}
        values = values_of(vendor, sharing, asked["values"].get(vendor) or {})
        whole = {**asked["charts"][vendor], **named, "values": values, "setting": "gpu_device_plugin_charts"}
        releases.append({"wanted": wanted, "release": whole if wanted else named})
    module.exit_json(
        changed=False,
        releases=releases,
        names={vendor: asked["charts"][vendor]["name"] for vendor in RESOURCES},
        expected={name: plan.resources for name, plan in plans.items()},
        gpu_hosts=[name for name, plan in plans.items() if plan.resources],
    )


if __name__ == "__main__":
    main()
