"""The cluster's API as the modules of the cells need it: all of their reading and writing, and no decision.

Needs the package kubernetes, so it runs on the controller. Objects are dictionaries as the API writes them.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from ..cluster.api import connect, dynamic, kubernetes, pod_log
from ..cluster.evidence import CRDS, Evidence, Object, ended, event_time, is_ready, pod_name, statuses, unix_time
from ..cluster.operator_log import OperatorLog
from .names import CELL

FIELD_MANAGER = "heteroserve"
LOG_LINES = 200
PHASE_S = 15  # Kubernetes retries an unbound claim after this time
CLOCKS_S = 60  # by which a host's clock may differ
# Kind -> API version, of what cells are made of, in the order in which it is removed.
KINDS = {
    "RayService": "ray.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PersistentVolumeClaim": "v1",
    "PersistentVolume": "v1",
}
# Ray writes what its processes say to files, not to the container's own output.
RAY_LOGS = (
    "cd /tmp/ray/session_latest/logs 2>/dev/null &&"
    " ls -tr serve/replica_*.log worker-*.err worker-*.out 2>/dev/null | tail -n 12 | xargs -r tail -q -c 20000"
)


class Cluster:
    """One namespace of cells. Methods raise the client's ``ApiException``, which says what the API refused."""

    def __init__(self, kubeconfig: str, namespace: str, operator_namespace: str) -> None:
        self.namespace = namespace
        self.operator_namespace = operator_namespace
        connection = connect(kubeconfig)
        self._core = kubernetes().CoreV1Api(connection)
        self._extensions = kubernetes().ApiextensionsV1Api(connection)
        self.refused = kubernetes().ApiException
        self._dynamic = dynamic(connection)
        self._stream = import_module("kubernetes.stream").stream
        self._operator_log = OperatorLog(namespace)
        self._log_read = 0.0  # when the operator's log was last read (Unix time)

    def crds(self) -> tuple[str, ...]:
        """Those of KubeRay's that the API has."""
        known = {item.metadata.name for item in self._extensions.list_custom_resource_definition().items}
        return tuple(name for name in CRDS if name in known)

    def listed(self, kind: str, version: str, selector: str = CELL, namespace: str | None = None) -> list[Object]:
        """Objects of a kind, in the cells' namespace or another; none where there is no such kind."""
        try:
            resource = self._dynamic.resources.get(api_version=version, kind=kind)
        except import_module("kubernetes.dynamic.exceptions").ResourceNotFoundError:
            return []
        where = {"namespace": namespace or self.namespace} if resource.namespaced else {}
        found = self._dynamic.get(resource, label_selector=selector, **where).to_dict()["items"]
        return [{"apiVersion": version, "kind": kind, **item} for item in found]

    def put(self, wanted: Object) -> None:
        """Make an object what it should be as a whole: what it had beyond that is gone, but for what the API keeps."""
        resource = self._dynamic.resources.get(api_version=wanted["apiVersion"], kind=wanted["kind"])
        metadata = wanted["metadata"]
        where = {"namespace": metadata["namespace"]} if resource.namespaced else {}
        try:
            found = self._dynamic.get(resource, name=metadata["name"], **where).to_dict()
        except self.refused as refusal:
            if refusal.status != 404:
                raise
            self._dynamic.create(resource, body=wanted, field_manager=FIELD_MANAGER, **where)
            if wanted["kind"] == "PersistentVolume":
                self._wait_for_phase(resource, metadata["name"])
            return
        if wanted["kind"].startswith("PersistentVolume"):
            return  # another folder or host has another name, and nothing else of it may change
        kept = {key: found["metadata"][key] for key in ("resourceVersion", "finalizers") if found["metadata"].get(key)}
        body = {**wanted, "metadata": {**metadata, **kept}}
        self._dynamic.replace(resource, body=body, field_manager=FIELD_MANAGER, **where)

    def _wait_for_phase(self, resource: Any, volume: str) -> None:
        """Wait until Kubernetes has processed a new volume, so that its claim is bound at once.

        If the claim is processed first, it stays unbound until the next resync, 15 s later (syncUnboundClaim in
        pkg/controller/volume/persistentvolume/pv_controller.go).
        """
        until = time.monotonic() + PHASE_S
        while time.monotonic() < until:
            phase = self._dynamic.get(resource, name=volume).to_dict().get("status", {}).get("phase")
            if phase not in (None, "Pending"):
                return
            time.sleep(0.1)

    def remove(self, gone: Object, grace_s: int | None = None) -> None:
        """Have an object deleted; it may take a while to go, a pod as long as ``grace_s`` or else as it says itself."""
        resource = self._dynamic.resources.get(api_version=gone["apiVersion"], kind=gone["kind"])
        where = {"namespace": self.namespace} if resource.namespaced else {}
        try:
            self._dynamic.delete(resource, name=gone["metadata"]["name"], grace_period_seconds=grace_s, **where)
        except self.refused as refusal:
            if refusal.status != 404:
                raise

    def of_cell(self, name: str) -> list[Object]:
        """All that a cell consists of, in the order of removing."""
        return [
            item for kind, version in KINDS.items() for item in self.listed(kind, version, selector=f"{CELL}={name}")
        ]

    def clusters(self, selector: str = CELL) -> list[Object]:
        """RayClusters, the oldest first."""
        found = self.listed("RayCluster", "ray.io/v1", selector)
        return sorted(found, key=lambda one: str(one["metadata"].get("creationTimestamp", "")))

    def pods(self, selector: str, namespace: str | None = None) -> list[Object]:
        """Pods that a label picks."""
        return self.listed("Pod", "v1", selector, namespace)

    def evidence(self, cell: str, hosts: tuple[str, ...], since: float, memory_needed: int = 0) -> Evidence:
        """What is to be seen of a cell now; events and logs since ``since`` (Unix time)."""
        crds = self.crds()
        own = f"{CELL}={cell}"
        services = self.listed("RayService", "ray.io/v1", own)
        clusters = [one for one in self.clusters(own) if not one["metadata"].get("deletionTimestamp")]
        pods = self.pods(own)
        operator = self.pods("app.kubernetes.io/name=kuberay-operator", self.operator_namespace)
        slow = [pod for pod in pods if not is_ready(pod)]
        now = datetime.now(UTC).timestamp()
        return Evidence(
            cell=cell,
            hosts=hosts,
            namespace=self.namespace,
            crds=crds,
            service=services[0] if services else None,
            cluster=clusters[-1] if clusters else None,
            pods=tuple(pods),
            events=tuple(self._events({one["metadata"]["uid"] for one in (*services, *clusters, *pods)}, since)),
            nodes=tuple(self.listed("Node", "v1", "")),
            others=tuple(self._on(hosts)) if slow else (),
            logs={pod_name(pod): self._log(pod) for pod in slow},
            operator=tuple(operator),
            operator_namespace=self.operator_namespace,
            operator_said=self._operator_said(operator, {cell, *map(pod_name, clusters)}, since),
            waited_s=now - since,
            memory_needed=memory_needed,
        )

    def ray_logs(self, pods: tuple[Object, ...]) -> dict[str, str]:
        """What Ray's processes in running pods wrote; nothing of a pod that does not let itself be asked."""
        found = {}
        for pod in pods:
            name = pod_name(pod)
            try:
                found[name] = self._stream(
                    self._core.connect_get_namespaced_pod_exec,
                    name,
                    self.namespace,
                    container=pod["spec"]["containers"][0]["name"],
                    command=["/bin/bash", "-c", RAY_LOGS],
                    stdout=True,
                    stderr=False,
                    stdin=False,
                    tty=False,
                    _request_timeout=30,
                )
            except self.refused:
                found[name] = ""
        return found

    def _events(self, uids: set[str], since: float) -> list[Object]:
        """Events of objects, seen since then. Not by name: an object's successor may have it too."""
        # Events have whole seconds.
        return [
            event
            for event in self.listed("Event", "v1", "")
            if event["involvedObject"].get("uid") in uids and event_time(event) >= int(since)
        ]

    def _on(self, hosts: tuple[str, ...]) -> list[Object]:
        found = []
        resource = self._dynamic.resources.get(api_version="v1", kind="Pod")
        for host in hosts:
            found += self._dynamic.get(resource, field_selector=f"spec.nodeName={host}").to_dict()["items"]
        return found

    def _log(self, pod: Object) -> str:
        """The last lines of the container that died if one did, or else of the one that runs."""
        for previous in (True, False):
            try:
                container = pod["spec"]["containers"][0]["name"]
                where = (pod_name(pod), pod["metadata"]["namespace"])
                return pod_log(self._core, *where, container=container, tail_lines=LOG_LINES, previous=previous)
            except self.refused:
                continue  # it has not died, or has not started
        return ""

    def _operator_said(self, operator: list[Object], names: set[str], since: float) -> tuple[str, ...]:
        """What the operator's log has against some objects: what came since it was last read, of each of its pods.

        A second more, for the API counts in whole seconds. A container that was restarted has an earlier log too.
        """
        now = datetime.now(UTC).timestamp()
        began = self._log_read or since
        self._log_read = now
        for pod in operator:
            ends = [str(ended(one).get("finishedAt", "")) for one in statuses(pod)]
            restarted = any(end and unix_time(end) >= began - CLOCKS_S for end in ends)
            for previous in (True, False) if restarted else (False,):
                self._operator_log.feed(pod_name(pod), self._said_in(pod, now - began + 1, previous))
        return self._operator_log.of(names)

    def _said_in(self, pod: Object, seconds: float, previous: bool) -> str:
        which = {"since_seconds": math.ceil(seconds), "previous": previous}
        try:
            return pod_log(self._core, pod_name(pod), self.operator_namespace, **which)
        except self.refused:
            return ""  # it has not started, or has ended and gone
