"""Why a pod does not run, of cells and of the KubeRay operator alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..common.advice import NOT_BUILT, UNREACHED, advice
from .evidence import (
    Evidence,
    Object,
    condition,
    ended,
    events_of,
    is_ready,
    is_running,
    last_line,
    one_line,
    pod_name,
    state,
    statuses,
)


@dataclass(frozen=True)
class Finding:
    """What is the matter."""

    kind: str  # name of the predicate, for telling whether it is still the same
    text: str
    # Seconds for which it may go on before waiting is given up: 0 where nothing but a person changes it, and as long as
    # Kubernetes or the engine may need to recover by themselves otherwise.
    patience_s: int


PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
LAY_IT_OUT = "put its archive into the folder images of airgap_dir, or correct its name"


def operator_down(evidence: Evidence) -> tuple[str, int] | None:
    """Nobody turns a RayService into pods."""
    if evidence.operator is None or any(is_ready(pod) for pod in evidence.operator):
        return None
    where = f"the namespace {evidence.operator_namespace}"
    if not evidence.operator:
        return f"the KubeRay operator is not there: no pod of it in {where}; run playbooks/cluster.yml", 60
    pod = evidence.operator[-1]
    # Its image is not ours to build. K3s asks the site's registry first, and the image's own last.
    own = {NOT_BUILT: f"the registry has no such image: {LAY_IT_OUT}", UNREACHED: f"{UNREACHED}: {LAY_IT_OUT}"}
    why = pull_fault(pod, evidence, own) or how_it_ended(pod, evidence) or _pending(pod)
    said = why or f"it is {pod['status']['phase']} and not ready"
    return f"the KubeRay operator does not run: its pod {pod_name(pod)} in {where}: {said}", 60 if why else 180


def why_unscheduled(pod: Object) -> str:
    """What the scheduler says against a pod; "" if it placed it, or has not looked yet."""
    found = condition(pod, "PodScheduled")
    return str(found.get("message", "")) if found.get("status") == "False" else ""


def _pending(pod: Object) -> str:
    said = why_unscheduled(pod)
    return f"it cannot be placed: {one_line(said)}" if said else ""


def pull_fault(pod: Object, evidence: Evidence, own: Mapping[str, str] | None = None) -> str:
    """Why a pod's host cannot get an image, with advice, for which ``own`` has other words; "" if it can."""
    for container in statuses(pod):
        waiting = state(container, "waiting")
        reason = waiting.get("reason", "")
        if reason not in PULL_REASONS:
            continue
        image = container.get("image") or next(
            (one["image"] for one in pod["spec"]["containers"] if one["name"] == container["name"]), "?"
        )
        said = waiting.get("message", "")
        if "desc = " not in said:  # a back-off of older kubelets does not repeat why
            failed = [event["message"] for event in events_of(evidence, "Failed", name=pod_name(pod))]
            said = next((text for text in reversed(failed) if "desc = " in text), said)
        # The name of the image is repeated by everyone who hands the error on, and its digest may hold any number.
        last = one_line(said.rpartition("desc = ")[2].rpartition(image)[2].strip(' ":')) or reason
        todo = advice("pull", f"{reason} {last}")
        todo = (own or {}).get(todo, todo)
        return f"cannot get the image {image} ({last}){f': {todo}' if todo else ''}"
    return ""


def how_it_ended(pod: Object, evidence: Evidence) -> str:
    """Status and last line of a container that failed; "" if none did."""
    for container in statuses(pod):
        how = ended(container)
        if not how or how.get("exitCode") == 0:
            continue
        if is_running(container) and container.get("ready"):
            continue  # an old story
        log = last_line(evidence.logs.get(pod_name(pod), "")) or one_line(how.get("message", ""))
        times = container.get("restartCount", 0)
        said = f"its last line: {log}" if log else "it left no line"
        return f"ended with status {how.get('exitCode')}, restarted {times}x; {said}"
    return ""
