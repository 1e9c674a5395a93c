#!/usr/bin/python
"""Ansible module ``accelerator_facts``: what hardware a host has, as the planner reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: accelerator_facts
short_description: Report accelerators, processors, memory, network and disks of a host
description:
  - Sets the fact C(host_hardware). The role host_facts sets the same fact for hosts whose hardware is declared.
  - Finds NVIDIA, AMD and Intel GPUs and Gaudi accelerators on the PCI bus, before any driver is installed, and adds
    what nvidia-smi, amd-smi, rocm-smi, xpu-smi and hl-smi know where they are there.
  - Reports MIG instances and AMD partitions as accelerators of their own, and says why one cannot be used.
  - Reports processors with their instruction sets, memory channels and speed, network interfaces, the one that faces
    the other hosts, the disk of the models, the BMC, the operating system, and drivers that do not match.
  - Each group of facts names its source. A value that cannot be found is null. A tool that is broken, missing or
    hanging becomes an entry of C(problems), never a failed host.
  - Uses nothing but Python's standard library. Without root, memory channels are an estimate that says so, and the
    service tag and the BMC's address are left out.
version_added: "1.0.0"
author: HeteroServe
requirements:
  - Python 3.9 or newer on the host, as RHEL 9 and Ubuntu 22.04 bring it
options:
  model_path:
    description: Path that will hold the models. If it does not exist yet, the nearest folder above it is measured.
    type: str
    default: /
  cluster_addresses:
    description:
      - Addresses or names of the other hosts. The interface that routes to them counts as the cluster interface; if
        the list is empty, it is the interface of the default route. Interface names are not considered.
    type: list
    elements: str
    default: []
  timeout:
    description:
      - Timeout of each command, in seconds. Without persistence mode the driver is initialized for each nvidia-smi
        call, which takes about 20 seconds with eight GPUs. A hanging driver costs one timeout.
    type: float
    default: 30
  root:
    description: Folder with the capture of a host to read instead of the running one.
    type: str
    default: /
attributes:
  check_mode:
    support: full
    description: It changes nothing, so it does the same in check mode.
"""

EXAMPLES = r"""
- name: Know the hardware
  accelerator_facts:
    model_path: /var/lib/heteroserve/models
    cluster_addresses: >-
      {{ groups['serving'] | difference([inventory_hostname]) | map('extract', hostvars, 'ansible_host') }}

- name: Stop where a driver does not match its library
  ansible.builtin.assert:
    that: ansible_facts.host_hardware.problems | selectattr('code', 'equalto', 'driver-mismatch') | length == 0
    fail_msg: "{{ ansible_facts.host_hardware.problems | map(attribute='fix') | join('; ') }}"

- name: Look at a captured host
  accelerator_facts:
    root: /tmp/capture-of-node-7
"""

RETURN = r"""
ansible_facts:
  description: The facts, to be read by the planner.
  returned: always
  type: dict
  contains:
    host_hardware:
      description: Sizes are bytes, rates bytes/s, speeds as named; null where a value could not be found.
      type: dict
      contains:
        cpu:
          description: Model, sockets, cores, instruction sets, memory channels and bandwidth of all sockets together.
          type: dict
        memory:
          description: Bytes of memory; C(memory_available) is what was free.
          type: int
        accelerators:
          description:
            - One entry for each device, in the order of PCI addresses, then one for each partition.
            - C(usable) is false with a sentence in C(why_not) where it cannot be scheduled as it is.
          type: list
          elements: dict
        nics:
          description: Interfaces; C(faces_cluster) marks the one through which the other hosts are reached.
          type: list
          elements: dict
        disks:
          description: The file system under C(model_path).
          type: list
          elements: dict
        address:
          description: The host's own address on the interface that faces the cluster.
          type: str
        driver_versions:
          description: By driver, the version that runs and the version of the library.
          type: dict
        problems:
          description: >-
            What an operator should know, with C(code), C(text) and C(fix). Codes are no-driver, driver-not-loaded,
            driver-mismatch, gpu-lost, gpu-passed-through, nvidia-smi-missing, nvidia-smi-failed, nvidia-smi-timeout,
            amd-smi-failed, xpu-smi-failed, hl-smi-failed, gpu-tool-warning, small-bar, secure-boot, no-route,
            no-cluster-interface, several-cluster-interfaces, disk-timeout, disk-unknown, probe-failed and
            probe-timeout.
          type: list
          elements: dict
        sources:
          description: By group of facts, where it came from; starts with "estimate" or "none" where nothing was read.
          type: dict
      sample:
        cpu: {model: "Intel(R) Xeon(R) Platinum 8480+", sockets: 2, cores: 112}
        accelerators: [{index: 0, kind: nvidia-h100-sxm-80gb, memory: 85017493504, link: nvswitch, usable: true}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import open_machine
from ansible.module_utils.heteroserve.facts.collect import collect
from ansible.module_utils.heteroserve.facts.hardware import hardware_to_dict


def main() -> None:
    """Collect the facts and hand them to Ansible."""
    module = AnsibleModule(
        argument_spec={
            "model_path": {"type": "str", "default": "/"},
            "cluster_addresses": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 30.0},
            "root": {"type": "str", "default": "/"},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        machine = open_machine(options["root"], options["timeout"])
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    hardware = collect(machine, options["model_path"], tuple(options["cluster_addresses"]))
    module.exit_json(changed=False, ansible_facts={"host_hardware": hardware_to_dict(hardware)})


if __name__ == "__main__":
    main()
