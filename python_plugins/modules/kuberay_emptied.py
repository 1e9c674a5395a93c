#!/usr/bin/python
"""Ansible module: no RayService is left in a namespace."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kuberay_emptied
short_description: Delete what KubeRay's operator looks after, and wait until it is gone
description:
  - A RayService has a finalizer that only a living operator takes off, so this has to be done before the operator goes.
    Requests that are still answered are cut off. Drain the cells first where that matters.
options:
  kubeconfig: {description: File with the way to the API., type: path, required: true}
  namespace: {description: Namespace of the cells., type: str, required: true}
  timeout: {description: Seconds to wait., type: int, default: 180}
  progress_path: {description: Where the action plugin reads what is being done., type: path}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure no cell is left
  kuberay_emptied:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    namespace: heteroserve
"""

RETURN = r"""
removed: {description: What was there., returned: success, type: list}
"""

import time
from importlib import import_module
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.kube_api import connect, dynamic, kubernetes
from ansible.module_utils.heteroserve.progress import Progress

VERSION = "ray.io/v1"
KINDS = ("RayService", "RayJob", "RayCluster")  # owners first: what they own goes with them
POLL_S = 1.0


class Api:
    """Objects of KubeRay's kinds in one namespace."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._dynamic = dynamic(connect(kubeconfig))
        self._unknown = import_module("kubernetes.dynamic.exceptions").ResourceNotFoundError
        self._namespace = namespace

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
    api, progress = Api(asked["kubeconfig"], asked["namespace"]), Progress(asked["progress_path"])
    found = api.left()
    names = [f"{kind} {one['name']}" for kind, one in found]
    if not found or module.check_mode:
        module.exit_json(changed=bool(found), removed=names)
    for kind, one in found:
        if not one.get("ownerReferences"):
            api.remove(kind, one["name"])
    end = time.monotonic() + asked["timeout"]
    while left := api.left():
        waiting = [f"{kind} {one['name']}" for kind, one in left]
        if time.monotonic() > end:
            kept = sorted({name for _, one in left for name in one.get("finalizers") or []})
            why = f" (finalizers {', '.join(kept)}: does the operator run?)" if kept else ""
            module.fail_json(
                msg=f"after {asked['timeout']} s there are still {', '.join(waiting[:5])}{why}; the operator was"
                " left, because only it takes finalizers off",
                removed=[name for name in names if name not in waiting],
            )
        progress.say(f"{len(left)} of {len(found)} are still there, {', '.join(waiting[:3])} among them")
        time.sleep(POLL_S)
    module.exit_json(changed=True, removed=names)


if __name__ == "__main__":
    main()
