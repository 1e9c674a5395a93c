"""Each way in which a cell does not start gives one sentence with its evidence; a normal start gives none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from heteroserve.rayservice.diagnosis import CHECKS, diagnose, progress
from heteroserve.rayservice.evidence import Evidence

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
        replace(
            START,
            operator_log=json.dumps(
                {
                    "level": "error",
                    "logger": "controllers.RayService",
                    "msg": "Reconciler error",
                    "RayService": {"name": CELL, "namespace": "heteroserve"},
                    "error": "failed to get Serve application statuses from the dashboard: GetServeDetails fail: 403"
                    " Forbidden Forbidden: Invalid authentication token",
                }
            ),
        ),
        "token_refused",
        "Ray does not take the operator's token (failed to get Serve application statuses from the dashboard:"
        " GetServeDetails fail: 403 Forbidden Forbidden: Invalid authentication token)",
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
                event(
                    "FailedToUpdateServeApplications",
                    f"Failed to update serve applications to the RayCluster heteroserve/{CELL}-x7k2p: fail to create /"
                    ' update Serve applications. err: UpdateDeployments fail: Put "http://x:8265/": context deadline'
                    " exceeded",
                    CELL,
                    count=6,
                ),
            ),
            operator_log=f'{{"RayService":"{CELL}","error":"dial tcp 10.42.1.9:8265: i/o timeout"}}',
        ),
        "not_handed_over",
        "the operator could not hand the application to Ray (tried 6x):",
    ),
    "Serve refuses the application": (
        replace(
            START,
            events=(
                event(
                    "FailedToUpdateServeApplications",
                    "Failed to update serve applications: UpdateDeployments fail: 400 Bad Request"
                    " pydantic.ValidationError: extra fields not permitted",
                    CELL,
                ),
            ),
        ),
        "not_handed_over",
        "400 Bad Request pydantic.ValidationError: extra fields not permitted",
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
        replace(START, operator_log='{"RayService":{"name":"other"},"error":"403 Forbidden"}'),
    ],
)
def test_a_normal_start_is_no_fault(evidence: Evidence) -> None:
    assert diagnose(evidence) is None


def test_a_token_that_the_operator_cannot_read_is_named() -> None:
    said = f'{{"RayService":"{CELL}","error":"failed to get auth secret heteroserve/ray-token: not found"}}'
    found = diagnose(replace(START, operator_log=said))
    assert found is not None
    assert "failed to get auth secret heteroserve/ray-token" in found.text


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

    assert patience("the CRDs are missing") == patience("the operator refuses the name") == 0
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
        (replace(START, pods=(pod(container(waiting={"reason": "ContainerCreating"})),)), f"{POD} ContainerCreating"),
        (replace(START, pods=(pod(container("Running", running={})),)), f"{POD} starts"),
        (START, "Serve does not know the application yet"),
        (replace(START, service=service({CELL: {"status": "RUNNING"}})), "running"),
    ],
)
def test_waiting_says_for_what(evidence: Evidence, said: str) -> None:
    assert progress(evidence) == f"{CELL}: {said}"
