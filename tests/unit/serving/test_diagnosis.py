"""Each way in which a cell does not start gives one sentence with its evidence; a normal start gives none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from heteroserve.cluster.evidence import Evidence, event_count, event_time, events_of, unix_time
from heteroserve.cluster.operator_log import OperatorLog
from heteroserve.serving.diagnosis import CHECKS, diagnose, progress

CELL = "llama-3-1-8b-cpu-0"
POD = f"{CELL}-x7k2p-head-9qz4m"
IMAGE = "registry.rack:5000/heteroserve/vllm-cpu@sha256:" + "ab" * 32
Object = dict[str, Any]


def conditions(**given: str) -> list[Object]:
    """Conditions by type: "True", or "False reason: message"."""
    found = []
    for kind, text in given.items():
        status, _, rest = text.partition(" ")
        reason, _, message = rest.partition(": ")
        found.append({"type": kind, "status": status, "reason": reason, "message": message})
    return found


def event(reason: str, message: str, name: str = POD, count: int = 1, at: str = "2026-11-24T00:00:00Z") -> Object:
    """A warning as core/v1 shows it."""
    return {
        "reason": reason,
        "message": message,
        "type": "Warning",
        "count": count,
        "lastTimestamp": at,
        "involvedObject": {"name": name},
    }


def pod(status: Object | None = None, **spec: Any) -> Object:
    """The head's pod, on host-a unless it is not placed."""
    container = {
        "name": "ray-head",
        "image": IMAGE,
        "resources": {
            "requests": {"cpu": "32", "memory": "14Gi"},
            "limits": {"memory": "18Gi"},
        },
    }
    return {
        "metadata": {"name": POD},
        "spec": {"nodeName": "host-a", "containers": [container], **spec},
        "status": {"phase": "Running", "conditions": conditions(Ready="True"), **(status or {})},
    }


def container(phase: str = "Pending", restarts: int = 0, last: Object | None = None, **now: Any) -> Object:
    """A pod's status with one container that is not ready."""
    one = {"name": "ray-head", "image": IMAGE, "restartCount": restarts, "ready": False, "state": now}
    if last:
        one["lastState"] = {"terminated": last}
    return {
        "phase": phase,
        "conditions": conditions(Ready="False ContainersNotReady: containers with unready status: [ray-head]"),
        "containerStatuses": [one],
    }


def pending(message: str) -> Object:
    """A pod that the scheduler could not place."""
    found = pod({"phase": "Pending", "conditions": conditions(PodScheduled=f"False Unschedulable: {message}")})
    del found["spec"]["nodeName"]
    return found


def node(name: str = "host-a", cordoned: bool = False, ready: str = "True", **allocatable: str) -> Object:
    """A node."""
    offered = {key.replace("__", "/").replace("_", "."): text for key, text in allocatable.items()}
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"conditions": conditions(Ready=ready), "allocatable": {"cpu": "64", "memory": "128Gi", **offered}},
    }


def service(apps: Object | None = None, **given: str) -> Object:
    """The cell's RayService."""
    found = given or {"Ready": "False Initializing: RayService is initializing"}
    return {
        "metadata": {"name": CELL},
        "status": {"conditions": conditions(**found), "pendingServiceStatus": {"applicationStatuses": apps or {}}},
    }


def repeated(reason: str, message: str, count: int, last: str, name: str = CELL) -> Object:
    """A warning that KubeRay's recorder has counted up: no count and no last time but in its series."""
    return {
        "reason": reason,
        "message": message,
        "type": "Warning",
        "eventTime": "2026-11-24T00:00:01.123456Z",
        "series": {"count": count, "lastObservedTime": last},
        "involvedObject": {"name": name},
        "metadata": {"creationTimestamp": "2026-11-24T00:00:01Z"},
    }


def failed_pass(error: str, name: str = CELL, at: str = "2026-11-24T00:00:05.123Z") -> str:
    """What the operator logs of a pass that failed, as zap writes it."""
    return json.dumps(
        {
            "level": "error",
            "ts": at,
            "logger": "controllers.RayService",
            "msg": "Reconciler error",
            "RayService": {"name": name, "namespace": "heteroserve"},
            "reconcileID": "a5e9b0e3-5f0c-4b59-8a52-3f0f3c3f1d52",
            "error": error,
            "stacktrace": "sigs.k8s.io/controller-runtime/pkg/internal/controller.(*Controller[...]).reconcile\n" * 4,
        }
    )


def reached(name: str = CELL, at: str = "2026-11-24T00:00:09.000Z") -> str:
    """What the operator logs once it has read Serve's status."""
    return json.dumps(
        {
            "level": "info",
            "ts": at,
            "logger": "controllers.RayService",
            "msg": "checkIfNeedSubmitServeApplications",
            "RayService": {"name": name, "namespace": "heteroserve"},
            "shouldUpdate": False,
            "reason": "Current V2 Serve config matches cached Serve config.",
        }
    )


def said_by_operator(*lines: str) -> tuple[str, ...]:
    """What is left of lines of the operator's log for the cell."""
    log = OperatorLog("heteroserve")
    log.feed("kuberay-operator-6d5f8c9b7-abcde", "\n".join(lines))
    return log.of({CELL, f"{CELL}-x7k2p"})


def written(at: str) -> list[Object]:
    """Who wrote an object and when: a person its spec, and the operator its status later."""
    return [
        {"manager": "heteroserve", "operation": "Update", "time": at},
        {"manager": "manager", "operation": "Update", "time": "2026-11-24T09:00:00Z", "subresource": "status"},
    ]


def corrected(observed: int | None, generation: int) -> Object:
    """A RayService that was refused once, as KubeRay leaves it after the correction until an endpoint is ready."""
    found = service(Ready="False ValidationFailed: The RayService spec is invalid: Ray Autoscaler is required")
    found["metadata"] |= {"generation": generation, "managedFields": written("2026-11-24T00:01:00Z")}
    found["status"]["lastUpdateTime"] = "2026-11-24T00:01:02Z" if observed else "2026-11-24T00:00:00Z"
    if observed:
        found["status"]["observedGeneration"] = observed
    return found


def ported(*names: str) -> Object:
    """A RayService's spec whose head lists ports."""
    ports = [{"name": name, "containerPort": 8000} for name in names]
    head = {"containers": [{"name": "ray-head", **({"ports": ports} if ports else {})}]}
    return {"rayClusterConfig": {"headGroupSpec": {"template": {"spec": head}}}}


# KubeRay's own texts: advice and a link of some 300 characters before the reason.
LINK = "cluster/kubernetes/troubleshooting/rayservice-troubleshooting.html"
HANDED = (
    f"Failed to update serve applications to the RayCluster heteroserve/{CELL}-x7k2p: fail to create / update Serve"
    ' applications. If you observe this error consistently, please check "Issue 5: Fail to create / update'
    f' Serve applications." in https://docs.ray.io/en/master/{LINK}#kuberay-raysvc-troubleshoot for more details.'
    " err: {why}"
)
STATUSES = (
    "failed to get Serve application statuses from the dashboard. If you observe this error consistently, please check"
    f" https://docs.ray.io/en/latest/{LINK} for more details. err: {{why}}"
)
REFUSED_TOKEN = (
    "failed to get serve details: GetServeDetails fail: 401 Unauthorized Unauthorized: Missing authentication token"
)
PUT_REFUSED = "UpdateDeployments fail: 403 Forbidden Forbidden: Invalid authentication token"
TOO_SLOW = (
    f'Put "http://{CELL}-x7k2p-head-svc.heteroserve.svc.cluster.local:8265/api/serve/applications/": context deadline'
    " exceeded (Client.Timeout exceeded while awaiting headers)"
)
OPERATOR = {
    "metadata": {"name": "kuberay-operator-6d5f8c9b7-abcde"},
    "spec": {"containers": [{"name": "kuberay-operator", "image": "quay.io/kuberay/operator:v1.7.0"}]},
    "status": {"phase": "Running", "conditions": conditions(Ready="True")},
}
START = Evidence(
    cell=CELL, hosts=("host-a",), service=service(), pods=(pod(),), nodes=(node(), node("host-b")), operator=(OPERATOR,)
)
TRACE = (
    "The deployment failed to start 3 times in a row. See controller logs for details. Error:\nTraceback:\n"
    "pydantic_core.ValidationError: 1 validation error for VLLMEngineConfig"
)


def gpus(asked: int = 4) -> Object:
    """A pod that asks for GPUs where there are too few."""
    found = pending(
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't match Pod's node affinity/selector."
        " preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not"
        " helpful for scheduling."
    )
    found["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(asked)}}
    return found


def neighbour(name: str, **asked: str) -> Object:
    """Another pod on host-a."""
    limits = {key.replace("__", "/").replace("_", "."): text for key, text in asked.items()}
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": "host-a", "containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": "Running"},
    }


CASES: dict[str, tuple[Evidence, str, str]] = {
    "the CRDs are missing": (
        replace(START, crds=(), service=None, pods=()),
        "crds_missing",
        "the cluster does not know rayclusters.ray.io and rayservices.ray.io: KubeRay's CRDs are missing",
    ),
    "there is no operator": (
        replace(START, operator=(), pods=()),
        "operator_down",
        "the KubeRay operator is not there: no pod of it in the namespace kuberay-operator",
    ),
    "the operator's image cannot be had": (
        replace(
            START,
            pods=(),
            operator=(
                {
                    **OPERATOR,
                    "status": {
                        "phase": "Pending",
                        "containerStatuses": [
                            {
                                "name": "kuberay-operator",
                                "image": "quay.io/kuberay/operator:v1.7.0",
                                "state": {
                                    "waiting": {
                                        "reason": "ImagePullBackOff",
                                        "message": 'Back-off pulling image "quay.io/kuberay/operator:v1.7.0":'
                                        ' ErrImagePull: rpc error: code = Unknown desc = failed to do request: Head "https://quay.io/v2/":'
                                        " dial tcp: lookup quay.io: no such host",
                                    }
                                },
                            }
                        ],
                    },
                },
            ),
        ),
        "operator_down",
        'cannot get the image quay.io/kuberay/operator:v1.7.0 (failed to do request: Head "https://quay.io/v2/": dial'
        " tcp: lookup quay.io: no such host): the host does not reach the registry",
    ),
    "the operator refuses the name": (
        replace(
            START,
            service=service(
                Ready="False ValidationFailed: The RayService metadata is invalid: RayService name should be no more"
                " than 47 characters"
            ),
            pods=(),
        ),
        "spec_refused",
        "KubeRay refuses the cell: The RayService metadata is invalid: RayService name should be no more than 47",
    ),
    "it took too long once": (
        replace(START, service=service(Ready="False InitializingTimeout: RayService failed to become ready within 5m")),
        "spec_refused",
        "KubeRay has given up the cell for good: RayService failed to become ready within 5m; delete its RayService",
    ),
    "PodSecurity refuses the pod": (
        replace(
            START,
            pods=(),
            events=(
                event(
                    "FailedToCreateHeadPod",
                    f'Failed to create head Pod heteroserve/{POD}, pods "{POD}" is forbidden: violates PodSecurity'
                    ' "restricted:latest": runAsNonRoot != true (pod or container "ray-head" must set'
                    " securityContext.runAsNonRoot=true)",
                ),
            ),
        ),
        "pod_refused",
        'runAsNonRoot != true (pod or container "ray-head" must set securityContext.runAsNonRoot=true); the level of',
    ),
    "the node port is taken": (
        replace(
            START,
            events=(
                event(
                    "FailedToCreateService",
                    f'Failed to create the service heteroserve/{CELL}-serve-svc, Service "{CELL}-serve-svc" is invalid:'
                    " spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated",
                    CELL,
                ),
            ),
        ),
        "port_taken",
        "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated): remove that one",
    ),
    "the host is no node": (
        replace(START, nodes=(node("host-b"),)),
        "host_missing",
        "the host host-a is not a node of the cluster",
    ),
    "the host is silent": (
        replace(START, nodes=(node(ready="Unknown NodeStatusUnknown: Kubelet stopped posting node status."),)),
        "host_missing",
        "the host host-a is not Ready (Kubelet stopped posting node status)",
    ),
    "the host is cordoned": (
        replace(
            START,
            pods=(
                pending(
                    "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) were"
                    " unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
                ),
            ),
            nodes=(node(cordoned=True), node("host-b")),
        ),
        "host_cordoned",
        f"the host host-a is cordoned and takes no pod ({POD} waits): `kubectl uncordon host-a`",
    ),
    "it asks for GPUs where there are none": (
        replace(START, pods=(gpus(),)),
        "unschedulable",
        f"{POD} does not fit: it asks for 4 of nvidia.com/gpu; host-a offers none: is its driver loaded, and",
    ),
    "others have the GPUs": (
        replace(
            START,
            pods=(gpus(),),
            nodes=(node(nvidia_com__gpu="4"),),
            others=(neighbour("notebook", nvidia_com__gpu="1"), neighbour("training", nvidia_com__gpu="2")),
        ),
        "unschedulable",
        "it asks for 4 of nvidia.com/gpu; host-a has 4, of which 3 taken by notebook, training",
    ),
    "it asks for too much memory": (
        replace(
            START,
            pods=(
                pending(
                    "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. preemption: 0/1 nodes are"
                    " available: 1 No preemption victims found for incoming pod."
                ),
            ),
            nodes=(node(),),
            others=(neighbour("other", cpu="40", memory="120Gi"),),
        ),
        "unschedulable",
        "it asks for 32 of cpu; host-a has 64, of which 40 taken by other; it asks for 14.0 GiB of memory; host-a has"
        " 128.0 GiB, of which 120.0 GiB taken by other",
    ),
    "the host has a taint": (
        replace(
            START,
            pods=(pending("0/1 nodes are available: 1 node(s) had untolerated taint {team: research}."),),
        ),
        "unschedulable",
        f"the host host-a has the taint team: research, which {POD} does not tolerate",
    ),
    "the volume is another host's": (
        replace(START, pods=(pending("0/2 nodes are available: 1 node(s) had volume node affinity conflict."),)),
        "unschedulable",
        f"the weights' volume of {POD} cannot be had: 0/2 nodes are available: 1 node(s) had volume node affinity",
    ),
    "the image does not exist": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        waiting={
                            "reason": "ImagePullBackOff",
                            "message": f'Back-off pulling image "{IMAGE}": ErrImagePull: rpc error: code = NotFound'
                            f' desc = failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}":'
                            f" {IMAGE}: not found",
                        }
                    )
                ),
            ),
        ),
        "image_pull",
        "not found): the registry has no such image: build and push it with playbooks/images.yml",
    ),
    "the registry wants a password": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        waiting={
                            "reason": "ErrImagePull",
                            "message": "rpc error: code = Unknown desc = failed to authorize: failed to fetch anonymous"
                            " token: unexpected status from GET request: 401 Unauthorized",
                        }
                    )
                ),
            ),
        ),
        "image_pull",
        "401 Unauthorized): the registry does not let it be read: set the pull secret's user and password",
    ),
    "the weights are not there": (
        replace(
            START,
            pods=(pod(container(waiting={"reason": "ContainerCreating"})),),
            events=(
                event(
                    "FailedMount",
                    f'MountVolume.NewMounter initialization failed for volume "{CELL}-0a1b2c" : path'
                    ' "/var/lib/heteroserve/models/llama-3.1-8b" does not exist',
                    count=7,
                ),
            ),
        ),
        "mount_failed",
        "the weights are not on host-a: /var/lib/heteroserve/models/llama-3.1-8b does not exist; run",
    ),
    "containerd has no runtime for the GPU": (
        replace(
            START,
            pods=(pod(container(waiting={"reason": "ContainerCreating"})),),
            events=(
                event(
                    "FailedCreatePodSandBox",
                    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no"
                    ' runtime for "nvidia" is configured',
                ),
            ),
        ),
        "sandbox_failed",
        "containerd does not know the runtime nvidia; install it and restart K3s on the host",
    ),
    "the token's Secret is missing": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        waiting={"reason": "CreateContainerConfigError", "message": 'secret "ray-token" not found'}
                    )
                ),
            ),
        ),
        "secret_missing",
        'Ray\'s token is not there: secret "ray-token" not found; run playbooks/serving.yml',
    ),
    "the token has another key": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        waiting={
                            "reason": "CreateContainerConfigError",
                            "message": "couldn't find key auth_token in Secret heteroserve/ray-token",
                        }
                    )
                ),
            ),
        ),
        "secret_missing",
        "Ray's token is not there: couldn't find key auth_token in Secret heteroserve/ray-token",
    ),
    "the image's user is root": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        waiting={
                            "reason": "CreateContainerConfigError",
                            "message": "container has runAsNonRoot and image will run as root (pod: ...)",
                        }
                    )
                ),
            ),
        ),
        "secret_missing",
        "the container ray-head of",
    ),
    "the memory limit is too low": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        "Running",
                        3,
                        {"reason": "OOMKilled", "exitCode": 137},
                        waiting={"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"},
                    )
                ),
            ),
            logs={POD: "Loading safetensors checkpoint shards: 50%\n"},
        ),
        "out_of_memory",
        f"the pod {POD} on host-a ran out of memory (OOMKilled, limit 18Gi, restarted 3x): raise ray_",
    ),
    "the memory limit is too low for a process of the container": (
        replace(START, pods=(pod(container("Running", 3, {"reason": "Error", "exitCode": 137})),), logs={POD: "x"}),
        "out_of_memory",
        f"the pod {POD} on host-a ran out of memory (killed with status 137, limit 18Gi, restarted 3x): raise ray_",
    ),
    "the kubelet killed it": (
        replace(
            START,
            pods=(pod(container("Running", 3, {"reason": "Error", "exitCode": 137})),),
            events=(event("Killing", "Container ray-head failed liveness probe, will be restarted"),),
            logs={POD: "x"},
        ),
        "crashed",
        f"the pod {POD} on host-a ended with status 137, restarted 3x; its last line: x",
    ),
    "the host ran short of disk": (
        replace(
            START,
            pods=(
                pod(
                    {
                        "phase": "Failed",
                        "reason": "Evicted",
                        "message": "The node was low on resource: ephemeral-storage. ",
                        "conditions": [],
                    }
                ),
            ),
        ),
        "evicted",
        f"host-a ended the pod {POD} (Evicted): The node was low on resource: ephemeral-storage",
    ),
    "Ray does not start": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        "Running",
                        4,
                        {"reason": "Error", "exitCode": 1},
                        waiting={"reason": "CrashLoopBackOff", "message": "back-off 1m20s restarting failed container"},
                    )
                ),
            ),
            logs={
                POD: "Local node IP: 10.42.1.9\nValueError: The configured object store size exceeds /dev/shm size\n\n"
            },
        ),
        "crashed",
        "ended with status 1, restarted 4x; its last line: ValueError: The configured object store size exceeds",
    ),
    "a parameter of ray start is wrong": (
        replace(
            START,
            pods=(
                pod(
                    container("Running", 2, {"reason": "Error", "exitCode": 2}, waiting={"reason": "CrashLoopBackOff"})
                ),
            ),
            logs={
                POD: "Usage: ray start [OPTIONS]\nTry 'ray start --help' for help.\n\nError: No such option:"
                " --object-store-memry Did you mean --object-store-memory?\n"
            },
        ),
        "crashed",
        "ended with status 2, restarted 2x; its last line: Error: No such option: --object-store-memry Did you mean"
        " --object-store-memory?: a parameter of `ray start` is wrong",
    ),
    "the head has no port for Serve": (
        replace(START, service={**service(), "spec": ported("gcs-server", "dashboard", "http")}),
        "no_serve_port",
        "the head's container has no port named `serve` (it has gcs-server, dashboard, http), so the cell's node port",
    ),
    "a worker was deleted and no other comes": (
        replace(START, hosts=("host-a", "host-b"), waited_s=60.0),
        "pod_missing",
        "1 of its 2 pods are there, host-b has none, and KubeRay makes none",
    ),
    "the image has no bash": (
        replace(
            START,
            pods=(
                pod(
                    container(
                        "Running",
                        2,
                        {
                            "reason": "StartError",
                            "exitCode": 128,
                            "message": 'failed to create containerd task: exec: "/bin/bash": stat /bin/bash: no such'
                            " file or directory",
                        },
                        waiting={"reason": "CrashLoopBackOff"},
                    )
                ),
            ),
        ),
        "crashed",
        'ended with status 128, restarted 2x; its last line: failed to create containerd task: exec: "/bin/bash"',
    ),
    "Ray and the operator have different tokens": (
        replace(START, operator_said=said_by_operator(failed_pass(STATUSES.format(why=REFUSED_TOKEN)))),
        "token_refused",
        f"Ray does not take the operator's token ({REFUSED_TOKEN}): the Secret is not what",
    ),
    "Ray refuses the operator's token when the application comes": (
        replace(START, events=(event("FailedToUpdateServeApplications", HANDED.format(why=PUT_REFUSED), CELL),)),
        "token_refused",
        f"Ray does not take the operator's token ({PUT_REFUSED}): the Secret is not what",
    ),
    "an engine argument has a typo": (
        replace(
            START,
            service=service({CELL: {"status": "DEPLOY_FAILED", "message": TRACE}}, Ready="True"),
            logs={POD: "ValueError: Unknown engine argument: max_num_sqs\n"},
        ),
        "serve_failed",
        "The deployment failed to start 3 times in a row. See controller logs for details; last error:",
    ),
    "the operator cannot hand the application over": (
        replace(
            START,
            events=(
                repeated("FailedToUpdateServeApplications", HANDED.format(why=TOO_SLOW), 9, "2026-11-24T00:09:00Z"),
            ),
            operator_said=said_by_operator(failed_pass(STATUSES.format(why="dial tcp 10.42.1.9:8265: i/o timeout"))),
        ),
        "not_handed_over",
        "the operator could not hand the application to Ray (tried 9x): dial tcp 10.42.1.9:8265: i/o timeout",
    ),
    "serveConfigV2 is no YAML": (
        replace(
            START,
            events=(
                event(
                    "FailedToUpdateServeApplications",
                    f"Failed to update serve applications to the RayCluster heteroserve/{CELL}-x7k2p: error converting"
                    " YAML to JSON: yaml: line 3: mapping values are not allowed in this context",
                    CELL,
                ),
            ),
        ),
        "not_handed_over",
        "the cell's serveConfigV2 is no YAML: yaml: line 3: mapping values are not allowed in this context",
    ),
    "Serve refuses the application": (
        replace(
            START,
            events=(
                event(
                    "FailedToUpdateServeApplications",
                    HANDED.format(
                        why="UpdateDeployments fail: 400 Bad Request pydantic.ValidationError: extra fields not"
                        " permitted"
                    ),
                    CELL,
                ),
            ),
        ),
        "not_handed_over",
        "the operator could not hand the application to Ray (tried 1x): UpdateDeployments fail: 400 Bad Request"
        " pydantic.ValidationError: extra fields not permitted",
    ),
    "Ray does not answer the kubelet": (
        replace(
            START,
            pods=(pod(container("Running", running={"startedAt": "2026-11-24T00:00:00Z"})),),
            events=(
                event(
                    "Unhealthy", 'Startup probe failed: Get "http://10.42.1.9:52365/api/healthz": connection refused'
                ),
            ),
            logs={POD: "Enable usage stats collection?\n"},
        ),
        "not_probed",
        'does not answer: Startup probe failed: Get "http://10.42.1.9:52365/api/healthz": connection refused; its last',
    ),
    "the operator looks elsewhere": (
        replace(START, service={"metadata": {"name": CELL}}, pods=(), waited_s=45.0),
        "not_taken_up",
        "the KubeRay operator runs and has not taken up the cell after 45 s: does it watch the namespace heteroserve?",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_one_sentence_with_its_evidence(case: str) -> None:
    evidence, kind, said = CASES[case]
    found = diagnose(evidence)
    assert found is not None
    assert found.kind == kind
    assert said in found.text
    assert found.text.startswith(f"{CELL}: ")
    assert "\n" not in found.text


def test_every_check_has_a_case() -> None:
    assert {kind for _, kind, _ in CASES.values()} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(
    "evidence",
    [
        START,
        replace(START, service={"metadata": {"name": CELL}}, pods=(), waited_s=5.0),
        replace(START, pods=(pod(container(waiting={"reason": "ContainerCreating"})),)),
        replace(START, pods=(pod(container("Running", running={})),)),
        replace(START, service=service({CELL: {"status": "DEPLOYING", "message": ""}})),
        replace(START, service=service({CELL: {"status": "RUNNING"}}, Ready="True")),
        # In every normal start the first call takes longer than the operator's 2 seconds.
        replace(
            START,
            events=(event("FailedToUpdateServeApplications", "context deadline exceeded", CELL, count=2),),
        ),
        # What happened before the application came is no news.
        replace(
            START,
            service=service({CELL: {"status": "DEPLOYING"}}),
            events=(event("FailedToUpdateServeApplications", "context deadline exceeded", CELL, count=9),),
        ),
        # A container that was restarted once and is ready again.
        replace(
            START,
            pods=(
                pod(
                    {
                        "containerStatuses": [
                            {
                                "name": "ray-head",
                                "ready": True,
                                "restartCount": 1,
                                "state": {"running": {}},
                                "lastState": {"terminated": {"reason": "Error", "exitCode": 143}},
                            }
                        ]
                    }
                ),
            ),
        ),
        # The predecessor ends while its successor starts.
        replace(
            START, pods=(pod(), {**gpus(), "metadata": {"name": "old", "deletionTimestamp": "2026-11-24T00:00:00Z"}})
        ),
        # A host that was cordoned later keeps the pod that it has.
        replace(START, nodes=(node(cordoned=True),)),
        # Another cell's trouble with its token.
        replace(START, operator_said=said_by_operator(failed_pass(STATUSES.format(why=REFUSED_TOKEN), name="other"))),
        # The operator has reached Serve since.
        replace(START, operator_said=said_by_operator(failed_pass(STATUSES.format(why=REFUSED_TOKEN)), reached())),
        # A cache that lags behind: of 32 cells 7 had it.
        replace(
            START,
            events=(
                event(
                    "FailedToCreateRayCluster",
                    f"Failed to create the RayCluster heteroserve/{CELL}-x7k2p: rayclusters.ray.io"
                    f' "{CELL}-x7k2p" already exists',
                    CELL,
                ),
            ),
            operator_said=said_by_operator(failed_pass(f'rayclusters.ray.io "{CELL}-x7k2p" already exists')),
        ),
        # What was refused before the last change.
        replace(START, service=corrected(observed=3, generation=3)),
        replace(START, service=corrected(observed=None, generation=3)),
        replace(
            START,
            service={**service(), "metadata": {"name": CELL, "managedFields": written("2026-11-24T00:01:00Z")}},
            events=(
                event(
                    "FailedToUpdateServeApplications",
                    "Failed to update serve applications to the RayCluster a/b: error converting YAML to JSON: yaml: x",
                    CELL,
                ),
            ),
        ),
        replace(
            START,
            cluster={"metadata": {"name": f"{CELL}-x7k2p", "managedFields": written("2026-11-24T00:01:00Z")}},
            events=(event("InvalidRayClusterSpec", "The RayCluster spec is invalid a/b: c", f"{CELL}-x7k2p"),),
        ),
        # The port was free in the end.
        replace(
            START,
            events=(
                event("FailedToCreateService", "provided port is already allocated", CELL),
                event("CreatedService", "Created the service a/b", CELL, at="2026-11-24T00:00:09Z"),
            ),
        ),
        # A worker was deleted a moment ago.
        replace(START, hosts=("host-a", "host-b"), waited_s=10.0),
        # Without any ports KubeRay takes its own, which include Serve's.
        replace(START, service={**service(), "spec": ported()}),
    ],
)
def test_a_normal_start_is_no_fault(evidence: Evidence) -> None:
    assert diagnose(evidence) is None


def test_a_token_that_the_operator_cannot_read_is_named() -> None:
    said = said_by_operator(
        failed_pass('failed to get auth secret heteroserve/ray-token: Secret "ray-token" not found')
    )
    found = diagnose(replace(START, operator_said=said))
    assert found is not None
    assert "failed to get auth secret heteroserve/ray-token" in found.text


def test_the_operators_last_word_is_its_reason_whatever_stands_before_it() -> None:
    """Of 300 characters before the reason nothing would be left of it, were they cut first."""
    found = diagnose(CASES["the operator cannot hand the application over"][0])
    assert found is not None
    assert "troubleshooting" not in found.text
    assert "stacktrace" not in found.text
    last = replace(CASES["the operator cannot hand the application over"][0], operator_said=())
    found = diagnose(last)
    assert found is not None
    assert found.text.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")


def test_a_refusal_counts_for_the_object_as_it_is() -> None:
    refused = corrected(observed=None, generation=3)
    refused["status"]["lastUpdateTime"] = "2026-11-24T00:01:02Z"
    for observed in (None, 2):
        if observed:
            refused["status"]["observedGeneration"] = observed
        found = diagnose(replace(START, service=refused))
        assert found is not None
        assert (
            found.text
            == f"{CELL}: KubeRay refuses the cell: The RayService spec is invalid: Ray Autoscaler is required"
        )


def test_a_cell_that_was_given_up_stays_so_whatever_is_changed() -> None:
    given_up = service(Ready="False InitializingTimeout: RayService failed to become ready within 5m")
    given_up["metadata"] |= {"generation": 4, "managedFields": written("2026-11-24T00:01:00Z")}
    given_up["status"] |= {"observedGeneration": 4, "lastUpdateTime": "2026-11-24T00:00:00Z"}
    found = diagnose(replace(START, service=given_up))
    assert found is not None
    assert found.patience_s == 0


def test_an_event_was_last_seen_when_its_series_says() -> None:
    series = repeated("FailedToUpdateServeApplications", "x", 5, "2026-11-24T00:08:00.000001Z")
    assert event_time(series) == unix_time("2026-11-24T00:08:00.000001Z")
    assert event_count(series) == 5
    assert event_time({"metadata": {"creationTimestamp": "2026-11-24T00:00:01Z"}}) == unix_time("2026-11-24T00:00:01Z")
    assert event_time(event("Unhealthy", "x", at="2026-11-24T00:00:07Z")) == unix_time("2026-11-24T00:00:07Z")
    first = repeated("FailedMount", "an early one", 9, "2026-11-24T00:00:01Z")
    later = event("FailedMount", "a later one", CELL, at="2026-11-24T00:00:30Z")
    seen = replace(START, events=(later, {**first, "series": {"count": 9, "lastObservedTime": "2026-11-24T00:01:00Z"}}))
    assert [one["message"] for one in events_of(seen, "FailedMount")] == ["a later one", "an early one"]


def test_serve_is_explained_as_under_the_other_runtime() -> None:
    evidence = CASES["an engine argument has a typo"][0]
    found = diagnose(evidence)
    assert found is not None
    assert found.text.endswith("an engine argument is wrong: see the model's engine_args")
    assert found.patience_s == 0
    unhealthy = replace(evidence, service=service({CELL: {"status": "UNHEALTHY", "message": "replica died"}}), logs={})
    found = diagnose(unhealthy)
    assert found is not None
    assert found.patience_s > 0


def test_what_mends_itself_is_waited_for() -> None:
    def patience(case: str) -> int:
        found = diagnose(CASES[case][0])
        assert found is not None
        return found.patience_s

    assert patience("the CRDs are missing") == 0
    assert 0 < patience("the operator refuses the name") <= 15
    assert patience("the memory limit is too low") == 0
    assert 0 < patience("the image does not exist") < patience("it asks for GPUs where there are none")


def test_a_cause_goes_before_its_effects() -> None:
    both = replace(
        CASES["the memory limit is too low"][0],
        service=service({CELL: {"status": "DEPLOY_FAILED", "message": "The replica died"}}),
        nodes=(node(cordoned=True),),
        events=CASES["Ray does not answer the kubelet"][0].events,
    )
    found = diagnose(both)
    assert found is not None
    assert found.kind == "out_of_memory"


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (replace(START, service=None), "to be applied"),
        (replace(START, pods=()), "waiting for its pods"),
        (replace(START, hosts=("host-a", "host-b")), "1 of 2 pods are there"),
        (replace(START, pods=(pod(container(waiting={"reason": "ContainerCreating"})),)), f"{POD} ContainerCreating"),
        (replace(START, pods=(pod(container("Running", running={})),)), f"{POD} starts"),
        (START, "Serve does not know the application yet"),
        (replace(START, service=service({CELL: {"status": "RUNNING"}})), "running"),
    ],
)
def test_waiting_says_for_what(evidence: Evidence, said: str) -> None:
    assert progress(evidence) == f"{CELL}: {said}"
