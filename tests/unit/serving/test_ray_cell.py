"""What is waited for before a cell counts as recreated. The cluster is a stand-in that keeps a few objects."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.heteroserve.common.progress import Progress
from heteroserve.cluster.evidence import Evidence
from heteroserve.common.names import SPEC
from heteroserve.serving.names import CELL

from python_plugins.modules.serving import ray_cell

OLD, NEW = "0" * 16, "1" * 16


NO_OPERATOR = Evidence("m-0", (), operator=())


def cluster_of(uid: str, spec: str) -> dict[str, Any]:
    return {"kind": "RayCluster", "metadata": {"name": "m-0-abcde", "uid": uid, "annotations": {SPEC: spec}}}


def pod_of(uid: str) -> dict[str, Any]:
    owner = {"controller": True, "kind": "RayCluster", "name": "m-0-abcde", "uid": uid}
    labels = {CELL: "m-0", "ray.io/cluster": "m-0-abcde"}
    return {"kind": "Pod", "metadata": {"name": f"head-{uid}", "labels": labels, "ownerReferences": [owner]}}


class Operator:
    """A cluster whose operator makes the next RayCluster under the name of the one that never was ready.

    KubeRay keeps that name in the RayService's pendingServiceStatus.
    """

    def __init__(self, ends: bool) -> None:
        self.made, self.running = [cluster_of("first", OLD)], [pod_of("first")]
        self.ends = ends

    def clusters(self, selector: str) -> list[dict[str, Any]]:
        return list(self.made)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        return list(self.running)

    def of_cell(self, cell: str) -> list[dict[str, Any]]:
        return []

    def put(self, wanted: dict[str, Any]) -> None: ...

    def remove(self, item: dict[str, Any], grace_s: int | None = None) -> None:
        if item["kind"] == "RayCluster":
            self.made = [cluster_of("second", NEW)]
            self.running = ([] if self.ends else self.running) + [pod_of("second")]


def apply(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cell, "POLL_S", 0.01)
    asked = {"cell": "m-0", "recreate": False, "spec": NEW, "objects": [], "timeout": 0.2}
    ray_cell.Cell(operator, asked, Progress(None)).apply()


def test_the_next_ray_cluster_may_have_the_name_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(Operator(ends=True), monkeypatch)


def test_pods_of_the_last_one_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="head-first of what ran before does not end"):
        apply(Operator(ends=False), monkeypatch)


def test_pods_of_another_spec_end_whatever_their_ray_cluster_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run died before it deleted the RayCluster, and another version of the operator rewrote that."""
    operator = Operator(ends=True)
    operator.made[0]["metadata"]["annotations"] = {SPEC: NEW}
    operator.running[0]["metadata"]["annotations"] = {SPEC: OLD}
    apply(operator, monkeypatch)
    assert [one["metadata"]["uid"] for one in operator.made] == ["second"]


class Dead(Operator):
    """A cluster whose operator is gone, so that nobody takes the RayService's finalizer off."""

    def of_cell(self, cell: str) -> list[dict[str, Any]]:
        return [{"kind": "RayService", "metadata": {"name": cell, "deletionTimestamp": "2026-11-24T00:00:00Z"}}]

    def evidence(self, cell: str, hosts: tuple[str, ...], since: float, memory: int) -> Evidence:
        return replace(NO_OPERATOR, waited_s=time.time() - since)


def test_a_cell_that_does_not_go_says_that_the_operator_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cell, "POLL_S", 0.01)
    monkeypatch.setattr(ray_cell.Patience, "_is_out", lambda self, found, now: True)
    asked = {"cell": "m-0", "hosts": [], "memory": 0, "timeout": 900}
    with pytest.raises(
        TimeoutError, match=r"RayService m-0.*not gone .* the KubeRay operator is not there: no pod of it"
    ):
        ray_cell.Cell(Dead(ends=True), asked, Progress(None)).remove()
