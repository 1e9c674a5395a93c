"""What the API, the pods' logs and the operator's log show of one cell, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from ..common.logs import last_error
from ..common.names import SPEC
from . import quantities
from .operator_log import last_word

Object = dict[str, Any]
CRDS = ("rayclusters.ray.io", "rayservices.ray.io")


@dataclass(frozen=True)
class Evidence:
    """All of it as the API gives it (camelCase, what is absent left out), events and logs since the cell was applied.

    What was not looked at is at its default, which nothing is concluded from.
    """

    cell: str
    hosts: tuple[str, ...]
    namespace: str = "heteroserve"
    crds: tuple[str, ...] = CRDS  # those that the API has
    service: Object | None = None  # RayService
    cluster: Object | None = None  # its newest RayCluster
    pods: tuple[Object, ...] = ()  # of the cell
    events: tuple[Object, ...] = ()  # of RayService, RayClusters and pods (core/v1)
    nodes: tuple[Object, ...] | None = None  # of the cluster
    others: tuple[Object, ...] = ()  # pods of anyone on the cell's hosts
    logs: dict[str, str] = field(default_factory=dict)  # pod -> its last lines, of the container that died if one did
    operator: tuple[Object, ...] | None = None  # pods of the KubeRay operator
    operator_namespace: str = "kuberay-operator"
    operator_said: tuple[str, ...] = ()  # reasons from its log that are still in the cell's way, the newest last
    waited_s: float = 0.0  # since the cell was applied
    memory_available: int | None = None  # of the host, bytes
    memory_needed: int = 0  # as planned


def condition(thing: Object | None, kind: str) -> Object:
    """A condition of an object; empty if it has none of that type."""
    found = ((thing or {}).get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


def statuses(pod: Object) -> list[Object]:
    """Statuses of a pod's containers, those of init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def state(container: Object, kind: str) -> Object:
    """Details of a container's state, "waiting" or "terminated"; empty if it is in another."""
    return (container.get("state") or {}).get(kind) or {}


def is_running(container: Object) -> bool:
    """Whether a container runs now."""
    return (container.get("state") or {}).get("running") is not None


def ended(container: Object) -> Object:
    """How a container ended: now, or the last time."""
    return state(container, "terminated") or (container.get("lastState") or {}).get("terminated") or {}


def pod_host(pod: Object, evidence: Evidence) -> str:
    """The host of a pod, or where it would have to be."""
    return pod.get("spec", {}).get("nodeName") or ", ".join(evidence.hosts)


def pod_name(thing: Object) -> str:
    """An object's name."""
    return str(thing["metadata"]["name"])


def is_ready(pod: Object) -> bool:
    """Whether all containers of a pod are."""
    return condition(pod, "Ready").get("status") == "True"


def requests(pod: Object) -> dict[str, Fraction]:
    """What a pod's containers ask for, all together."""
    total: dict[str, Fraction] = {}
    for container in pod.get("spec", {}).get("containers", ()):
        given = container.get("resources") or {}
        for name, text in {**(given.get("limits") or {}), **(given.get("requests") or {})}.items():
            total[name] = total.get(name, Fraction(0)) + quantities.value(str(text))
    return total


def events_of(evidence: Evidence, *reasons: str, name: str = "") -> list[Object]:
    """Events with one of these reasons, the newest last; ``name`` picks those of one object."""
    found = [
        event
        for event in evidence.events
        if event.get("reason") in reasons and name in ("", (event.get("involvedObject") or {}).get("name"))
    ]
    return sorted(found, key=event_time)


def event_time(event: Object) -> float:
    """When an event was last seen (Unix time): one that is repeated says so in its series, and nowhere else."""
    given = (
        (event.get("series") or {}).get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return max((unix_time(text) for text in given if text), default=0.0)


def event_count(event: Object) -> int:
    """How often an event was seen."""
    return max(event.get("count") or 1, (event.get("series") or {}).get("count") or 1)


def unix_time(text: str) -> float:
    """A time as the API writes it, in seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def changed_at(thing: Object) -> float:
    """When an object was last written (Unix time, whole seconds), its status aside; 0 if it does not say."""
    metadata = thing["metadata"]
    given = [one.get("time") for one in metadata.get("managedFields") or () if not one.get("subresource")]
    return max((unix_time(text) for text in (*given, metadata.get("creationTimestamp")) if text), default=0.0)


def owner_of(pod: Object) -> str:
    """UID of what controls a pod, which for a cell's is its RayCluster; "" if nothing does."""
    owners = pod["metadata"].get("ownerReferences") or []
    return next((str(one["uid"]) for one in owners if one.get("controller")), "")


def made_of(cluster: Object, pods: Iterable[Object]) -> dict[str, str]:
    """Annotations that say what runs of a RayCluster: those of its pods. The digest is "" where they are not of one.

    The RayCluster's own are not enough: a new version of the operator rewrites its spec and annotations, from the
    RayService, and leaves the pods as they are. They have to agree all the same, or the next pod would be another one.
    Pods of earlier versions carry no digest; they are what their RayCluster says as long as its template carries none.
    """
    says = annotations_of(cluster)
    uid = cluster["metadata"].get("uid", "")
    staying = [pod for pod in pods if owner_of(pod) == uid and not pod["metadata"].get("deletionTimestamp")]
    head = ((cluster.get("spec") or {}).get("headGroupSpec") or {}).get("template") or {"metadata": {}}
    unmarked = "" if SPEC in annotations_of(head) else says.get(SPEC, "")
    specs = {says.get(SPEC, ""), *(annotations_of(pod).get(SPEC, unmarked) for pod in staying)}
    marks = next((annotations_of(pod) for pod in staying if SPEC in annotations_of(pod)), says)
    return {**says, **marks, SPEC: specs.pop() if len(specs) == 1 else ""}


def annotations_of(thing: Object) -> dict[str, str]:
    """Annotations of an object or a template."""
    found: dict[str, str] = (thing.get("metadata") or {}).get("annotations") or {}
    return found


def last_line(log: str) -> str:
    """The last line that names an error, or else the last one that says anything."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", log).splitlines() if line.strip()]
    return last_word(log)[:400] or last_error(log) or (lines[-1][:400] if lines else "")


def one_line(text: str, most: int = 300) -> str:
    """Text without line breaks, cut where it is very long."""
    short = " ".join(text.split())
    return (short if len(short) <= most else f"{short[: most - 3]}...").rstrip(".")
