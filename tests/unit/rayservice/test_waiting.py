"""When a cell counts as running, and when waiting is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heteroserve.rayservice.evidence import Evidence
from heteroserve.rayservice.names import SPEC
from heteroserve.rayservice.waiting import Patience, is_running

from tests.unit.rayservice.test_diagnosis import CELL, container, pod

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


def test_the_time_of_a_fault_begins_anew_when_it_was_gone() -> None:
    patience = Patience(900)
    pulling = seen(pods=(pod(container(waiting={"reason": "ErrImagePull", "message": "desc = not found"})),))
    patience.judge(replace(pulling, waited_s=10), NEW)
    patience.judge(replace(seen(status="DEPLOYING"), waited_s=40), NEW)
    assert patience.judge(replace(pulling, waited_s=60), NEW).fault == ""
