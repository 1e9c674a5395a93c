"""A plan's cells as Kubernetes objects, in the order in which they are applied.

Volumes. PodSecurity's `restricted` (and `baseline`) forbid a hostPath, and a namespace that allows it would allow each
pod in it to mount any folder of the host. So the weights and the engines' cache are `local` PersistentVolumes with
claims: who may make volumes says which folder a pod gets, and the pod only names its claim. One for each cell rather
than for each model and host: then it comes and goes with its cell, a cell over several hosts needs one, and no count of
users has to be kept. Cells of one host share the folder all the same. A volume also binds the pod to the hosts that
have the weights, so that a wrong affinity is found by the scheduler and not by the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..cluster import quantities
from ..common.names import PART_OF, SPEC, label_value, object_name, volume_name
from ..models.weights import weights_path
from ..plan.schema import Beside, Cell, Plan, PlannedModel
from .names import ACCOUNT, CELL, DIGEST, MODEL, PRIORITY, TAKES, labels
from .pods import DASHBOARD_PORT, METRICS_PORTS, SERVE_PORT, head_template, start_parameters, worker_template
from .ray_serve import serve_config
from .resources import devices, takes
from .settings import Settings, network

Object = dict[str, Any]
CACHE_BYTES = 20 * 2**30


def shared_objects(plan: Plan, settings: Settings) -> list[Object]:
    """What all cells share: applied first, removed last."""
    return [
        namespace(settings),
        *accounts(settings),
        priority_class(),
        closed_by_default(settings),
        *disruption_budgets(plan.cells, settings),
    ]


def cell_objects(cell: Cell, model: PlannedModel, settings: Settings) -> list[Object]:
    """What one cell consists of, in the order of applying. Removing goes the other way round."""
    return [
        *volumes(cell, model, settings),
        network_policy(cell, settings),
        ray_service(cell, model, settings),
    ]


def namespace(settings: Settings) -> Object:
    """The cells' namespace, closed to anything that asks for a privilege."""
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    metadata = {"name": settings.namespace, "labels": {**PART_OF, **levels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def accounts(settings: Settings) -> list[Object]:
    """A cell asks nothing of the API: its account has no rights, and no token lies in its pods (CIS 5.1.5, 5.1.6)."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": settings.namespace, "labels": dict(PART_OF)},
            "automountServiceAccountToken": False,
        }
        for name in (ACCOUNT, "default")
    ]


def priority_class() -> Object:
    """The plan has given the hardware to the cells: whatever else runs there makes room."""
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": PRIORITY, "labels": dict(PART_OF)},
        "value": 1_000_000,
        "globalDefault": False,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": "Cells of HeteroServe's plan",
    }


def closed_by_default(settings: Settings) -> Object:
    """A pod of the namespace that no cell's policy names neither reaches anyone nor is reached."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": settings.namespace, "labels": dict(PART_OF)},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def disruption_budgets(cells: Iterable[Cell], settings: Settings) -> list[Object]:
    """One for each model with several pods: a drain takes one of them at a time.

    A number that must stay, for these are pods of a RayCluster: Kubernetes cannot tell how many of those there should
    be, and refuses every eviction where a budget says how many may be missing. A model with a single pod has no budget:
    one that keeps it would let no host be drained.
    """
    pods: Counter[str] = Counter()
    for cell in cells:
        pods[cell.model] += len(cell.hosts)
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {
                "name": object_name(model),
                "namespace": settings.namespace,
                "labels": {**PART_OF, MODEL: label_value(model)},
            },
            "spec": {
                "minAvailable": count - 1,
                "selector": {"matchLabels": {MODEL: label_value(model)}},
                # A pod that is not ready protects nobody, and must not keep its host from being drained.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
        for model, count in sorted(pods.items())
        if count > 1
    ]


def volumes(cell: Cell, model: PlannedModel, settings: Settings) -> list[Object]:
    """The weights, which the cell only reads, and what its engine keeps on the host between its starts."""
    items: list[PlannedModel | Beside] = [model, *model.beside]
    weights = [
        _volume(cell, settings, weights_path(settings.models_path, item), "ReadOnlyMany", item.weight_bytes)
        for item in items
    ]
    return [
        *(part for pair in weights for part in pair),
        *_volume(cell, settings, settings.cache_path, "ReadWriteMany", CACHE_BYTES),
    ]


def _volume(cell: Cell, settings: Settings, path: str, mode: str, size: int) -> tuple[Object, Object]:
    """A folder of the cell's hosts for this cell's claim and no other, and the claim that the cell's pods name.

    ``size`` in bytes is what Kubernetes asks for; a folder of a host has no limit of its own.
    """
    name = volume_name(cell.name, cell.hosts, path)
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(cell.hosts)}]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels(cell)},
        "spec": {
            "capacity": {"storage": quantities.memory(size)},
            "accessModes": [mode],
            "volumeMode": "Filesystem",
            # Kubernetes never touches what is in it; the role model_store does.
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": settings.namespace,
                "name": name,
            },
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": labels(cell)},
        "spec": {
            "accessModes": [mode],
            "volumeMode": "Filesystem",
            # Empty: no class may make a volume for it, K3s's own local-path among them.
            "storageClassName": "",
            "volumeName": name,
            "resources": {"requests": {"storage": quantities.memory(size)}},
        },
    }
    return volume, claim


def network_policy(cell: Cell, settings: Settings) -> Object:
    """Who reaches the cell, and whom it reaches.

    The kubelet of a pod's own node, and so its probes, always may (Kubernetes' rule; kube-router, K3s's, keeps it). The
    node port hands on the caller's own address because of externalTrafficPolicy Local, so hosts can be told apart.
    """
    own = {"podSelector": {"matchLabels": {CELL: cell.name}}}
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    names = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ingress: list[Object] = [
        {"from": [own]},
        # The operator hands over the application at the dashboard, and asks Serve's proxy whether it is up.
        {"from": [operator], "ports": _ports(DASHBOARD_PORT, SERVE_PORT)},
    ]
    callers = [network(address, "a gateway host") for address in settings.gateways]
    if callers:
        ingress.append({"from": _blocks(callers), "ports": _ports(SERVE_PORT)})
    watchers = [network(address, "a monitoring host") for address in settings.monitors]
    if watchers:
        ingress.append({"from": _blocks(watchers), "ports": _ports(SERVE_PORT, *METRICS_PORTS.values())})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": cell.name, "namespace": settings.namespace, "labels": labels(cell)},
        "spec": {
            "podSelector": {"matchLabels": {CELL: cell.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [
                {"to": [own]},
                {"to": [names], "ports": [*_ports(53), *_ports(53, protocol="UDP")]},
            ],
        },
    }


def ray_service(cell: Cell, model: PlannedModel, settings: Settings) -> Object:
    """The cell itself. Its annotations go over to its RayCluster, and those of its pods say what really runs."""
    spec: Object = {
        "serveConfigV2": application(cell, model, settings),
        # A changed spec must not start a second cluster beside the first, for which there is no hardware: the cell is
        # drained, its RayCluster deleted, and the operator makes the new one in its place.
        "upgradeStrategy": {"type": "None"},
        "serveService": _serve_service(cell),
        "rayClusterConfig": {
            # Written out: without it KubeRay leaves authentication off without a word.
            "rayVersion": settings.ray_version,
            "authOptions": {"mode": "token", "secretName": settings.token_secret},
            "headGroupSpec": {
                "rayStartParams": start_parameters(cell, settings, cell.hosts[0], True),
                "template": head_template(cell, model, settings),
            },
            **_workers(cell, model, settings),
        },
    }
    annotations = {
        DIGEST: cell.digest,
        SPEC: hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16],
        TAKES: json.dumps(takes(cell), sort_keys=True),
        MODEL: cell.model,
    }
    # The digest comes last and is not of itself, so that cells from before the pods carried it are not outdated.
    config = spec["rayClusterConfig"]
    for group in (config["headGroupSpec"], *config.get("workerGroupSpecs", ())):
        group["template"]["metadata"]["annotations"] = {key: annotations[key] for key in (SPEC, TAKES, MODEL)}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": cell.name,
            "namespace": settings.namespace,
            "labels": labels(cell),
            "annotations": annotations,
        },
        "spec": spec,
    }


def application(cell: Cell, model: PlannedModel, settings: Settings) -> str:
    """The Serve configuration as text: JSON, which is YAML too."""
    inside = replace(cell, ports={**cell.ports, "serve": SERVE_PORT})
    beside = {item.name: weights_path(settings.models_path, item) for item in model.beside}
    config = serve_config(inside, model, weights_path(settings.models_path, model), "0.0.0.0", beside)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def restorable(found: Object) -> Object:
    """An object of the API without what the API adds, to put it back later as it was."""
    metadata = {
        key: found["metadata"][key]
        for key in ("name", "namespace", "labels", "annotations")
        if key in found["metadata"]
    }
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata, "spec": found["spec"]}


def _serve_service(cell: Cell) -> Object:
    """The node port of the cell. The dashboard has none: it stays inside the cluster."""
    # By name: only the head has a port `serve`, so a worker, which has no proxy, is never asked.
    port = {
        "name": "serve",
        "port": SERVE_PORT,
        "targetPort": "serve",
        "nodePort": cell.ports["serve"],
        "protocol": "TCP",
    }
    # Local: a host answers for its own pod only, and the pod sees who asks.
    spec = {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [port]}
    return {"metadata": {"labels": labels(cell)}, "spec": spec}


def _workers(cell: Cell, model: PlannedModel, settings: Settings) -> Object:
    """The other hosts of a cell: a group for all that give as many accelerators."""
    groups: dict[int, list[str]] = defaultdict(list)
    for host in cell.hosts[1:]:
        groups[devices(cell, host)].append(host)
    found = [
        {
            "groupName": f"hosts-{number}",
            "replicas": len(hosts),
            "minReplicas": len(hosts),
            "maxReplicas": len(hosts),
            "numOfHosts": 1,
            "rayStartParams": start_parameters(cell, settings, hosts[0], False),
            "template": worker_template(cell, model, settings, tuple(hosts)),
        }
        for number, (_, hosts) in enumerate(sorted(groups.items()))
    ]
    return {"workerGroupSpecs": found} if found else {}


def _ports(*numbers: int, protocol: str = "TCP") -> list[Object]:
    return [{"protocol": protocol, "port": number} for number in numbers]


def _blocks(networks: list[str]) -> list[Object]:
    return [{"ipBlock": {"cidr": one}} for one in sorted(set(networks))]
