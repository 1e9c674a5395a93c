"""What is waited for before a cell counts as made anew. The cluster is a stand-in that keeps a few objects."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.heteroserve.progress import Progress
from heteroserve.rayservice.names import CELL, SPEC

from python_plugins.modules import ray_cell

OLD, NEW = "0" * 16, "1" * 16


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
    asked = {"cell": "m-0", "anew": False, "spec": NEW, "objects": [], "timeout": 0.2}
    ray_cell.Cell(operator, asked, Progress(None)).apply()


def test_the_next_ray_cluster_may_have_the_name_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(Operator(ends=True), monkeypatch)


def test_pods_of_the_last_one_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="head-first of what ran before does not end"):
        apply(Operator(ends=False), monkeypatch)
