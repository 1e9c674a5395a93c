#!/usr/bin/python
"""Ansible module: what a host shows of its GPU drivers and of NVIDIA's container runtime."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_node_state
short_description: Read the state of GPU drivers and NVIDIA's container runtime
description:
  - Says which drivers run, where nvidia-container-runtime is among the folders in which K3s looks for it when it
    starts, and whether K3s's containerd has the runtime C(nvidia). Changes nothing.
options:
  root: {description: Folder to look in instead of the running host., type: path, default: /}
  data_dir: {description: K3s's folder., type: path, default: /var/lib/rancher/k3s}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Look at the drivers
  gpu_node_state:
"""

RETURN = r"""
state:
  description: "C(drivers) by vendor, C(runtime_path) (empty if there is none) and C(runtime_configured)."
  returned: success
  type: dict
"""

import os
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Where K3s looks when it starts: its service's PATH under systemd, and what NVIDIA's GPU operator installs into.
RUNTIME_FOLDERS = ("usr/local/nvidia/toolkit", "usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
RUNTIME = "nvidia-container-runtime"
# containerd 1 writes runtimes.nvidia or runtimes."nvidia", containerd 2 runtimes.'nvidia'.
CONFIGURED = re.compile(r"""\.runtimes\.(["']?)nvidia\1\]""")


def state_of(root: Path, data_dir: Path) -> dict[str, object]:
    """What the host under ``root`` shows."""
    runtime = next(
        (
            path
            for folder in RUNTIME_FOLDERS
            if (path := root / folder / RUNTIME).is_file() and os.access(path, os.X_OK)
        ),
        None,
    )
    try:
        configuration = (data_dir / "agent/etc/containerd/config.toml").read_text()
    except OSError:
        configuration = ""
    return {
        "drivers": {
            "nvidia": (root / "proc/driver/nvidia/version").is_file(),
            "amd": (root / "dev/kfd").exists(),  # made by amdgpu when it has found a GPU that computes
        },
        "runtime_path": f"/{runtime.relative_to(root)}" if runtime else "",
        "runtime_configured": bool(CONFIGURED.search(configuration)),
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "data_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    data_dir = root / module.params["data_dir"].lstrip("/")
    module.exit_json(changed=False, state=state_of(root, data_dir))


if __name__ == "__main__":
    main()
