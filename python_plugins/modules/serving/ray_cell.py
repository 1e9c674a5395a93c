#!/usr/bin/python
"""Ansible module: one cell on K3s, running, or the reason why it is not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_cell
short_description: Create, update or remove a cell of the plan on K3s, and wait until it runs
description:
  - Carries out one step of M(ray_cells). A cell that changes is brought up in its own place, because there is no
    hardware for a second one - the RayService is replaced, its RayCluster deleted, and the operator makes a new one.
  - Waits until the cell runs what it should, and no pod of what it was before is left. If it does not get there, fails
    with one sentence that says why, from pods, events, logs, nodes and Serve's own status.
  - Runs on the controller.
options:
  namespace: {description: Namespace of the cells., type: str, default: heteroserve}
  operator_namespace: {description: Namespace of the KubeRay operator., type: str, default: kuberay-operator}
  cell: {description: Name of the cell., type: str, required: true}
  hosts: {description: Its hosts., type: list, elements: str, default: []}
  state:
    description: Whether the cell runs or is deleted. C(started) applies it and does not wait.
    type: str
    choices: [present, started, absent]
    default: present
  recreate:
    description: Whether what runs now ends first, as for an update. Else a cell that was started before goes on.
    type: bool
    default: false
  objects: {description: "What it consists of, in the order of applying.", type: list, elements: dict, default: []}
  spec: {description: Digest of what it is made from (annotation heteroserve.io/spec)., type: str, default: ""}
  memory: {description: Bytes of RAM that the plan gives it., type: int, default: 0}
  timeout: {description: Seconds that it may take., type: int, default: 900}
extends_documentation_fragment: [kubeconfig, progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the cell runs
  ray_cell:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    cell: "{{ step.cell }}"
    hosts: "{{ step.hosts }}"
    objects: "{{ step.objects }}"
    spec: "{{ step.spec }}"
    recreate: "{{ step.action == 'update' }}"
"""

RETURN = r"""
waited_s: {description: Seconds until it ran or was gone., returned: success, type: float}
"""

import time
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.evidence import Evidence, is_ready, made_of, owner_of
from ansible.module_utils.heteroserve.common.names import SPEC
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.serving.api import Cluster
from ansible.module_utils.heteroserve.serving.names import CELL
from ansible.module_utils.heteroserve.serving.waiting import Patience

POLL_S = 2.0
# Seconds that a pod gets to end. Requests have ended before: its cell is drained, or did not answer.
END_S = 1


class Cell:
    """One cell and what is asked of it."""

    def __init__(self, cluster: Cluster, asked: dict[str, Any], progress: Progress) -> None:
        self.cluster = cluster
        self.name: str = asked["cell"]
        self.asked = asked
        self.progress = progress
        self.began = time.time()

    def waited(self) -> float:
        """Seconds since the step began."""
        return time.time() - self.began

    def apply(self) -> None:
        """Have the operator make the cell of what it should be, and of nothing else."""
        pods = self.cluster.pods(f"{CELL}={self.name}")
        wanted_spec, recreate = self.asked["spec"], self.asked["recreate"]
        earlier = [one for one in self.clusters() if recreate or made_of(one, pods).get(SPEC) != wanted_spec]
        for wanted in self.asked["objects"]:
            self.cluster.put(wanted)
        # Not by name: of a RayCluster that was never ready the operator keeps the name for the next one.
        uids = {one["metadata"]["uid"] for one in earlier}
        self._end(uids)
        # Only now: the operator makes the next one from the RayService as it is then.
        for one in earlier:
            self.cluster.remove(one)
        self._wait_for_end(uids)
        kept = {(item["kind"], item["metadata"]["name"]) for item in self.asked["objects"]}
        for item in self.cluster.of_cell(self.name):
            if (item["kind"], item["metadata"]["name"]) not in kept:
                self.cluster.remove(item)

    def _pods(self, clusters: set[str]) -> list[dict[str, Any]]:
        """Pods of some of its RayClusters, named by their UIDs."""
        found = self.cluster.pods(f"{CELL}={self.name}")
        return [pod for pod in found if owner_of(pod) in clusters]

    def _end(self, clusters: set[str]) -> None:
        """End pods in a second, and not after the time for which a stopped one goes on answering: nobody asks them now.

        Before their RayCluster goes: with it they are given their own time, and a container that is being stopped does
        not take a shorter one. The operator makes no others, as it counts a pod until it is gone.
        """
        for pod in self._pods(clusters):
            self.cluster.remove(pod, END_S)

    def _wait_for_end(self, clusters: set[str]) -> None:
        """Until pods of earlier clusters are gone, which hold the hardware and the volumes."""
        while left := self._pods(clusters):
            if self.waited() > self.asked["timeout"]:
                names = ", ".join(pod["metadata"]["name"] for pod in left)
                raise TimeoutError(
                    f"{self.name}: {names} of what ran before does not end: see its host with `kubectl get nodes`"
                )
            self.progress.say(f"{self.name}: {left[0]['metadata']['name']} ends ({self.waited():.0f} s)")
            time.sleep(POLL_S)

    def clusters(self) -> list[dict[str, Any]]:
        """Its RayClusters that are not on their way out."""
        return [
            one for one in self.cluster.clusters(f"{CELL}={self.name}") if not one["metadata"].get("deletionTimestamp")
        ]

    def wait(self) -> str:
        """Until it runs: "", or why it does not get there."""
        patience = Patience(self.asked["timeout"])
        while True:
            seen = self.look()
            outlook = patience.judge(seen, self.asked["spec"])
            if outlook.running:
                return ""
            if outlook.fault:
                # What Ray's own logs tell takes a while to read, so they are only asked for now.
                running = tuple(pod for pod in seen.pods if is_ready(pod))
                told = replace(seen, logs={**seen.logs, **self.cluster.ray_logs(running)})
                told_more: str = Patience(0).judge(told, self.asked["spec"]).fault
                return told_more or str(outlook.fault)
            self.progress.say(f"{outlook.line[:160]} ({self.waited():.0f} s)")
            time.sleep(POLL_S)

    def look(self) -> Evidence:
        """What is to be seen of it."""
        return self.cluster.evidence(self.name, tuple(self.asked["hosts"]), self.began, self.asked["memory"])

    def remove(self) -> None:
        """Until nothing of it is left, its pods and RayClusters included, or it is known that this will not be."""
        self._end({one["metadata"]["uid"] for one in self.clusters()})
        patience = Patience(self.asked["timeout"])
        while left := [*self.cluster.of_cell(self.name), *self.cluster.pods(f"{CELL}={self.name}")]:
            for item in left:
                if item["kind"] != "Pod" and not item["metadata"].get("deletionTimestamp"):
                    # A volume goes with its claim, and the claim with the last pod: Kubernetes keeps the order.
                    self.cluster.remove(item)
            why = patience.judge_end(self.look())
            if why or self.waited() > self.asked["timeout"]:
                names = ", ".join(f"{item['kind']} {item['metadata']['name']}" for item in left)
                gone = why.removeprefix(f"{self.name}: ") or "Kubernetes does not say why"
                raise TimeoutError(f"{self.name}: {names} is not gone after {self.waited():.0f} s: {gone}")
            self.progress.say(f"{self.name}: {left[-1]['kind']} {left[-1]['metadata']['name']} ends")
            time.sleep(POLL_S)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "default": "heteroserve"},
            "operator_namespace": {"type": "str", "default": "kuberay-operator"},
            "cell": {"type": "str", "required": True},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "started", "absent"], "default": "present"},
            "recreate": {"type": "bool", "default": False},
            "objects": {"type": "list", "elements": "dict", "default": []},
            "spec": {"type": "str", "default": ""},
            "memory": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 900},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if module.check_mode:
        module.exit_json(changed=True, waited_s=0.0)
    cluster = Cluster(asked["kubeconfig"], asked["namespace"], asked["operator_namespace"])
    cell = Cell(cluster, asked, Progress(asked["progress_path"]))
    try:
        if asked["state"] == "absent":
            cell.remove()
        else:
            # What is missing altogether is said at once, and not by the first object that is refused.
            fault = Patience(0).judge(replace(cell.look(), pods=(), events=()), "").fault if not cluster.crds() else ""
            if fault:
                module.fail_json(msg=fault)
            cell.apply()
            fault = "" if asked["state"] == "started" else cell.wait()
            if fault:
                module.fail_json(msg=fault)
    except TimeoutError as late:
        module.fail_json(msg=str(late))
    except cluster.refused as refusal:
        module.fail_json(msg=f"{cell.name}: the API refuses it: {refusal.reason}: {refusal.body}"[:1500])
    module.exit_json(changed=True, waited_s=round(cell.waited(), 1))


if __name__ == "__main__":
    main()
