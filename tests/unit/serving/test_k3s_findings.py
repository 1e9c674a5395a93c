"""What the archive for somebody who helps is told of a cluster, and of one whose API does not answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from heteroserve.cluster.evidence import Evidence

from python_plugins.modules.serving import k3s_findings
from tests.helpers.module_runs import run_module


def kubeconfig(path: Path, server: str) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_an_api_that_does_not_answer_is_the_only_finding(tmp_path: Path) -> None:
    for path in (tmp_path / "none", kubeconfig(tmp_path / "config", "https://127.0.0.1:9")):
        found = run_module(k3s_findings.main, {"kubeconfig": str(path), "cells": []})
        (said,) = found["findings"]
        assert said.startswith(f"the cluster's API cannot be asked with {path}: ")
        assert found["files"] == {}


class Cluster:
    """One cell whose host is lost, and one that waits for its pods; no pod lets its logs be read."""

    def listed(self, kind: str, *_: str) -> list[dict[str, Any]]:
        return [{"kind": kind, "metadata": {"name": "one"}}]

    def clusters(self) -> list[dict[str, Any]]:
        return []

    def pods(self, _: str) -> list[dict[str, Any]]:
        return []

    def ray_logs(self, pods: tuple[Any, ...]) -> dict[str, str]:
        return {}

    def evidence(self, cell: str, hosts: tuple[str, ...], since: float, memory: int) -> Evidence:
        known = [{"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]
        said = ("Insufficient permission",) if cell == "c1" else ()
        service = {"metadata": {"name": cell}}
        return Evidence(cell, hosts, nodes=tuple(known), service=service, operator_said=said)


def test_cells_are_judged_as_while_they_are_waited_for() -> None:
    limits = SimpleNamespace(host_memory_bytes=1)
    cells = [
        SimpleNamespace(name=name, hosts=(host,), limits=limits, replicas=(1,))
        for name, host in (("c1", "lost"), ("c2", "a"))
    ]
    findings, files = k3s_findings.collected(Cluster(), cells, 0)
    assert findings == [
        "c1: the host lost is not a node of the cluster: run playbooks/cluster.yml",
        "c2: waiting for its pods",
    ]
    assert set(files) == {
        "nodes.json",
        "rayservices.json",
        "rayclusters.json",
        "pods.json",
        "events.json",
        "operator-about-c1.log",
    }
