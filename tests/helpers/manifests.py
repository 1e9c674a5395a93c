"""What a real API server, and KubeRay, say of the objects of a plan.

For any ``Cluster`` on which playbooks/cluster.yml has been, also one that serves:
``api_server_accepts(cluster, plan, SETTINGS)`` leaves it as it was, but for the cells' account and priority class.
"""

from __future__ import annotations

import copy
import json
import re
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from heteroserve.plan.schema import Placement, Plan
from heteroserve.serving.names import CELL
from heteroserve.serving.objects import cell_objects, shared_objects
from heteroserve.serving.settings import Settings

from tests.cluster.conftest import Cluster

Object = dict[str, Any]
# Not the field manager of what applies cells: where it sets another value than this, that is a conflict.
MANAGER = "tests"
# What a scheduler says of hosts that are not there, and KubeRay of a cell whose RayCluster its cache does not show yet.
NORMAL = r"FailedScheduling|FailedToCreateRayCluster: .*already exists"


def objects(plan: Plan, settings: Settings) -> list[Object]:
    """All objects of a plan, in the order of applying."""
    models = {model.name: model for model in plan.models}
    own = [one for cell in plan.cells for one in cell_objects(cell, models[cell.model], settings)]
    return [*shared_objects(plan, settings), *own]


def spread(plan: Plan) -> Plan:
    """The plan with one more cell, over two hosts: its head serves, the other host has a worker."""
    one = max(plan.cells, key=lambda cell: cell.tensor_parallel_size)
    hosts = (one.hosts[0], next(cell.hosts[0] for cell in plan.cells if cell.hosts[0] != one.hosts[0]))
    own = one.replicas[0].devices[0]
    ports = {
        name: max(max(cell.ports.values()) for cell in plan.cells) + 1 + number for number, name in enumerate(one.ports)
    }
    wide = replace(
        one, name=f"wide-{one.name}"[:47], hosts=hosts, replicas=(Placement(hosts, (own, own)),), ports=ports
    )
    return replace(plan, cells=(*plan.cells, wide))


def pods(services: list[Object]) -> list[Object]:
    """The pods that KubeRay makes of RayServices: templates with its command, and its init container in workers."""
    found = []
    for service in services:
        cluster = service["spec"]["rayClusterConfig"]
        groups = [("head", cluster["headGroupSpec"]), *(("worker", one) for one in cluster.get("workerGroupSpecs", []))]
        for number, (kind, group) in enumerate(groups):
            template = copy.deepcopy(group["template"])
            ray = template["spec"]["containers"][0]
            ray |= {"command": ["/bin/bash", "-c", "--"], "args": [f"ulimit -n 65536; ray start --{kind}"]}
            if kind == "worker":
                asked = {"cpu": "200m", "memory": "256Mi"}
                own = {key: ray[key] for key in ("image", "command", "securityContext", "volumeMounts")}
                first = {
                    **own,
                    "name": "wait-gcs-ready",
                    "args": ["true"],
                    "resources": dict.fromkeys(("requests", "limits"), asked),
                }
                template["spec"]["initContainers"] = [first]
            metadata = {
                "name": f"{service['metadata']['name']}-{kind}-{number}",
                "namespace": service["metadata"]["namespace"],
                "labels": {**template["metadata"]["labels"], "ray.io/node-type": kind},
            }
            found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return found


def as_list(given: list[Object]) -> str:
    """Objects as kubectl reads them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": given})


def dry_run(cluster: Cluster, given: list[Object]) -> tuple[int, str]:
    """How many objects the API server takes, and all that it has to say: refusals and warnings."""
    done = cluster.run_on(
        cluster.servers[0],
        *("k3s", "kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "name"),
        *(f"--field-manager={MANAGER}", "-f", "-"),
        text=as_list(given),
    )
    return len(done.stdout.split()), done.stderr.strip()


def api_server_accepts(cluster: Cluster, plan: Plan, settings: Settings) -> None:
    """Every object of the plan, and every pod of its cells, is taken without a warning."""
    given = objects(plan, settings)
    assert dry_run(cluster, given) == (len(given), "")
    with_accounts(cluster, plan, settings)
    made = pods([one for one in given if one["kind"] == "RayService"])
    assert len(made) >= len(plan.cells)
    assert dry_run(cluster, made) == (len(made), "")
    # So that the above says something: the namespace is one that refuses and warns.
    greedy = copy.deepcopy(made[0])
    greedy["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    taken, said = dry_run(cluster, [greedy])
    assert taken == 0
    assert 'violates PodSecurity "restricted' in said
    misspelt = copy.deepcopy(next(one for one in given if one["kind"] == "RayService"))
    misspelt["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    assert "unknown field" in dry_run(cluster, [misspelt])[1]


def with_accounts(cluster: Cluster, plan: Plan, settings: Settings) -> None:
    """What a pod names has to be there even for a dry run: the cells' account and priority class."""
    kinds = ("ServiceAccount", "PriorityClass")
    needed = [one for one in shared_objects(plan, settings) if one["kind"] in kinds]
    cluster.kubectl("apply", "--server-side", f"--field-manager={MANAGER}", "-f", "-", text=as_list(needed))


def kuberay_makes_pods(cluster: Cluster, plan: Plan, settings: Settings, limit_s: float = 180) -> Counter[str]:
    """Apply all for real, see what the operator makes of it, and take the cells away again; pods by cell.

    The pods wait for hosts that are not there, so nothing is started. For a cluster that serves nothing: node ports of
    the plan would be taken.
    """
    given = objects(plan, settings)
    cluster.kubectl("apply", "--server-side", f"--field-manager={MANAGER}", "-f", "-", text=as_list(given))
    try:
        return _wait_for_pods(cluster, plan, settings, limit_s)
    finally:
        of_cells = ("-l", CELL, "--timeout=150s")
        for kind in ("rayservices", "networkpolicies,persistentvolumeclaims", "persistentvolumes"):
            cluster.kubectl("delete", kind, "-n", settings.namespace, *of_cells)


def _wait_for_pods(cluster: Cluster, plan: Plan, settings: Settings, limit_s: float) -> Counter[str]:
    expected = Counter({cell.name: len(cell.hosts) for cell in plan.cells})
    space = ("-n", settings.namespace, "-o", "json")
    began = time.monotonic()
    while True:
        items = json.loads(cluster.kubectl("get", "pods", *space))["items"]
        found = Counter(one["metadata"]["labels"]["heteroserve.io/cell"] for one in items)
        if found == expected:
            return found
        events = json.loads(cluster.kubectl("get", "events", *space))["items"]
        refused = {f"{one['reason']}: {one['message']}" for one in events if "Failed" in one["reason"]}
        said = {one for one in refused if not re.match(NORMAL, one)}
        assert not said, sorted(said)[:5]
        assert time.monotonic() - began < limit_s, expected - found
        time.sleep(2)
