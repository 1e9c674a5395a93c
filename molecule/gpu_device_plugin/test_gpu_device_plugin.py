"""What the role has made, seen from the server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from testinfra.host import Host

NAMESPACE = "heteroserve-devices"


@pytest.fixture
def cluster(host: Host) -> Any:
    """Reads objects of the cluster, on its server."""
    if host.backend.get_hostname() != "server-1":
        pytest.skip("the API is asked on the server")

    def read(what: str) -> Any:
        return json.loads(host.check_output(f"k3s kubectl get {what} -o json"))

    return read


def test_each_plugin_runs_on_its_vendors_node_alone(cluster: Any) -> None:
    # What went before has just upgraded a plugin: its pod may still be starting.
    until = time.monotonic() + 90
    while True:
        pods = cluster(f"-n {NAMESPACE} pods")["items"]
        phases = {pod["status"]["phase"] for pod in pods}
        if phases == {"Running"} or time.monotonic() > until:
            break
        time.sleep(1)
    places = {pod["metadata"]["name"].split("-")[0]: pod["spec"]["nodeName"] for pod in pods}
    assert places == {"nvidia": "agent-1", "amd": "agent-2"}
    assert phases == {"Running"}


def test_nvidias_plugin_uses_the_runtime_class(cluster: Any) -> None:
    pods = cluster(f"-n {NAMESPACE} pods -l app.kubernetes.io/name=nvidia-device-plugin")["items"]
    assert [pod["spec"]["runtimeClassName"] for pod in pods] == ["nvidia"]


def test_the_namespace_alone_may_mount_folders_of_hosts(cluster: Any, host: Host) -> None:
    labels = cluster(f"namespace {NAMESPACE}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {
            "containers": [{"name": "one", "image": "none"}],
            "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        },
    }
    refused = host.run(f"echo '{json.dumps(pod)}' | k3s kubectl create --dry-run=server -f -")
    assert "violates PodSecurity" in refused.stderr
    pod["metadata"]["namespace"] = NAMESPACE  # type: ignore[index]
    assert host.run(f"echo '{json.dumps(pod)}' | k3s kubectl create --dry-run=server -f -").rc == 0


def test_nothing_of_an_earlier_setting_is_left(cluster: Any) -> None:
    names = {item["metadata"]["name"] for item in cluster(f"-n {NAMESPACE} configmaps")["items"]}
    assert names == {"kube-root-ca.crt"}
