#!/usr/bin/python
"""Ansible module: no RayService is left in a namespace."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kuberay_emptied
short_description: Delete what KubeRay's operator looks after, and wait until it is gone
description:
  - A RayService has a finalizer that only a living operator takes off, so this has to be done before the operator goes.
    Requests that are still answered are cut off. Drain the cells first where that matters.
  - Gives up before the time is over where the operator does not run.
options:
  kubeconfig: {description: File with the way to the API., type: path, required: true}
  namespace: {description: Namespace of the cells., type: str, required: true}
  operator_namespace: {description: Namespace of the operator., type: str, default: kuberay-operator}
  timeout: {description: Seconds to wait., type: int, default: 180}
  progress_path: {description: Where the action plugin reads what is being done., type: path}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure all cells are deleted
  kuberay_emptied:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    namespace: heteroserve
"""

RETURN = r"""
removed: {description: What was there., returned: success, type: list}
"""

import time
from dataclasses import replace
from importlib import import_module
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, dynamic, kubernetes
from ansible.module_utils.heteroserve.cluster.evidence import Evidence
from ansible.module_utils.heteroserve.cluster.kuberay import LABEL
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.serving.waiting import Patience

VERSION = "ray.io/v1"
KINDS = ("RayService", "RayJob", "RayCluster")  # owners first: what they own goes with them
POLL_S = 1.0


class Api:
    """Objects of KubeRay's kinds in one namespace, and the operator's pods in another."""

    def __init__(self, kubeconfig: str, namespace: str, operator_namespace: str) -> None:
        self._dynamic = dynamic(connect(kubeconfig))
        self._unknown = import_module("kubernetes.dynamic.exceptions").ResourceNotFoundError
        self._namespace = namespace
        self._operator_namespace = operator_namespace

    def left(self) -> list[tuple[str, dict[str, Any]]]:
        """Kind and metadata of all there is, owners first."""
        found = []
        for kind in KINDS:
            try:
                resource = self._dynamic.resources.get(api_version=VERSION, kind=kind)
                items = self._dynamic.get(resource, namespace=self._namespace).to_dict()["items"]
            except self._unknown:
                continue
            found += [(kind, one["metadata"]) for one in items]
        return found

    def remove(self, kind: str, name: str) -> None:
        """Have an object deleted."""
        resource = self._dynamic.resources.get(api_version=VERSION, kind=kind)
        try:
            self._dynamic.delete(resource, name=name, namespace=self._namespace)
        except kubernetes().ApiException as refusal:
            if refusal.status != 404:
                raise

    def operator(self) -> Evidence:
        """What is to be seen of the operator."""
        resource = self._dynamic.resources.get(api_version="v1", kind="Pod")
        selector = f"app.kubernetes.io/name={LABEL}"
        found = self._dynamic.get(resource, namespace=self._operator_namespace, label_selector=selector)
        pods = tuple(found.to_dict()["items"])
        return Evidence("cells", (), operator=pods, operator_namespace=self._operator_namespace)


def wait(api: Api, timeout: int, progress: Progress) -> str:
    """Until nothing is left: "", or why it does not get there."""
    began, patience = time.monotonic(), Patience(timeout)
    while left := api.left():
        waited = time.monotonic() - began
        why = patience.judge_end(replace(api.operator(), waited_s=waited)).removeprefix("cells: ")
        names = ", ".join(f"{kind} {one['name']}" for kind, one in left[:5])
        if why or waited > timeout:
            kept = sorted({name for _, one in left for name in one.get("finalizers") or []})
            of = f" (finalizers {', '.join(kept)})" if kept else ""
            because = f": {why}" if why else ""
            return (
                f"after {waited:.0f} s there are still {names}{of}{because}; the operator was left, because only it"
                " takes finalizers off"
            )
        progress.say(f"{len(left)} are still there, {names} among them")
        time.sleep(POLL_S)
    return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "operator_namespace": {"type": "str", "default": "kuberay-operator"},
            "timeout": {"type": "int", "default": 180},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    api = Api(asked["kubeconfig"], asked["namespace"], asked["operator_namespace"])
    found = api.left()
    names = [f"{kind} {one['name']}" for kind, one in found]
    if not found or module.check_mode:
        module.exit_json(changed=bool(found), removed=names)
    for kind, one in found:
        if not one.get("ownerReferences"):
            api.remove(kind, one["name"])
    fault = wait(api, asked["timeout"], Progress(asked["progress_path"]))
    if fault:
        left = {f"{kind} {one['name']}" for kind, one in api.left()}
        module.fail_json(msg=fault, removed=[name for name in names if name not in left])
    module.exit_json(changed=True, removed=names)


if __name__ == "__main__":
    main()
