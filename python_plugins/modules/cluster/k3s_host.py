#!/usr/bin/python
"""Ansible module: what K3s is on this host, and what is left to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_host
short_description: Read the K3s state of a host and decide the next steps
description:
  - Reads the installed version, the unit, the configuration and which servers answer. Says through which server the
    host joins, whether the wanted version may be put in place, and which files are newer than the running process.
    Changes nothing. A run that was killed half-way finds what it left undone.
options:
  host: {description: Name of this host in the inventory., type: str, required: true}
  unit: {description: Name of the systemd unit., type: str, required: true}
  version: {description: The release that is to run., type: str, required: true}
  servers: {description: Name and address of each server in the inventory's order., type: dict, required: true}
  release:
    description: "Files of the release on the host: their C(dest), C(sha256) and C(mode)."
    type: list
    elements: dict
    default: []
  files: {description: Files that take effect when the unit starts., type: list, elements: path, default: []}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read the K3s state
  k3s_host:
    host: r760-1
    unit: k3s
    version: v1.34.2+k3s1
    servers: {r760-1: 10.20.5.11}
"""

RETURN = r"""
installed: {description: Version of the binary in place., returned: always, type: str}
active: {description: Whether the unit runs., returned: always, type: bool}
join:
  description: url and server to join through, both null for the host that starts the cluster.
  returned: always
  type: dict
upgrade:
  description: Whether the running process has another binary than the one in place.
  returned: always
  type: bool
changed_since_start: {description: Files that are newer than the process., returned: always, type: list}
answering: {description: Addresses of the servers that answer., returned: always, type: list}
release_missing:
  description: Places of the release's files that are missing, or have another content or mode.
  returned: always
  type: list
free_names:
  description: Names of kubectl, crictl and ctr that no other program of the host has, and that are not linked yet.
  returned: always
  type: list
"""

import dataclasses
import os
import re
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.k3s import HostState, join, upgrade_fault
from ansible.module_utils.heteroserve.common.files import sha256_of
from ansible.module_utils.heteroserve.common.systemd import properties
from ansible.module_utils.heteroserve.common.web import at, open_own

BINARY = Path("/usr/local/bin/k3s")
CONFIG = Path("/etc/rancher/k3s/config.yaml")
DATA = Path("/var/lib/rancher/k3s")
PATIENCE_S = 3.0  # for one answer of a server
NAMES = ("kubectl", "crictl", "ctr")  # what the binary can also be called as
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def answers(address: str) -> bool:
    """Whether a K3s server serves at the address. Its certificate is checked when the host joins, by the token."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with open_own(f"https://{at(address, 6443)}/ping", PATIENCE_S, context) as reply:
            return bool(reply.read(16).strip() == b"pong")
    except (OSError, ValueError):
        return False


def installed_version() -> str | None:
    """Version of the binary that is linked into place."""
    try:
        done = subprocess.run([str(BINARY), "--version"], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    found = re.search(r"v\d[\w.+-]*\+k3s\d+", done.stdout)
    return found.group(0) if found else None


def changed_at(path: Path) -> float:
    """When a file, or the link to it, was last put in place: seconds since the epoch; 0 if it is not there."""
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def in_place(file: dict[str, str]) -> bool:
    """Whether a file of the release is on the host, whole."""
    path = Path(file["dest"])
    try:
        return path.stat().st_mode & 0o7777 == int(file["mode"], 8) and sha256_of(path) == file["sha256"]
    except OSError:
        return False


def to_link(name: str) -> bool:
    """Whether a name is free for a link to K3s, and is none yet."""
    link = BINARY.with_name(name)
    return shutil.which(name, path=SYSTEM_PATH) is None and not (link.is_symlink() and os.readlink(link) == BINARY.name)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "servers": {"type": "dict", "required": True},
            "release": {"type": "list", "elements": "dict", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    host, unit, servers = module.params["host"], module.params["unit"], module.params["servers"]
    unit_state = properties(unit)
    active = unit_state["ActiveState"] == "active"
    started = time.time() - time.monotonic() + int(unit_state["ExecMainStartTimestampMonotonic"] or 0) / 1e6
    newer = [name for name in module.params["files"] if active and changed_at(Path(name)) > started]
    with ThreadPoolExecutor(len(servers)) as pool:
        verdicts = list(pool.map(answers, servers.values()))
    config = CONFIG.read_text() if CONFIG.exists() else ""
    url = re.search(r"^server: \"?(\S+?)\"?$", config, re.MULTILINE)
    is_server = host in servers
    state = HostState(
        installed=installed_version(),
        active=active,
        initialized=(DATA / ("server/db/etcd/member" if is_server else "agent/client-kubelet.crt")).exists(),
        server_url=url.group(1) if url else None,
        changed_since_start=tuple(newer),
    )
    try:
        fault = upgrade_fault(state.installed, module.params["version"])
    except ValueError as error:
        fault = str(error)
    way = join(host, is_server, servers, tuple(name for name, up in zip(servers, verdicts, strict=True) if up), state)
    if fault:
        module.fail_json(msg=f"{fault}. Nothing was changed on {host}")
    module.exit_json(
        changed=False,
        **dataclasses.asdict(state),
        join=dataclasses.asdict(way),
        upgrade=str(BINARY) in newer,
        answering=[address for address, up in zip(servers.values(), verdicts, strict=True) if up],
        release_missing=[file["dest"] for file in module.params["release"] if not in_place(file)],
        free_names=[name for name in NAMES if to_link(name)],
    )


if __name__ == "__main__":
    main()
