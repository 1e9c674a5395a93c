#!/usr/bin/python
"""Ansible module: HeteroServe's own nftables table on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prep_firewall
short_description: Load a host's firewall and roll it back if it locks Ansible out
description:
  - With C(state=loaded) works out the rules, has nft check them, and puts them in the place of those that are loaded,
    in one step. A timer takes them back unless C(state=confirmed) follows, which is to be called over a new
    connection. Until then the file that is loaded at each start is not touched.
  - The SSH port is the one that this connection came in by; the client's address is this connection's.
options:
  state: {description: The step., type: str, choices: [loaded, confirmed], required: true}
  path: {description: The file that is loaded at each start., type: path, required: true}
  candidate: {description: Rules to confirm., type: path, default: /run/heteroserve/firewall.nft}
  patience: {description: Seconds after which the rules are taken back., type: int, default: 60}
  host: {description: Name of this host in the inventory., type: str}
  roles: {description: "Names of hosts by role: server, node, gateway, monitoring.", type: dict, default: {}}
  addresses: {description: Addresses and names of each host., type: dict, default: {}}
  cells: {description: Cells of the plan on this host., type: list, elements: dict, default: []}
  ssh_port: {description: Port of SSH where no connection tells it., type: int, default: 22}
  ssh_sources: {description: Who may use SSH; empty for anyone., type: list, elements: str, default: []}
  admin_sources: {description: "Who else may use K3s' API.", type: list, elements: str, default: []}
  gateway_port: {description: Port of the endpoint., type: int, default: 0}
  client_sources: {description: Who may use the endpoint; empty for anyone., type: list, elements: str, default: []}
  monitored_ports: {description: Ports that monitoring reads., type: list, elements: int, default: []}
  gpu_ports: {description: "Ports of GPU exporters, which gateways read too.", type: list, elements: int, default: []}
  registry_host: {description: Host of the registry., type: str, default: ""}
  registry_port: {description: Its port., type: int, default: 0}
  weights_host: {description: Host that gives weights to the others., type: str, default: ""}
  weights_ports: {description: Its ports for that., type: list, elements: int, default: []}
  weights_takers: {description: Hosts that copy weights from this one., type: list, elements: str, default: []}
  images_shared: {description: Whether nodes pull images from each other., type: bool, default: false}
  pod_network: {description: Network of the pods., type: str, default: 10.42.0.0/16}
  service_network: {description: Network of the services., type: str, default: 10.43.0.0/16}
  pods_routed: {description: Whether pods reach other hosts without a tunnel., type: bool, default: false}
  open_ports: {description: "Further ports: port, reason, protocol, sources.", type: list, elements: dict, default: []}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the firewall is loaded
  host_prep_firewall:
    state: loaded
    path: /etc/heteroserve/firewall.nft
    host: r760-1
    roles: {server: [r760-1], node: [r760-1]}
    addresses: {r760-1: [10.20.5.11]}
"""

RETURN = r"""
rules: {description: What is accepted., returned: state is loaded, type: list}
pending: {description: Whether the rules wait for confirmation., returned: state is loaded, type: bool}
"""

import ipaddress
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.hosts.firewall import TABLE, Opening, Role, Ruleset, Wanted, ruleset
from ansible.module_utils.heteroserve.hosts.ssh_session import session

UNDO_UNIT = "heteroserve-firewall-undo"
CLEAR = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
MODE = 0o644


def resolved(names: dict[str, list[str]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Addresses of each host; and a fault for each name that has none."""
    found: dict[str, tuple[str, ...]] = {}
    faults = []
    for host, texts in names.items():
        addresses: list[str] = []
        for text in texts:
            try:
                addresses.append(str(ipaddress.ip_address(text)))
                continue
            except ValueError:
                pass
            try:
                addresses += [str(entry[4][0]) for entry in socket.getaddrinfo(text, None, proto=socket.IPPROTO_TCP)]
            except OSError:
                faults.append(f"ansible_host: {text} of {host} cannot be resolved here: write its address instead")
        found[host] = tuple(dict.fromkeys(item for item in addresses if not ipaddress.ip_address(item).is_loopback))
    return found, faults


def wanted_of(parameters: dict[str, Any]) -> tuple[Wanted, list[str]]:
    """What the rules follow from, and names that could not be resolved."""
    addresses, faults = resolved(parameters["addresses"])
    kinds = ("server", "node", "gateway", "monitoring")
    roles = {
        host: Role(**{kind: host in (parameters["roles"].get(kind) or []) for kind in kinds}) for host in addresses
    }
    connection = session()
    same = ("gateway_port", "registry_host", "registry_port", "weights_host", "pod_network", "service_network")
    wanted = Wanted(
        host=parameters["host"],
        roles=roles,
        addresses=addresses,
        ssh_port=connection.port if connection else parameters["ssh_port"],
        client=connection.client if connection else None,
        cells=tuple(parameters["cells"]),
        ssh_sources=tuple(parameters["ssh_sources"]),
        admin_sources=tuple(parameters["admin_sources"]),
        client_sources=tuple(parameters["client_sources"]),
        monitored_ports=tuple(parameters["monitored_ports"]),
        gpu_ports=tuple(parameters["gpu_ports"]),
        weights_ports=tuple(parameters["weights_ports"]),
        weights_takers=tuple(parameters["weights_takers"]),
        images_shared=parameters["images_shared"],
        pods_routed=parameters["pods_routed"],
        openings=tuple(
            Opening(item["port"], item["reason"], item.get("protocol") or "tcp", tuple(item.get("sources") or ()))
            for item in parameters["open_ports"]
        ),
        **{name: parameters[name] for name in same},
    )
    return wanted, faults


def load(module: AnsibleModule, nft: str | None, rules: Ruleset) -> bool:
    """Whether the rules were not in place; if so, puts them there until the timer ends."""
    path, candidate = Path(module.params["path"]), Path(module.params["candidate"])
    listed = module.run_command([nft, "list", "table", "inet", TABLE])[1] if nft else ""
    digest = re.search(r'comment "HeteroServe (\w+)"', listed)
    old = path.read_text() if path.exists() else ""
    if digest and digest[1] == rules.digest and old == rules.text:
        return False
    if module.check_mode:
        return True
    if nft is None:
        module.fail_json(msg="nft is not installed: install the distribution's package nftables")
    candidate.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(candidate, rules.text, MODE)
    code, _, fault = module.run_command([nft, "--check", "--file", str(candidate)])
    if code != 0:
        module.fail_json(msg=f"nft does not take {candidate}; nothing was loaded: {fault.strip()}")
    undo = candidate.with_name("firewall-undo.nft")
    write_whole(undo, CLEAR + listed, MODE)
    stop_timer(module)
    delay = [f"--on-active={module.params['patience']}", "--timer-property=AccuracySec=1s"]
    command = ["systemd-run", f"--unit={UNDO_UNIT}", *delay, "--collect", "--quiet", nft, "--file", str(undo)]
    module.run_command(command, check_rc=True)
    module.run_command([nft, "--file", str(candidate)], check_rc=True)
    return True


def stop_timer(module: AnsibleModule) -> None:
    """The rules stay. That the unit is not there is no fault: it is gone once it has run."""
    module.run_command(["systemctl", "stop", f"{UNDO_UNIT}.timer"])


def main() -> None:
    """Entry point."""
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["loaded", "confirmed"], "required": True},
            "path": {"type": "path", "required": True},
            "candidate": {"type": "path", "default": "/run/heteroserve/firewall.nft"},
            "patience": {"type": "int", "default": 60},
            "host": {"type": "str"},
            "roles": {"type": "dict", "default": {}},
            "addresses": {"type": "dict", "default": {}},
            "cells": {"type": "list", "elements": "dict", "default": []},
            "ssh_port": {"type": "int", "default": 22},
            "ssh_sources": texts,
            "admin_sources": texts,
            "gateway_port": {"type": "int", "default": 0},
            "client_sources": texts,
            "monitored_ports": {"type": "list", "elements": "int", "default": []},
            "gpu_ports": {"type": "list", "elements": "int", "default": []},
            "registry_host": {"type": "str", "default": ""},
            "registry_port": {"type": "int", "default": 0},
            "weights_host": {"type": "str", "default": ""},
            "weights_ports": {"type": "list", "elements": "int", "default": []},
            "weights_takers": texts,
            "images_shared": {"type": "bool", "default": False},
            "pod_network": {"type": "str", "default": "10.42.0.0/16"},
            "service_network": {"type": "str", "default": "10.43.0.0/16"},
            "pods_routed": {"type": "bool", "default": False},
            "open_ports": {"type": "list", "elements": "dict", "default": []},
        },
        required_if=[("state", "loaded", ["host"])],
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    if module.params["state"] == "confirmed":
        candidate = Path(module.params["candidate"])
        if not module.check_mode:
            stop_timer(module)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_whole(path, candidate.read_text(), MODE)
            candidate.unlink()
            candidate.with_name("firewall-undo.nft").unlink(missing_ok=True)
        module.exit_json(changed=True)
    wanted, faults = wanted_of(module.params)
    rules = ruleset(wanted)
    faults += rules.faults
    if faults:
        module.fail_json(msg=listing("The firewall", faults, "nothing was loaded"), faults=faults)
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    nft = shutil.which("nft", path=search)
    before = path.read_text() if path.exists() else ""
    changed = load(module, nft, rules)
    module.exit_json(
        changed=changed,
        pending=changed and not module.check_mode,
        rules=[
            {"port": rule.port, "protocol": rule.protocol, "sources": rule.sources, "reason": rule.reason}
            for rule in rules.rules
        ],
        diff={"before": before, "after": rules.text, "before_header": str(path), "after_header": str(path)},
    )


if __name__ == "__main__":
    main()
