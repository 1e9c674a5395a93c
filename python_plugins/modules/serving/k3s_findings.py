#!/usr/bin/python
"""Ansible module: what is wrong with the cells of a K3s cluster, and what its API shows."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_findings
short_description: Say why cells on K3s do not run
description:
  - Reads nodes, pods, events, RayServices and logs from the API, and judges them as M(ray_cell) does while it waits.
    Waits for nothing and changes nothing.
  - An API that does not answer is what the only finding says.
  - Runs on the controller.
options:
  namespace: {description: Namespace of the cells., type: str, default: heteroserve}
  operator_namespace: {description: Namespace of the KubeRay operator., type: str, default: kuberay-operator}
  cells: {description: The cells as plan.json has them., type: list, elements: dict, required: true}
  since: {description: Seconds back of which events and the operator's log are read., type: int, default: 86400}
extends_documentation_fragment: [kubeconfig]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Find what is wrong with the cells
  k3s_findings:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    cells: "{{ plan.cells }}"
  no_log: true
"""

RETURN = r"""
findings: {description: A sentence for each cell with which something is wrong., returned: always, type: list}
files: {description: What the API shows by file name., returned: always, type: dict}
"""

import json
import socket
import time
import urllib.parse
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect
from ansible.module_utils.heteroserve.cluster.evidence import pod_name
from ansible.module_utils.heteroserve.common.records import from_dict
from ansible.module_utils.heteroserve.plan.schema import Cell
from ansible.module_utils.heteroserve.serving.api import Cluster
from ansible.module_utils.heteroserve.serving.diagnosis import diagnose, progress
from ansible.module_utils.heteroserve.serving.names import CELL
from ansible.module_utils.heteroserve.serving.ray_serve import applications, verdict

CONNECT_S = 5
ANSWER_S = 30


def unreached(kubeconfig: str) -> str:
    """Why nothing listens where the kubeconfig points; "" if something does."""
    try:
        url = urllib.parse.urlsplit(connect(kubeconfig).configuration.host)
        socket.create_connection((url.hostname, url.port or 443), CONNECT_S).close()
    except Exception as fault:  # the file may be missing or no kubeconfig, and its client has faults of many kinds
        return f"the cluster's API cannot be asked with {kubeconfig}: {fault}; see `journalctl -u k3s` on a server"
    return ""


def collected(cluster: Cluster, cells: list[Cell], since: float) -> tuple[list[str], dict[str, str]]:
    """Findings of all cells, and the API's objects and logs as files."""
    findings: list[str] = []
    objects: dict[str, Any] = {
        "nodes": cluster.listed("Node", "v1", ""),
        "rayservices": cluster.listed("RayService", "ray.io/v1"),
        "rayclusters": cluster.clusters(),
        "pods": cluster.pods(CELL),
        "events": cluster.listed("Event", "v1", ""),
    }
    files = {f"{name}.json": json.dumps(found, indent=1, default=str) for name, found in objects.items()}
    for cell in cells:
        seen = cluster.evidence(cell.name, cell.hosts, since, cell.limits.host_memory_bytes * len(cell.replicas))
        found = diagnose(seen)
        if found:
            findings.append(found.text)
        elif not verdict(applications(seen), cell.name).ok:
            findings.append(progress(seen))
        logs = {**seen.logs, **cluster.ray_logs(tuple(pod for pod in seen.pods if pod_name(pod) not in seen.logs))}
        files |= {f"{name}.log": text for name, text in logs.items()}
        files |= {f"operator-about-{cell.name}.log": "\n".join(seen.operator_said)} if seen.operator_said else {}
    return findings, files


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "default": "heteroserve"},
            "operator_namespace": {"type": "str", "default": "kuberay-operator"},
            "cells": {"type": "list", "elements": "dict", "required": True},
            "since": {"type": "int", "default": 86400},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if fault := unreached(asked["kubeconfig"]):
        module.exit_json(changed=False, findings=[fault], files={})
    socket.setdefaulttimeout(ANSWER_S)
    cells = [from_dict(Cell, one, "cell") for one in asked["cells"]]
    try:
        cluster = Cluster(asked["kubeconfig"], asked["namespace"], asked["operator_namespace"])
        findings, files = collected(cluster, cells, time.time() - asked["since"])
    except Exception as fault:  # the client's, urllib3's and the socket's: what it is, is the finding
        findings, files = [f"the cluster's API does not answer as it should: {type(fault).__name__}: {fault}"], {}
    module.exit_json(changed=False, findings=findings, files=files)


if __name__ == "__main__":
    main()
