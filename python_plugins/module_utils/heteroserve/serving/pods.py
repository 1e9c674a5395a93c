"""The pod of a cell on one host: what it runs, may use and is forbidden.

It passes PodSecurity's profile `restricted`, GPUs included: device plugins hand out devices without a privilege, and
the weights come as a volume claim (see ``objects``).
"""

from __future__ import annotations

import json
from typing import Any

from ..cluster import quantities
from ..common.names import volume_name
from ..models.weights import weights_path
from ..plan.schema import Cell, PlannedModel
from .engine_environment import engine_environment
from .names import ACCOUNT, CELL, PRIORITY, labels
from .resources import RAY_RESOURCES, RESOURCES, TAINTS, cores, devices, host_memory, replicas
from .settings import Settings

# A pod has an address of its own, so every cell has the same ports: Ray's and KubeRay's usual ones.
SERVE_PORT = 8000
GCS_PORT = 6379
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
METRICS_PORTS = {"metrics": 8080, "proxy-metrics": 9101}  # Ray's own figures, and those of Ray Serve's HAProxy

MIB = 1024**2
SHARED_PER_REPLICA = 256 * MIB  # vLLM's queue between processes: 10 slots of 24 MiB
SHARED_PER_DEVICE = 512 * MIB  # allowance for NCCL or RCCL
SCRATCH = "20Gi"  # Ray's logs and sockets
HAPROXY = "/opt/library/serving/haproxy.sh"  # of the image
CACHE = "/cache"  # what engines keep between their starts (serving/engines/cache.py)


def head_template(cell: Cell, model: PlannedModel, settings: Settings) -> dict[str, Any]:
    """Pod template of the head, which serves too: on the cell's first host, the one that the gateway asks."""
    ports = {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT, "serve": SERVE_PORT}
    return _template(cell, model, settings, "ray-head", cell.hosts[:1], {**ports, **METRICS_PORTS})


def worker_template(cell: Cell, model: PlannedModel, settings: Settings, hosts: tuple[str, ...]) -> dict[str, Any]:
    """Pod template of what runs on the other hosts of a cell. It has no port `serve`, so no request goes to it."""
    return _template(cell, model, settings, "ray-worker", hosts, METRICS_PORTS)


def start_parameters(cell: Cell, settings: Settings, host: str, head: bool) -> dict[str, str]:
    """Parameters of `ray start` that KubeRay would guess from the limits, which say another thing here."""
    count = devices(cell, host)
    # For Ray's bookkeeping a CPU is a place for an actor: Serve's own need a few beside the engine's.
    places = cores(cell, host) + count + 2 * replicas(cell, host) + 4
    parameters = {
        "num-cpus": str(places),
        "object-store-memory": str(settings.object_store_mib * MIB),
    }
    if head:
        parameters["dashboard-host"] = "0.0.0.0"
    if cell.vendor in RAY_RESOURCES:
        parameters["resources"] = f"'{json.dumps({RAY_RESOURCES[cell.vendor]: count}, separators=(',', ':'))}'"
    else:
        parameters["num-gpus"] = str(count)
    return parameters


def environment(cell: Cell) -> dict[str, str]:
    """Variables of every process of the cell."""
    sequences = cell.limits.max_num_seqs * len(cell.replicas)
    return {
        **engine_environment(cell.vendor, cell.limits.kv_cache_bytes, sequences),
        "RAY_SERVE_HAPROXY_BINARY_PATH": HAPROXY,
        "HETEROSERVE_CACHE": CACHE,
    }


def _template(
    cell: Cell, model: PlannedModel, settings: Settings, name: str, hosts: tuple[str, ...], ports: dict[str, int]
) -> dict[str, Any]:
    folders = {"weights": weights_path(settings.models_path, model)}
    folders |= {
        f"beside-{number}": weights_path(settings.models_path, item) for number, item in enumerate(model.beside)
    }
    container = {
        "name": name,
        "image": settings.images[cell.build],
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": text} for key, text in sorted(environment(cell).items())],
        "ports": [{"name": key, "containerPort": port, "protocol": "TCP"} for key, port in ports.items()],
        "resources": resources(cell, settings, hosts[0]),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            *({"name": volume, "mountPath": path, "readOnly": True} for volume, path in folders.items()),
            {"name": "cache", "mountPath": CACHE},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
        **probes(),
    }
    groups = sorted({group for host in hosts for group in settings.device_groups.get(host, ())})
    spec: dict[str, Any] = {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY,
        # A stopped pod answers on until then (bash does not pass the signal on to Ray), and its successor waits for it.
        "terminationGracePeriodSeconds": settings.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "seccompProfile": {"type": "RuntimeDefault"},
            **({"supplementalGroups": groups} if groups else {}),
        },
        "affinity": _affinity(cell, hosts),
        "tolerations": _tolerations(cell, settings),
        "containers": [container],
        "volumes": [
            *(
                {
                    "name": volume,
                    "persistentVolumeClaim": {"claimName": volume_name(cell.name, cell.hosts, path), "readOnly": True},
                }
                for volume, path in folders.items()
            ),
            {
                "name": "cache",
                "persistentVolumeClaim": {"claimName": volume_name(cell.name, cell.hosts, settings.cache_path)},
            },
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": quantities.memory(_shared(cell, settings, hosts[0]))},
            },
            {"name": "scratch", "emptyDir": {"sizeLimit": quantities.canonical(SCRATCH)}},
        ],
    }
    if cell.vendor == "nvidia":
        spec["runtimeClassName"] = "nvidia"
    if settings.pull_secret:
        spec["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return {"metadata": {"labels": labels(cell)}, "spec": spec}


def resources(cell: Cell, settings: Settings, host: str) -> dict[str, Any]:
    """Requests and limits of the pod on ``host``.

    There is no limit of processors: a throttled engine misses its token times, and what a pod asks for is its share
    where they are short. It asks for less than the plan gives it, because Kubernetes counts threads and needs some
    itself: all cores of a host could never be had.
    """
    planned = host_memory(cell, host)
    limit = int(planned * settings.memory_headroom) + _shared(cell, settings, host)
    processors = cores(cell, host) * settings.cpu_per_core if cell.vendor == "cpu" else 1 + 2 * devices(cell, host)
    requests = {"cpu": quantities.cores(processors), "memory": quantities.memory(min(planned, limit))}
    limits = {"memory": quantities.memory(limit)}
    if cell.vendor != "cpu":
        # The one resource of the cell's own vendor: a host of another vendor cannot take the pod.
        count = quantities.canonical(str(devices(cell, host)))
        requests[RESOURCES[cell.vendor]] = limits[RESOURCES[cell.vendor]] = count
    return {"requests": requests, "limits": limits}


def probes() -> dict[str, Any]:
    """Whether Ray's own processes run.

    Not whether the model answers: KubeRay hands the application over once the head is ready, so a head that waited for
    its application would wait for ever. The gateway asks for the model itself. Without probes of ours KubeRay would set
    its own, which for a worker of a RayService need wget and grep in the image and a Serve proxy on the worker.
    """

    def check(period: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": "/api/healthz", "port": AGENT_PORT, "scheme": "HTTP"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "successThreshold": 1,
            "failureThreshold": failures,
        }

    return {"startupProbe": check(5, 60), "readinessProbe": check(5, 6), "livenessProbe": check(10, 12)}


def _shared(cell: Cell, settings: Settings, host: str) -> int:
    size = settings.object_store_mib * MIB + SHARED_PER_REPLICA * replicas(cell, host)
    return size + SHARED_PER_DEVICE * devices(cell, host)


def _affinity(cell: Cell, hosts: tuple[str, ...]) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(hosts)}]}
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    }
    if len(cell.hosts) > 1:
        apart = {"labelSelector": {"matchLabels": {CELL: cell.name}}, "topologyKey": "kubernetes.io/hostname"}
        affinity["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    return affinity


def _tolerations(cell: Cell, settings: Settings) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    if cell.vendor != "cpu":
        found.append({"key": TAINTS[cell.vendor], "operator": "Exists", "effect": "NoSchedule"})
    # The cell belongs to its host: to be sent away from one that is not heard of would only end what may still answer.
    for taint in ("not-ready", "unreachable"):
        found.append({"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute"})
    return [*found, *(dict(one) for one in settings.tolerations)]
