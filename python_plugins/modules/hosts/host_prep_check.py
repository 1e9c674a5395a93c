#!/usr/bin/python
"""Ansible module: can this host take its part in a K3s cluster?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_check
short_description: Check a host of a K3s cluster before anything is changed on it
description:
  - Looks at the distribution, the host's name, cgroups, kernel modules, ports, memory, disks, swap, other firewalls,
    what it shares with other hosts, and its clock, and fails with all faults at once.
  - What is already in place, or is used by K3s itself, is not asked for again.
options:
  host: {description: Name of this host in the inventory., type: str, required: true}
  node: {description: Whether it is a node of the cluster., type: bool, required: true}
  server: {description: Whether it is a server., type: bool, required: true}
  cells: {description: Cells of the plan on this host., type: list, elements: dict, default: []}
  models: {description: Models of the plan., type: list, elements: dict, default: []}
  peers: {description: The fact cluster_network of each host., type: dict, default: {}}
  modules: {description: Kernel modules that will be loaded., type: list, elements: str, default: []}
  machine_dir: {description: Folder of what roles keep on the host., type: path, required: true}
  firewall: {description: Whether HeteroServe's own firewall will be loaded beside others., type: bool, default: true}
  swap: {description: Whether swap stays on., type: bool, default: false}
  any_distribution: {description: Whether a distribution that is not supported will do., type: bool, default: false}
  time_sync:
    description: Whether an unsynchronised clock is a fault, is only reported, or is not looked at.
    type: str
    choices: [required, reported, ignored]
    default: required
  now: {description: The controller's clock in seconds since 1970., type: float, required: true}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check the host
  host_prep_check:
    host: r760-1
    node: true
    server: false
    machine_dir: /var/lib/heteroserve
    now: "{{ now(utc=true).timestamp() }}"
"""

RETURN = r"""
faults: {description: One sentence for each fault., returned: always, type: list}
clock: {description: What is known of the clock., returned: always, type: str}
other_firewalls: {description: Firewalls of others that run., returned: always, type: list}
"""

import os
import platform
import re
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.files import existing_parent
from ansible.module_utils.heteroserve.common.machine import Machine
from ansible.module_utils.heteroserve.common.processes import listeners, owner_of
from ansible.module_utils.heteroserve.hosts.clock import (
    SERVICES,
    TimeState,
    parse_chronyc,
    parse_ntpq,
    parse_timedatectl,
    verdict,
)
from ansible.module_utils.heteroserve.hosts.preflight import (
    FileSystem,
    Part,
    Peer,
    Reading,
    faults,
    peer_faults,
    peer_warning,
)
from ansible.module_utils.heteroserve.hosts.swap import Swap, parse_swaps
from ansible.module_utils.heteroserve.hosts.tuning import MODULES
from ansible.module_utils.heteroserve.models.weights import with_beside

RANCHER = Path("/var/lib/rancher")
FIREWALLS = {"firewalld": "firewalld.service", "ufw": "ufw.service"}


def os_release() -> tuple[str, str]:
    """ID and VERSION_ID."""
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    values = dict(re.findall(r"^(\w+)=[\"']?(.*?)[\"']?$", text, re.MULTILINE))
    return values.get("ID", ""), values.get("VERSION_ID", "")


def memory() -> tuple[int, int]:
    """Bytes in all, and free for programs."""
    values = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return int(values["MemTotal"]) * 1024, int(values["MemAvailable"]) * 1024


def controllers() -> frozenset[str]:
    """Controllers of cgroups: the unified hierarchy's, or those that the kernel lists as enabled."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists():
        return frozenset(unified.read_text().split())
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    return frozenset(line.split()[0] for line in lines if line.split()[3] == "1")


def foreign_ports() -> dict[int, str]:
    """Ports on which something listens that K3s has not started."""
    found = {}
    for port, inode in listeners().items():
        pid = owner_of(inode)
        if pid is None:
            continue  # the kernel's own, or gone meanwhile
        try:
            group = Path(f"/proc/{pid}/cgroup").read_text()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        # Pods, and so what they publish, are K3s' as well.
        if not re.search(r"/(k3s|k3s-agent)\.service|/kubepods", group) and not name.startswith("k3s"):
            found[port] = f"process {pid} ({name})"
    return found


def file_system(path: Path) -> FileSystem:
    """The one that holds ``path``, or will hold it."""
    place = existing_parent(path)
    space = os.statvfs(place)
    return FileSystem(place.stat().st_dev, space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)


def own_swaps() -> tuple[Swap, ...]:
    """Swap of this host; a container also sees its machine's, under paths that it has not."""
    return tuple(swap for swap in parse_swaps(Path("/proc/swaps").read_text()) if Path(swap.name).exists())


def unloadable(modules: list[str]) -> tuple[str, ...]:
    """Those that are neither there nor in the folder of the running kernel's modules."""
    index = Path("/lib/modules", platform.release(), "modules.dep")
    known = index.read_text() if index.exists() else ""
    return tuple(
        name
        for name in modules
        if not Path(MODULES[name]).exists() and not re.search(rf"/{name}\.ko(\.\w+)?:", known, re.MULTILINE)
    )


def active(units: tuple[str, ...]) -> bool:
    """Any of the units runs."""
    done = subprocess.run(["systemctl", "is-active", *units], capture_output=True, text=True, timeout=30)
    return "active" in done.stdout.split()


def firewalls() -> tuple[str, ...]:
    """Those of others that rule now. ufw's unit is active also where it is switched off."""
    found = [name for name, unit in FIREWALLS.items() if active((unit,))]
    settings = Path("/etc/ufw/ufw.conf")
    if "ufw" in found and "ENABLED=yes" not in (settings.read_text() if settings.exists() else ""):
        found.remove("ufw")
    return tuple(found)


def clock(machine: Machine, now: float) -> TimeState:
    """The time services that run, and what they say."""
    running = tuple(name for name, units in SERVICES.items() if active(units))
    kernel = parse_timedatectl(machine.run("timedatectl", "show", timeout=10).stdout)
    said = kernel, f"timedatectl: NTPSynchronized={'yes' if kernel else 'no'}"
    if "chrony" in running:
        said = parse_chronyc(machine.run("chronyc", "-n", "tracking", timeout=10).stdout) or said
    elif "ntpd" in running:
        said = parse_ntpq(machine.run("ntpq", "-pn", timeout=10).stdout) or said
    return TimeState(running, *said, skew_s=time.time() - now)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "node": {"type": "bool", "required": True},
            "server": {"type": "bool", "required": True},
            "cells": {"type": "list", "elements": "dict", "default": []},
            "models": {"type": "list", "elements": "dict", "default": []},
            "peers": {"type": "dict", "default": {}},
            "modules": {"type": "list", "elements": "str", "default": []},
            "machine_dir": {"type": "path", "required": True},
            "firewall": {"type": "bool", "default": True},
            "swap": {"type": "bool", "default": False},
            "any_distribution": {"type": "bool", "default": False},
            "time_sync": {"type": "str", "choices": ["required", "reported", "ignored"], "default": "required"},
            "now": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    machine = Machine(timeout=30)
    state = clock(machine, wanted["now"])
    models = {model["name"]: model for model in wanted["models"]}
    folder = Path(wanted["machine_dir"])
    there = {
        item["name"]
        for model in models.values()
        for item in with_beside(model)
        if (folder / "models" / item["folder"]).exists()
        or (item["source"].get("path") and Path(item["source"]["path"]).exists())
    }
    total, free = memory()
    running = firewalls()
    found = Reading(
        *os_release(),
        memory_total=total,
        memory_available=free,
        swaps=own_swaps(),
        controllers=controllers(),
        ports=foreign_ports(),
        k3s_runs=active(("k3s.service", "k3s-agent.service")),
        rancher=file_system(RANCHER),
        images_there=(RANCHER / "k3s/agent/containerd").exists(),
        machine=file_system(folder),
        weights_there=frozenset(there),
        missing_modules=unloadable(wanted["modules"]),
        firewalls=running if wanted["firewall"] else (),
    )
    part = Part(
        wanted["host"],
        node=wanted["node"],
        server=wanted["server"],
        cells=tuple(wanted["cells"]),
        models=models,
        firewall=wanted["firewall"],
        swap=wanted["swap"],
        any_distribution=wanted["any_distribution"],
    )
    peers = {
        name: Peer(facts.get("hostname", ""), facts.get("machine", ""), facts.get("address"))
        for name, facts in wanted["peers"].items()
    }
    wrong_clock = None if wanted["time_sync"] == "ignored" else verdict(state)
    every = [*faults(part, found), *(peer_faults(part.host, peers) if part.host in peers else [])]
    if part.host in peers and (likeness := peer_warning(part.host, peers)):
        module.warn(likeness)
    if wanted["time_sync"] == "required" and wrong_clock:
        every.append(wrong_clock)
    elif wrong_clock:
        module.warn(wrong_clock)
    if every:
        module.fail_json(msg=listing("This host", every, "nothing was changed on it"), faults=every)
    clock_text = f"{' and '.join(state.active) or 'no time service'}; {state.evidence}"
    module.exit_json(changed=False, faults=[], clock=clock_text, other_firewalls=list(running))


if __name__ == "__main__":
    main()
