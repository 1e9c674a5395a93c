#!/usr/bin/python
"""Ansible module: is a Helm release as it is wanted?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: helm_change
short_description: Decide whether a Helm release has to change
description:
  - Compares what C(kubernetes.core.helm_info) found with what is wanted. Unlike kubernetes.core.helm alone it sees a
    chart that was rebuilt under its old version, and a workload that somebody has deleted, without helm's plugin
    diff. Changes nothing.
options:
  chart: {description: Name of the chart., type: str, required: true}
  version: {description: Version of the chart., type: str, required: true}
  digest: {description: SHA-256 of the chart's file., type: str, required: true}
  values: {description: Values of the release., type: dict, required: true}
  status: {description: C(status) of kubernetes.core.helm_info; nothing where no release exists., type: dict}
  kubeconfig: {description: File with the way to the API; nothing where there is no cluster yet., type: path}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check what the release lacks
  helm_change:
    chart: nvidia-device-plugin
    version: 0.18.0
    digest: "{{ chart.sha256 }}"
    values: {runtimeClassName: nvidia}
    status: "{{ info.status | default(omit) }}"
    kubeconfig: "{{ state_dir }}/kubeconfig"
"""

RETURN = r"""
why: {description: "One clause; empty if nothing has to be done.", returned: success, type: str}
gone: {description: Workloads of the release that are not in the cluster., returned: success, type: list}
values: {description: Values to install with., returned: success, type: dict}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, kubernetes
from ansible.module_utils.heteroserve.cluster.charts import change_of, with_digest, workloads


def gone(kubeconfig: str, items: list[dict[str, str]], namespace: str) -> list[str]:
    """Those of the workloads that are not in the cluster."""
    if not items:
        return []
    api = kubernetes().AppsV1Api(connect(kubeconfig))
    read = {
        "DaemonSet": api.read_namespaced_daemon_set,
        "Deployment": api.read_namespaced_deployment,
        "StatefulSet": api.read_namespaced_stateful_set,
    }
    found = []
    for item in items:
        try:
            read[item["kind"]](item["name"], item["namespace"] or namespace)
        except kubernetes().ApiException as error:
            if error.status != 404:
                raise
            found.append(f"{item['kind']} {item['name']}")
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "chart": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "digest": {"type": "str", "required": True},
            "values": {"type": "dict", "required": True},
            "status": {"type": "dict"},
            "kubeconfig": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    status, kubeconfig = asked["status"], asked["kubeconfig"]
    missing = gone(kubeconfig, workloads(status), status["namespace"]) if status and kubeconfig else []
    values = with_digest(asked["values"], asked["digest"])
    why = change_of(asked["chart"], asked["version"], values, status, missing)
    module.exit_json(changed=False, why=why, gone=missing, values=values)


if __name__ == "__main__":
    main()
