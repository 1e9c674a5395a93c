#!/usr/bin/python
"""Ansible module: what has to be done to bring the cells of a cluster to what the plan says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ray_cells
short_description: Compare the cells of a K3s cluster with the plan and return the ordered steps
description:
  - Builds the objects of each cell of the plan, reads what the cluster has, and returns the steps between the two, each
    to be carried out by M(ray_cell) and to be seen answering before the next begins. Changes nothing.
  - Waits for cells that should stay as they are and are only starting, because whether a cell answers decides about the
    order. A cell that Serve failed to deploy in an earlier run is recreated. Fails before anything is changed where
    Kubernetes or KubeRay would refuse a cell.
  - Runs on the controller.
options:
  plan: {description: The plan., type: dict, required: true}
  settings:
    description: Choices beyond the plan, as C(module_utils/heteroserve/serving/settings.py) names them.
    type: dict
    required: true
  answering:
    description: Cells that answer, as the gateway sees it. Without it a cell answers if Kubernetes calls it ready.
    type: list
    elements: str
  restart:
    description: Cells to restart even if nothing of them has changed.
    type: list
    elements: str
    default: []
  leaving: {description: "Hosts whose cells are to go. With it nothing else is looked at.", type: list, elements: str}
  timeout: {description: Seconds to wait for a cell that is starting., type: int, default: 900}
extends_documentation_fragment: [kubeconfig, progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Compare the cells with the plan
  ray_cells:
    kubeconfig: "{{ state_dir }}/kubeconfig"
    plan: "{{ plan }}"
    settings: "{{ ray_service_settings }}"
    answering: "{{ gateway.answering }}"
"""

RETURN = r"""
shared: {description: Objects that all cells share., returned: success, type: list}
beside: {description: Objects of cells that stay that may be changed while they run., returned: success, type: list}
surplus: {description: Shared objects that the plan has no use for any more., returned: success, type: list}
steps:
  description: >-
    What to do, in this order: action, cell, model, drain, last, why, hosts, spec, memory, objects, and as C(before) the
    objects that the cell consisted of.
  returned: success
  type: list
  elements: dict
at_once:
  description: How many of the steps, from the first on, are new cells that take nothing from others - they may start
    at the same time.
  returned: success
  type: int
refused: {description: "What is not done, and why.", returned: success, type: list}
silent: {description: "Cells that should stay as they are and do not run, and why.", returned: success, type: dict}
"""

import time
from dataclasses import asdict, replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.evidence import annotations_of
from ansible.module_utils.heteroserve.common.faults import listing
from ansible.module_utils.heteroserve.common.names import PART_OF, SPEC
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.common.records import from_dict
from ansible.module_utils.heteroserve.plan.schema import Plan
from ansible.module_utils.heteroserve.serving.api import Cluster
from ansible.module_utils.heteroserve.serving.names import CELL
from ansible.module_utils.heteroserve.serving.objects import cell_objects, restorable, shared_objects
from ansible.module_utils.heteroserve.serving.settings import Settings, faults
from ansible.module_utils.heteroserve.serving.updates import Step, decide, running_cells, wanted_cell
from ansible.module_utils.heteroserve.serving.waiting import Patience, is_given_up

Object = dict[str, Any]
POLL_S = 3.0


def settled(
    cluster: Cluster, plan: Plan, specs: dict[str, str], timeout: int, progress: Progress
) -> tuple[dict[str, str], set[str]]:
    """Wait for cells that run what they should, and are only starting.

    Returns the cells that do not get there, with the reason, and the cells that Serve failed to deploy. The latter are
    to be recreated: the cause may have been fixed outside the plan, such as unreadable weights.
    """
    began = time.time()
    waiting = {cell.name: (cell, Patience(timeout)) for cell in plan.cells if cell.name in specs}
    silent: dict[str, str] = {}
    given_up: set[str] = set()
    while waiting:
        for name, (cell, patience) in list(waiting.items()):
            seen = cluster.evidence(name, cell.hosts, began, cell.limits.host_memory_bytes * len(cell.replicas))
            outlook = patience.judge(seen, specs[name])
            progress.say(f"{outlook.line[:160]} ({time.time() - began:.0f} s)")
            if is_given_up(seen):
                given_up.add(name)
            elif outlook.fault:
                silent[name] = outlook.fault
            elif not outlook.running:
                continue
            del waiting[name]
        if waiting:
            time.sleep(POLL_S)
    return silent, given_up


def surplus(cluster: Cluster, wanted: list[Object]) -> list[Object]:
    """Budgets of models that have gone."""
    kept = {item["metadata"]["name"] for item in wanted if item["kind"] == "PodDisruptionBudget"}
    selector = ",".join(f"{key}={value}" for key, value in PART_OF.items())
    found = cluster.listed("PodDisruptionBudget", "policy/v1", selector)
    return [restorable(item) for item in found if item["metadata"]["name"] not in kept]


def at_once(steps: tuple[Step, ...]) -> int:
    """New cells for which there is room come first, so those before the first other step wait for nothing."""
    return next((number for number, step in enumerate(steps) if step.action != "create"), len(steps))


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "plan": {"type": "dict", "required": True},
            "settings": {"type": "dict", "required": True},
            "answering": {"type": "list", "elements": "str"},
            "restart": {"type": "list", "elements": "str", "default": []},
            "leaving": {"type": "list", "elements": "str"},
            "timeout": {"type": "int", "default": 900},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    try:
        plan = from_dict(Plan, asked["plan"], "plan")
        settings = from_dict(Settings, asked["settings"], "settings")
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    leaving = asked["leaving"]
    found = [] if leaving is not None else faults(plan.cells, settings)
    unknown = sorted(set(asked["restart"]) - {cell.name for cell in plan.cells})
    if unknown:
        found.append(f"there is no cell {', '.join(unknown)}: it has {', '.join(c.name for c in plan.cells) or 'none'}")
    if found:
        module.fail_json(msg=listing("The plan", found, "no cell was touched"))
    cluster = Cluster(asked["kubeconfig"], settings.namespace, settings.operator_namespace)
    services, clusters, pods = cluster.listed("RayService", "ray.io/v1"), cluster.clusters(), cluster.pods(CELL)
    if leaving is not None:
        # Cells on hosts that leave have to go whatever the plan says; the others are not looked at.
        there = running_cells(services, clusters, pods, set(asked["answering"] or ()))
        steps = [
            Step("remove", cell.name, cell.model, True, why="its host leaves the cluster")
            for cell in there
            if set(cell.takes) & set(leaving)
        ]
        module.exit_json(changed=False, steps=[spelled(cluster, plan, one, {}, {}) for one in steps])

    models = {model.name: model for model in plan.models}
    objects = {cell.name: cell_objects(cell, models[cell.model], settings) for cell in plan.cells}
    wanted = tuple(wanted_cell(cell, objects[cell.name][-1]) for cell in plan.cells)
    now = running_cells(services, clusters, pods, set())
    goal = {cell.name: cell.spec for cell in wanted}
    same = {
        cell.name: cell.spec for cell in now if goal.get(cell.name) == cell.spec and cell.name not in asked["restart"]
    }
    timeout = 0 if module.check_mode else asked["timeout"]
    silent, given_up = settled(cluster, plan, same, timeout, Progress(asked["progress_path"]))
    running = {cell.name for cell in now} - set(silent) - given_up
    answering = running if asked["answering"] is None else set(asked["answering"]) & running
    again = {*asked["restart"], *given_up}
    now = tuple(
        replace(cell, answering=cell.name in answering, spec="" if cell.name in again else cell.spec) for cell in now
    )
    decision = decide(wanted, now)
    shared = shared_objects(plan, settings)
    module.exit_json(
        changed=False,
        shared=shared,
        beside=[item for name in decision.unchanged for item in objects[name][:-1]],
        surplus=surplus(cluster, shared),
        steps=[spelled(cluster, plan, one, objects, goal) for one in decision.steps],
        at_once=at_once(decision.steps),
        refused=list(decision.refused),
        silent=silent,
    )


def spelled(
    cluster: Cluster, plan: Plan, step: Step, objects: dict[str, list[Object]], specs: dict[str, str]
) -> dict[str, Any]:
    """A step with all that carrying it out, and taking it back, needs."""
    cell = next((cell for cell in plan.cells if cell.name == step.cell), None)
    before = cluster.of_cell(step.cell)
    service = next((item for item in before if item["kind"] == "RayService"), None)
    return {
        **asdict(step),
        "hosts": list(cell.hosts) if cell else [],
        "spec": specs.get(step.cell, ""),
        "memory": cell.limits.host_memory_bytes * len(cell.replicas) if cell else 0,
        "objects": objects.get(step.cell, []),
        # In the order of applying.
        "before": [restorable(item) for item in reversed(before)],
        "spec_before": annotations_of(service or {}).get(SPEC, ""),
    }


if __name__ == "__main__":
    main()
