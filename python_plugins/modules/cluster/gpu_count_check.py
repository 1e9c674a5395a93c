#!/usr/bin/python
"""Ansible module: does Kubernetes count the GPUs that the facts say?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_count_check
short_description: Compare the GPUs that Kubernetes reports with the facts
description:
  - Waits until every node offers the expected number of each resource. Fails with a sentence for each difference,
    which names the driver, the container runtime, the label, the plugin's pod (why it waits, its last line) or the
    sharing that is behind it; at once where waiting does not help.
options:
  namespace: {description: Namespace of the plugins., type: str, required: true}
  releases: {description: "For each vendor the name of its Helm release.", type: dict, required: true}
  hosts:
    description: "For each host C(resources) (expected) and C(state) (of the module gpu_node_state)."
    type: dict
    required: true
  mig_strategy: {description: As the plugin was installed with., type: str, default: none}
  time_slicing: {description: As the plugin was installed with., type: int, default: 0}
  timeout: {description: Seconds to wait for the counts., type: int, default: 120}
extends_documentation_fragment: [kubeconfig]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check that Kubernetes sees the GPUs
  gpu_count_check:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    namespace: heteroserve-devices
    releases: {nvidia: nvidia-device-plugin}
    hosts:
      node-1: {resources: {nvidia.com/gpu: 8}, state: "{{ hostvars['node-1'].looked.state }}"}
"""

RETURN = r"""
counts: {description: "For each host, devices by resource.", returned: success, type: dict}
faults: {description: A sentence for each difference., returned: failure, type: list}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, kubernetes
from ansible.module_utils.heteroserve.cluster.gpu_counts import (
    Difference,
    Expected,
    HostState,
    NodeState,
    PodState,
    differences,
)
from ansible.module_utils.heteroserve.cluster.gpu_plugins import RESOURCES, Sharing, vendor_of
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.records import from_dict

RELEASE = "meta.helm.sh/release-name"
POLL_S = 2.0


class Cluster:
    """What is read of the cluster: nodes, and the plugins' pods on them."""

    def __init__(self, kubeconfig: str, namespace: str, releases: dict[str, str]) -> None:
        connection = connect(kubeconfig)
        self._core = kubernetes().CoreV1Api(connection)
        self._apps = kubernetes().AppsV1Api(connection)
        self._namespace = namespace
        self._vendors = {release: vendor for vendor, release in releases.items()}

    def nodes(self) -> dict[str, NodeState]:
        """Every node, without its pods."""
        return {item.metadata.name: _node(item) for item in self._core.list_node().items}

    def pods(self) -> dict[str, dict[str, PodState]]:
        """Plugins' pods by node and vendor."""
        owners = {
            item.metadata.name: self._vendors.get((item.metadata.annotations or {}).get(RELEASE, ""))
            for item in self._apps.list_namespaced_daemon_set(self._namespace).items
        }
        found: dict[str, dict[str, PodState]] = {}
        for item in self._core.list_namespaced_pod(self._namespace).items:
            owner = next((owner.name for owner in item.metadata.owner_references or []), "")
            vendor = owners.get(owner)
            if vendor and item.metadata.deletion_timestamp is None:
                found.setdefault(_place(item), {})[vendor] = self._pod(item)
        return found

    def _pod(self, item: Any) -> PodState:
        statuses = [*(item.status.init_container_statuses or []), *(item.status.container_statuses or [])]
        waiting = [status.state.waiting for status in statuses if status.state and status.state.waiting]
        ended = [
            end for one in statuses for state in (one.state, one.last_state) if state and (end := state.terminated)
        ]
        ready = bool(item.status.container_statuses) and all(one.ready for one in item.status.container_statuses)
        return PodState(
            name=item.metadata.name,
            phase=item.status.phase or "",
            ready=ready,
            waiting=": ".join(word for word in (waiting[0].reason, waiting[0].message) if word) if waiting else "",
            ended=f"ended with status {ended[0].exit_code} ({ended[0].reason})" if ended else "",
            event="" if ready else self._event(item),
            log=self._log(item),
        )

    def _event(self, item: Any) -> str:
        events = self._core.list_namespaced_event(
            self._namespace, field_selector=f"involvedObject.name={item.metadata.name},type=Warning"
        ).items
        events.sort(key=lambda event: event.last_timestamp or event.metadata.creation_timestamp)
        return " ".join((events[-1].message or "").split()) if events else ""

    def _log(self, item: Any) -> str:
        """The last line of the plugin's container, or of the run of it that died before."""
        for previous in (False, True):
            try:
                text = self._core.read_namespaced_pod_log(
                    item.metadata.name,
                    self._namespace,
                    container=item.spec.containers[-1].name,
                    tail_lines=5,
                    previous=previous,
                )
            except kubernetes().ApiException:
                continue  # nothing has run yet
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            # The kubelet's words for a log that it has thrown away come as if they were the log.
            if lines and not lines[-1].startswith("unable to retrieve container logs"):
                return str(lines[-1])
        return ""


def _place(item: Any) -> str:
    """The node of a pod; a daemon's pod that waits for its node names it in its affinity."""
    if item.spec.node_name:
        return str(item.spec.node_name)
    try:
        terms = item.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
        return str(terms.node_selector_terms[0].match_fields[0].values[0])
    except (AttributeError, IndexError, TypeError):
        return ""


def _node(item: Any) -> NodeState:
    def counts(resources: dict[str, str] | None) -> dict[str, int]:
        return {name: int(count) for name, count in (resources or {}).items() if vendor_of(name) in RESOURCES}

    return NodeState(
        ready=any(one.type == "Ready" and one.status == "True" for one in item.status.conditions or []),
        labels=dict(item.metadata.labels or {}),
        taints=tuple(f"{taint.key}:{taint.effect}" for taint in item.spec.taints or []),
        capacity=counts(item.status.capacity),
        allocatable=counts(item.status.allocatable),
    )


def compare(
    hosts: dict[str, dict[str, Any]],
    nodes: dict[str, NodeState],
    pods: dict[str, dict[str, PodState]],
    sharing: Sharing,
) -> list[Difference]:
    """Every difference of every host."""
    found = []
    for name, given in sorted(hosts.items()):
        node = nodes.get(name)
        if node is not None:
            node = NodeState(node.ready, node.labels, node.taints, node.capacity, node.allocatable, pods.get(name, {}))
        state = from_dict(HostState, given.get("state") or {})
        found += differences(name, Expected(dict(given["resources"])), node, state, sharing)
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "releases": {"type": "dict", "required": True},
            "hosts": {"type": "dict", "required": True},
            "mig_strategy": {"type": "str", "default": "none"},
            "time_slicing": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    sharing = Sharing(asked["mig_strategy"], asked["time_slicing"])
    cluster = Cluster(asked["kubeconfig"], asked["namespace"], asked["releases"])
    end = time.monotonic() + asked["timeout"]
    while True:
        nodes = cluster.nodes()
        # Pods, events and logs are asked for only where there is something to explain.
        found = compare(asked["hosts"], nodes, {}, sharing)
        if found:
            found = compare(asked["hosts"], nodes, cluster.pods(), sharing)
        if not found:
            break
        if any(one.final for one in found) or time.monotonic() > end or module.check_mode:
            faults = [one.text for one in found]
            module.fail_json(
                msg=listing("The cluster", faults, "nothing may be served on these hosts yet"), faults=faults
            )
        time.sleep(POLL_S)
    counts = {name: dict(nodes[name].allocatable) for name in asked["hosts"] if name in nodes}
    module.exit_json(changed=False, counts=counts)


if __name__ == "__main__":
    main()
