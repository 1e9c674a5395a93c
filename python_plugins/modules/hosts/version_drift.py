#!/usr/bin/python
"""Ansible module: what of a host differs from the versions that belong together."""

from __future__ import annotations

DOCUMENTATION = r"""
module: version_drift
short_description: Compare a host's versions with those that belong together
description:
  - Looks at the distributions of Python environments, at K3s, and at the vendors' drivers and container toolkits.
  - Changes nothing.
options:
  folder: {description: Folder of the environments., type: path, required: true}
  environments:
    description: "For each environment by name: lock, its text, and torch, the version beside it."
    type: dict
    default: {}
  components:
    description: "Wanted versions of C(k3s), C(nvidia driver), C(nvidia container toolkit) and C(rocm)."
    type: dict
    default: {}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Compare the installed versions
  version_drift:
    folder: /var/lib/heteroserve/envs
    environments: {host: {lock: "{{ lookup('ansible.builtin.file', 'requirements/host.txt') }}"}}
    components: {"nvidia driver": "580"}
"""

RETURN = r"""
differences: {description: A sentence for each difference., returned: always, type: list}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.hosts.versions import of_components, of_environment, version_in


def folders_of(environment: Path) -> list[str] | None:
    """Names of what is installed in an environment; None if there is none."""
    places = list(environment.glob("lib/python3.*/site-packages"))
    return [path.name for place in places for path in place.iterdir()] if places else None


def found_on(machine: Machine) -> dict[str, str]:
    """Versions of components; "" where the host has not got one."""
    return {
        "k3s": version_in(machine.run("k3s", "--version").stdout),
        "nvidia driver": version_in(machine.read("/sys/module/nvidia/version")),
        "nvidia container toolkit": version_in(machine.run("nvidia-ctk", "--version").stdout),
        "rocm": version_in(machine.read("/opt/rocm/.info/version")),
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "environments": {"type": "dict", "default": {}},
            "components": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    asked = module.params
    differences = [
        line
        for name, wanted in asked["environments"].items()
        for line in of_environment(
            name, wanted["lock"], wanted.get("torch") or "", folders_of(Path(asked["folder"], name))
        )
    ]
    differences += of_components(asked["components"], found_on(Machine(timeout=20)))
    module.exit_json(changed=False, differences=differences)


if __name__ == "__main__":
    main()
