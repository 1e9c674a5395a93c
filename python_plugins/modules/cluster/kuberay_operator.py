#!/usr/bin/python
"""Ansible module: does KubeRay's operator run?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: kuberay_operator
short_description: Wait for KubeRay's operator and explain why it does not run
description:
  - Waits until all of the operator's Deployment runs as it was last written. Gives up before the time is over where
    the fault does not clear by itself.
options:
  namespace: {description: Namespace of the operator., type: str, required: true}
  timeout: {description: Seconds to wait., type: int, default: 180}
extends_documentation_fragment: [kubeconfig, progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check that the operator is running
  kuberay_operator:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    namespace: kuberay-operator
"""

RETURN = r"""
image: {description: Image that runs., returned: success, type: str}
waited_s: {description: Seconds until it ran., returned: success, type: float}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, kubernetes, pod_log
from ansible.module_utils.heteroserve.cluster.evidence import Evidence
from ansible.module_utils.heteroserve.cluster.kuberay import available, is_operator, operator_fault
from ansible.module_utils.heteroserve.common.progress import Progress

POLL_S = 1.0
GRACE_S = 15.0
LOG_LINES = 50


class Cluster:
    """The operator's namespace, as the API writes it."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._connection = connect(kubeconfig)
        self._core = kubernetes().CoreV1Api(self._connection)
        self._apps = kubernetes().AppsV1Api(self._connection)
        self._namespace = namespace

    def _plain(self, things: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._connection.sanitize_for_serialization(things.items)
        return found

    def deployment(self) -> dict[str, Any] | None:
        """The operator's Deployment."""
        found = self._plain(self._apps.list_namespaced_deployment(self._namespace))
        return next((one for one in found if is_operator(one)), None)

    def evidence(self, deployment: dict[str, Any] | None) -> Evidence:
        """What is to be seen of its pods."""
        picked = (deployment or {"spec": {"selector": {"matchLabels": {}}}})["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in picked.items())
        pods = self._plain(self._core.list_namespaced_pod(self._namespace, label_selector=selector)) if selector else []
        staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        return Evidence(
            cell="",
            hosts=(),
            operator=tuple(staying),
            operator_namespace=self._namespace,
            events=tuple(self._plain(self._core.list_namespaced_event(self._namespace))),
            logs={pod["metadata"]["name"]: self._log(pod) for pod in staying},
        )

    def _log(self, pod: dict[str, Any]) -> str:
        """The last lines of the run that died if one did, or else of the one that goes on."""
        for previous in (True, False):
            try:
                name = pod["metadata"]["name"]
                return str(pod_log(self._core, name, self._namespace, tail_lines=LOG_LINES, previous=previous))
            except kubernetes().ApiException:
                continue  # it has not died, or has not started
        return ""


def wait(cluster: Cluster, timeout: int, progress: Progress) -> tuple[dict[str, Any] | None, str]:
    """The Deployment, and why it does not run; "" if it does."""
    began = time.monotonic()
    kind, since = "", began
    while True:
        deployment, now = cluster.deployment(), time.monotonic()
        if available(deployment):
            return deployment, ""
        found = operator_fault(deployment, cluster.evidence(deployment))
        if found is None or found.kind != kind:
            kind, since = (found.kind if found else ""), now
        if found and now - since >= found.patience_s:
            return deployment, found.text
        if now - began >= timeout:
            return deployment, found.text if found else f"the KubeRay operator does not run after {timeout} s"
        # In the first seconds of a start everything is missing something.
        progress.say(f"{found.text if found and now - since > GRACE_S else 'the operator starts'}, {now - began:.0f} s")
        time.sleep(POLL_S)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 180},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    cluster = Cluster(asked["kubeconfig"], asked["namespace"])
    began = time.monotonic()
    deployment, fault = wait(cluster, 0 if module.check_mode else asked["timeout"], Progress(asked["progress_path"]))
    if fault:
        module.fail_json(msg=fault)
    containers = (deployment or {})["spec"]["template"]["spec"]["containers"]
    module.exit_json(changed=False, image=containers[0]["image"], waited_s=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
