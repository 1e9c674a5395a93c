"""When a cell counts as running, and when waiting is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heteroserve.cluster.evidence import Evidence
from heteroserve.common.names import SPEC
from heteroserve.serving.waiting import Patience, is_given_up, is_running

from tests.unit.serving.test_diagnosis import CELL, container, pod

OLD, NEW = "0" * 16, "1" * 16


def seen(spec: str = NEW, active: str = "one-b", status: str = "RUNNING", **more: Any) -> Evidence:
    """A cell of one host whose newest RayCluster is one-b, made of ``spec``."""
    service = {
        "metadata": {"name": CELL, "annotations": {SPEC: NEW}},
        "status": {
            "activeServiceStatus": {"rayClusterName": active, "applicationStatuses": {CELL: {"status": status}}}
        },
    }
    cluster = {"metadata": {"name": "one-b", "annotations": {SPEC: spec}}}
    return Evidence(CELL, ("host-a",), service=service, cluster=cluster, **{"pods": (pod(),), **more})


def test_a_cell_runs_when_its_cluster_pods_and_application_are_what_they_should_be() -> None:
    assert is_running(seen(), NEW)


def test_what_ran_before_does_not_count() -> None:
    """A stopped pod answers on, and the old cluster's status stays RUNNING: each of these would pass for the new."""
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
    assert not is_running(seen(spec=OLD), NEW)
    assert not is_running(seen(active="one-a"), NEW)
    assert not is_running(seen(pods=(ending,)), NEW)
    assert not is_running(seen(pods=(ending, pod())), NEW)
    assert not is_running(seen(pods=()), NEW)
    assert not is_running(seen(status="DEPLOYING"), NEW)


def test_serve_does_not_try_again_what_it_failed_to_deploy() -> None:
    assert is_given_up(seen(status="DEPLOY_FAILED"))
    assert not any(is_given_up(seen(status=status)) for status in ("RUNNING", "DEPLOYING", "UNHEALTHY", ""))


def status(evidence: Evidence) -> dict[str, Any]:
    """The RayService's."""
    assert evidence.service is not None
    found: dict[str, Any] = evidence.service["status"]
    return found


def test_what_the_ray_cluster_claims_does_not_count() -> None:
    """Another version of the operator rewrites it and leaves the pods."""
    marked, older = pod(), pod()
    marked["metadata"]["annotations"], older["metadata"]["annotations"] = {SPEC: NEW}, {SPEC: OLD}
    assert is_running(seen(pods=(marked,)), NEW)
    assert not is_running(seen(pods=(older,)), NEW)
    # Nor is it in order so: the next pod would be another one.
    assert not is_running(seen(pods=(older,)), OLD)
    assert is_running(seen(spec=OLD, pods=(older,)), OLD)


def after_a_replace() -> Evidence:
    """As KubeRay 1.7.0 leaves the status once the RayCluster was deleted, until the next one is ready.

    The old cluster took the new serveConfigV2 before it died; the dead name stays; the generation is 3 after a first
    run (the operator adds its finalizer), so 4 after a change.
    """
    evidence = seen(active="one-a")
    assert evidence.service is not None
    evidence.service["metadata"]["generation"] = 4
    evidence.service["status"] = {
        "observedGeneration": 4,
        "serviceStatus": "Running",
        "numServeEndpoints": 0,
        "activeServiceStatus": {
            "rayClusterName": "one-a",
            "rayClusterStatus": {"desiredCPU": "0", "desiredGPU": "0", "desiredMemory": "0", "head": {}},
        },
        "pendingServiceStatus": {"rayClusterName": "one-b", "applicationStatuses": {CELL: {"status": "DEPLOYING"}}},
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "ZeroServeEndpoints", "message": "dropped to 0"},
            {"type": "UpgradeInProgress", "status": "True", "reason": "BothActivePendingClustersExist", "message": ""},
        ],
    }
    return evidence


def test_a_replace_is_waited_for_without_a_fault() -> None:
    evidence = after_a_replace()
    outlook = Patience(900).judge(replace(evidence, waited_s=40), NEW)
    assert (outlook.running, outlook.fault) == (False, "")
    assert outlook.line == f"{CELL}: deploying"
    # The application of the dead cluster runs with the new configuration; it is not the new pod that answers.
    status(evidence)["pendingServiceStatus"]["applicationStatuses"][CELL]["status"] = "RUNNING"
    assert not is_running(evidence, NEW)


def test_ready_is_not_running() -> None:
    """Ready and the pod's label ray.io/serve come some 4 s before the application runs."""
    evidence = seen(status="DEPLOYING")
    evidence.pods[0]["metadata"]["labels"] = {"ray.io/serve": "true"}
    status(evidence).update(
        {
            "numServeEndpoints": 1,
            "conditions": [{"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""}],
        }
    )
    assert not is_running(evidence, NEW)


def test_a_refused_cell_gets_some_seconds_and_no_more() -> None:
    refused = seen(status="")
    assert refused.service is not None
    refused.service["metadata"]["generation"] = 3
    refused.service["status"] = {
        "conditions": [{"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "is invalid"}]
    }
    patience = Patience(900)
    assert patience.judge(replace(refused, waited_s=2), NEW).fault == ""
    assert "KubeRay refuses the cell" in patience.judge(replace(refused, waited_s=20), NEW).fault
    refused.service["status"]["observedGeneration"] = 3
    assert Patience(900).judge(replace(refused, waited_s=20), NEW).fault == ""


def test_a_cell_does_not_go_without_an_operator() -> None:
    patience = Patience(900)
    gone = seen(operator=())
    assert patience.judge_end(replace(gone, waited_s=1)) == ""
    assert "the KubeRay operator is not there" in patience.judge_end(replace(gone, waited_s=70))
    assert Patience(900).judge_end(replace(seen(), waited_s=70)) == ""


def test_a_cell_that_is_only_starting_has_all_of_its_time() -> None:
    patience = Patience(900)
    waiting = seen(status="DEPLOYING")
    assert patience.judge(replace(waiting, waited_s=899), NEW).fault == ""
    late = patience.judge(replace(waiting, waited_s=900), NEW)
    assert "not ready after 900 s" in late.fault
    assert "ray_service_timeout" in late.fault


def test_a_fault_that_may_pass_gets_its_time_and_one_that_cannot_gets_none() -> None:
    patience = Patience(900)
    pulling = replace(
        seen(pods=(pod(container(waiting={"reason": "ErrImagePull", "message": "desc = not found"})),)), waited_s=10
    )
    assert patience.judge(pulling, NEW).fault == ""
    assert "cannot get the image" in patience.judge(replace(pulling, waited_s=60), NEW).fault
    assert "CRDs are missing" in Patience(900).judge(seen(crds=()), OLD).fault


def test_the_time_of_a_fault_begins_again_when_it_was_gone() -> None:
    patience = Patience(900)
    pulling = seen(pods=(pod(container(waiting={"reason": "ErrImagePull", "message": "desc = not found"})),))
    patience.judge(replace(pulling, waited_s=10), NEW)
    patience.judge(replace(seen(status="DEPLOYING"), waited_s=40), NEW)
    assert patience.judge(replace(pulling, waited_s=60), NEW).fault == ""
