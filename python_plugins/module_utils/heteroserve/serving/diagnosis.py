"""Why a cell does not answer: one sentence with its evidence and what to do.

A table of predicates over ``Evidence``, the first that finds something speaks. Causes stand before their effects: where
the host is cordoned, that the pod is pending and that Serve knows no application are no news.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from ..cluster import quantities
from ..cluster.evidence import (
    CRDS,
    Evidence,
    Object,
    changed_at,
    condition,
    ended,
    event_count,
    event_time,
    events_of,
    is_ready,
    is_running,
    last_line,
    one_line,
    pod_host,
    pod_name,
    requests,
    state,
    statuses,
    unix_time,
)
from ..cluster.operator_log import reason
from ..cluster.pods import Finding, how_it_ended, operator_down, pull_fault, why_unscheduled
from .ray_serve import applications, explain, verdict

Check = Callable[[Evidence], tuple[str, int] | None]

# What Ray says of a configuration that it does not take, and KubeRay of one that is no YAML: no retry changes it.
_NOT_TAKEN = re.compile(r"\b4\d\d [A-Z]|(?P<yaml>error converting YAML to JSON: |error unmarshaling JSON: )")
_START_PARAMETER = re.compile(r"[Nn]o such option|Invalid value for|unexpected extra argument|Missing option")
_TOKEN = re.compile(
    r"[^\"\n]*(401 Unauthorized|403 Forbidden|(?:Missing|Invalid) authentication token|failed to get auth secret|"
    r"auth token key[^\"\n]*not found)[^\"\n]*"
)


# Seconds that the operator gets to look at a change before what it said counts.
REFUSED_S = 10


def crds_missing(evidence: Evidence) -> tuple[str, int] | None:
    """Without its CRDs the API has never heard of a RayService."""
    missing = [name for name in CRDS if name not in evidence.crds]
    if not missing:
        return None
    return (
        f"the cluster does not know {' and '.join(missing)}: KubeRay's CRDs are missing; run playbooks/cluster.yml",
        0,
    )


def spec_refused(evidence: Evidence) -> tuple[str, int] | None:
    """The operator looked at the RayService, or its RayCluster, and will not have it.

    Only what it says of the object as it is now: after a correction KubeRay leaves the condition ValidationFailed until
    an endpoint is ready, and an event stays for an hour. ``observedGeneration`` is the last one that it took on. A cell
    that it has given up it never looks at again, whatever is changed.
    """
    service = evidence.service or {"metadata": {}}
    status = service.get("status") or {}
    ready = condition(service, "Ready")
    said = one_line(reason(ready.get("message", "")))
    if ready.get("reason") == "InitializingTimeout":
        return f"KubeRay has given up the cell for good: {said}; delete its RayService", 0
    if ready.get("reason") == "ValidationFailed":
        written = status.get("lastUpdateTime")
        looked = written is None or unix_time(written) >= changed_at(service)
        taken_on = (status.get("observedGeneration") or 0) >= service["metadata"].get("generation", 1)
        return None if taken_on or not looked else (f"KubeRay refuses the cell: {said}", REFUSED_S)
    refused = _current(evidence, "InvalidRayClusterSpec", "InvalidRayClusterMetadata")
    return (f"KubeRay refuses the cell: {_said(refused[-1])}", REFUSED_S) if refused else None


def no_serve_port(evidence: Evidence) -> tuple[str, int] | None:
    """The head lists ports and none is called `serve`.

    KubeRay says nothing of it where the service is given, and calls the cell ready: its node port leads nowhere.
    """
    spec = (evidence.service or {}).get("spec") or {}
    template = spec.get("rayClusterConfig", {}).get("headGroupSpec", {}).get("template", {})
    ports = [one.get("name", "") for head in template.get("spec", {}).get("containers", ())[:1] for one in _ports(head)]
    if not ports or any(name == "serve" or name.startswith("serve-") for name in ports):
        return None
    return (
        f"the head's container has no port named `serve` (it has {', '.join(ports)}), so the cell's node port leads"
        " nowhere: name one",
        0,
    )


def pod_refused(evidence: Evidence) -> tuple[str, int] | None:
    """Kubernetes does not let the operator make the pod."""
    refused = _current(evidence, "FailedToCreateHeadPod", "FailedToCreateWorkerPod")
    if not refused or evidence.pods:
        return None
    said = _said(refused[-1], 500)
    advice = ""
    if "violates PodSecurity" in said:
        advice = f"; the level of PodSecurity is a label of the namespace {evidence.namespace}"
    elif match := re.search(r'RuntimeClass "?([\w.-]+)"? not found', said):
        advice = f"; K3s makes {match[1]} when the vendor's container runtime is on the host: run playbooks/hosts.yml"
    return f"Kubernetes refuses the cell's pod: {said}{advice}", 30


def port_taken(evidence: Evidence) -> tuple[str, int] | None:
    """Another service has the cell's node port."""
    told = _current(evidence, "FailedToCreateService", "CreatedService")
    failed = [event for event in told if "already allocated" in event["message"]]
    if not failed or told[-1]["reason"] == "CreatedService":
        return None
    said = _said(failed[-1])
    return f"the cell's node port is another service's ({said}): remove that one, or set cell_port_base", 0


def host_missing(evidence: Evidence) -> tuple[str, int] | None:
    """The plan's host is no node, or one that is not heard of."""
    if evidence.nodes is None:
        return None
    known = {pod_name(node): node for node in evidence.nodes}
    for host in evidence.hosts:
        if host not in known:
            return f"the host {host} is not a node of the cluster: run playbooks/cluster.yml", 0
        ready = condition(known[host], "Ready")
        if ready.get("status") != "True":
            said = one_line(ready.get("message", "")) or ready.get("reason", "it never was")
            return f"the host {host} is not Ready ({said}): see `journalctl -u k3s-agent` on it", 180
    return None


def host_cordoned(evidence: Evidence) -> tuple[str, int] | None:
    """Someone has closed the host to new pods."""
    waiting = [pod for pod in evidence.pods if why_unscheduled(pod)]
    closed = [
        pod_name(node)
        for node in evidence.nodes or ()
        if pod_name(node) in evidence.hosts and node.get("spec", {}).get("unschedulable")
    ]
    if not waiting or not closed:
        return None
    hosts = ", ".join(closed)
    return (
        f"the host {hosts} is cordoned and takes no pod ({pod_name(waiting[0])} waits): `kubectl uncordon {hosts}`",
        60,
    )


def unschedulable(evidence: Evidence) -> tuple[str, int] | None:
    """The pod does not fit on its host: what it lacks, and who has it."""
    for pod in evidence.pods:
        said = why_unscheduled(pod)
        if not said:
            continue
        name = pod_name(pod)
        if "olume" in said:
            return f"the weights' volume of {name} cannot be had: {one_line(said)}", 90
        lacking = list(dict.fromkeys(re.findall(r"Insufficient ([\w./-]+\w)", said)))
        if lacking:
            return f"the pod {name} does not fit: {'; '.join(_lack(evidence, pod, one) for one in lacking)}", 120
        taint = re.search(r"untolerated taint \{([^}]*)\}", said)
        if taint:
            where = ", ".join(evidence.hosts)
            return f"the host {where} has the taint {taint[1].strip(': ')}, which {name} does not tolerate", 60
        return f"the pod {name} cannot be placed on {', '.join(evidence.hosts)}: {one_line(said)}", 120
    return None


def image_pull(evidence: Evidence) -> tuple[str, int] | None:
    """The host cannot get the image."""
    for pod in evidence.pods:
        if said := pull_fault(pod, evidence):
            return f"{pod_host(pod, evidence)} {said}", 45
    return None


def mount_failed(evidence: Evidence) -> tuple[str, int] | None:
    """A volume of the pod is not there: the weights' folder before all."""
    for pod in evidence.pods:
        if pod.get("status", {}).get("phase") != "Pending":
            continue
        failed = events_of(evidence, "FailedMount", "FailedMapVolume", name=pod_name(pod))
        if not failed:
            continue
        said = _said(failed[-1])
        host = pod_host(pod, evidence)
        if match := re.search(r"path \"?([^\" ]+)\"? does not exist", said):
            return f"the weights are not on {host}: {match[1]} does not exist; run playbooks/models.yml", 90
        return f"a volume of {pod_name(pod)} cannot be mounted on {host}: {said}", 90
    return None


def secret_missing(evidence: Evidence) -> tuple[str, int] | None:
    """The token's Secret, or its key, is not there; or the image's user is not what the pod asks for."""
    for pod in evidence.pods:
        for container in statuses(pod):
            waiting = state(container, "waiting")
            if waiting.get("reason") != "CreateContainerConfigError":
                continue
            said = one_line(waiting.get("message", ""))
            if re.search(r"[Ss]ecret", said):
                return f"Ray's token is not there: {said}; run playbooks/serving.yml, which makes it", 60
            return f"the container {container['name']} of {pod_name(pod)} cannot be made: {said}", 30
    return None


def out_of_memory(evidence: Evidence) -> tuple[str, int] | None:
    """The kernel ended a container that went over its limit.

    Where it ended a process below the first one, which then ends with its status, the kubelet does not call it
    OOMKilled. The kubelet itself kills too, and tells of that.
    """
    for pod in evidence.pods:
        for container in statuses(pod):
            how = ended(container)
            below = how.get("exitCode") == 137 and not container.get("ready")
            if how.get("reason") != "OOMKilled" and (not below or events_of(evidence, "Killing", name=pod_name(pod))):
                continue
            word = "OOMKilled" if how.get("reason") == "OOMKilled" else "killed with status 137"
            spec: Object = next((one for one in pod["spec"]["containers"] if one["name"] == container["name"]), {})
            limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory", "none")
            times = container.get("restartCount", 0)
            return (
                f"the pod {pod_name(pod)} on {pod_host(pod, evidence)} ran out of memory ({word}, limit {limit},"
                f" restarted {times}x): raise ray_service_memory_headroom, or lower the model's kv_cache_gib"
                " or context",
                0 if times > 1 else 60,
            )
    return None


def evicted(evidence: Evidence) -> tuple[str, int] | None:
    """The kubelet sent the pod away because the host ran short of something."""
    for pod in evidence.pods:
        status = pod.get("status", {})
        if status.get("phase") == "Failed" and status.get("reason"):
            said = one_line(status.get("message", ""))
            return f"{pod_host(pod, evidence)} ended the pod {pod_name(pod)} ({status['reason']}): {said}", 60
    return None


def token_refused(evidence: Evidence) -> tuple[str, int] | None:
    """Ray and the operator hold different tokens."""
    said = [reason(event["message"]) for event in _current(evidence, "FailedToUpdateServeApplications")]
    said += evidence.operator_said
    found = next((match[0].strip() for text in reversed(said) if (match := _TOKEN.search(text))), "")
    if not found:
        return None
    return (
        f"Ray does not take the operator's token ({one_line(found, 200)}): the Secret is not what the pods were started"
        " with, or its key auth_token is missing; run playbooks/serving.yml again",
        60,
    )


def crashed(evidence: Evidence) -> tuple[str, int] | None:
    """A container ends again and again, or could not be started."""
    for pod in evidence.pods:
        for container in statuses(pod):
            waiting = state(container, "waiting")
            if waiting.get("reason") in ("CreateContainerError", "RunContainerError"):
                return (
                    f"the container {container['name']} of {pod_name(pod)} on {pod_host(pod, evidence)} cannot be"
                    f" started: {one_line(waiting.get('message', ''))}",
                    30,
                )
        if said := how_it_ended(pod, evidence):
            most = max(one.get("restartCount", 0) for one in statuses(pod))
            advice = ": a parameter of `ray start` is wrong" if _START_PARAMETER.search(said) else ""
            return f"the pod {pod_name(pod)} on {pod_host(pod, evidence)} {said}{advice}", 0 if most > 2 else 60
    return None


def sandbox_failed(evidence: Evidence) -> tuple[str, int] | None:
    """The container runtime of the host cannot make the pod."""
    for pod in evidence.pods:
        if is_ready(pod) or pod.get("status", {}).get("phase") != "Pending":
            continue
        failed = events_of(evidence, "FailedCreatePodSandBox", name=pod_name(pod))
        if failed:
            said, host = _said(failed[-1]), pod_host(pod, evidence)
            advice = ""
            if match := re.search(r"no runtime for \"?(\w+)", said):
                advice = f": containerd does not know the runtime {match[1]}; install it and restart K3s on the host"
            return f"{host} cannot start the pod {pod_name(pod)} ({said}){advice}", 60
    return None


def serve_failed(evidence: Evidence) -> tuple[str, int] | None:
    """Serve has an application and says that it failed."""
    said = verdict(applications(evidence), evidence.cell)
    known = applications(evidence)["applications"].get(evidence.cell, {}).get("status")
    if said.ok or known not in ("DEPLOY_FAILED", "UNHEALTHY"):
        return None
    log = "\n".join([*evidence.logs.values(), said.detail])
    available = evidence.memory_needed if evidence.memory_available is None else evidence.memory_available
    return explain(said.text, log, available, evidence.memory_needed), 0 if said.done else 120


def not_handed_over(evidence: Evidence) -> tuple[str, int] | None:
    """The operator cannot hand the application to Ray.

    Two to five times FailedToUpdateServeApplications belongs to every start, for the first calls take longer than the
    operator waits; repeated events keep the text of the first, so a later reason is only in the operator's log.
    """
    failed = _current(evidence, "FailedToUpdateServeApplications")
    count = sum(map(event_count, failed))
    said = [*(reason(event["message"]) for event in failed), *evidence.operator_said]
    refused = next((match for text in reversed(said) if (match := _NOT_TAKEN.search(text))), None)
    if applications(evidence)["applications"] or not (refused or count > 5):
        return None
    if refused and refused["yaml"]:
        return f"the cell's serveConfigV2 is no YAML: {one_line(refused.string[refused.end() :])}", REFUSED_S
    times = f" (tried {count}x)" if count else ""
    last = one_line((refused.string if refused else None) or said[-1])
    return f"the operator could not hand the application to Ray{times}: {last}", 60


def pod_missing(evidence: Evidence) -> tuple[str, int] | None:
    """A host of the cell has no pod: it was deleted, or the operator makes none."""
    if len(evidence.pods) >= len(evidence.hosts) or evidence.service is None or evidence.waited_s < 30:
        return None
    if not evidence.service.get("status"):
        return None
    placed = {pod["spec"].get("nodeName") for pod in evidence.pods}
    without = ", ".join(host for host in evidence.hosts if host not in placed)
    more = f"; the operator says: {one_line(evidence.operator_said[-1])}" if evidence.operator_said else ""
    return (
        f"{len(evidence.pods)} of its {len(evidence.hosts)} pods are there, {without} has none, and KubeRay makes none"
        f"{more}",
        180,
    )


def not_probed(evidence: Evidence) -> tuple[str, int] | None:
    """Ray runs and does not answer the kubelet."""
    for pod in evidence.pods:
        running = [one for one in statuses(pod) if is_running(one)]
        failed = events_of(evidence, "Unhealthy", name=pod_name(pod))
        if running and not is_ready(pod) and failed:
            log = last_line(evidence.logs.get(pod_name(pod), ""))
            more = f"; its last line: {log}" if log else ""
            said = _said(failed[-1])
            return f"Ray in {pod_name(pod)} on {pod_host(pod, evidence)} does not answer: {said}{more}", 300
    return None


def not_taken_up(evidence: Evidence) -> tuple[str, int] | None:
    """The operator runs and does not look here."""
    if evidence.operator is None or evidence.service is None or evidence.service.get("status"):
        return None
    if evidence.waited_s < 30:
        return None
    return (
        f"the KubeRay operator runs and has not taken up the cell after {evidence.waited_s:.0f} s: does it watch the"
        f" namespace {evidence.namespace}?",
        60,
    )


CHECKS: tuple[Check, ...] = (
    crds_missing,
    operator_down,
    spec_refused,
    no_serve_port,
    pod_refused,
    port_taken,
    host_missing,
    host_cordoned,
    unschedulable,
    image_pull,
    mount_failed,
    sandbox_failed,
    secret_missing,
    out_of_memory,
    evicted,
    crashed,
    token_refused,
    pod_missing,
    serve_failed,
    not_handed_over,
    not_probed,
    not_taken_up,
)


# What keeps a cell from going.
STAYS: tuple[Check, ...] = (operator_down, host_missing)


def diagnose(evidence: Evidence, checks: tuple[Check, ...] = CHECKS) -> Finding | None:
    """The first cause that the evidence shows; None if the cell is only starting."""
    # A pod on its way out has nothing to say of its successor.
    staying = tuple(pod for pod in evidence.pods if not pod["metadata"].get("deletionTimestamp"))
    evidence = replace(evidence, pods=staying)
    for check in checks:
        found = check(evidence)
        if found:
            return Finding(check.__name__, f"{evidence.cell}: {found[0].rstrip('.')}", found[1])
    return None


def progress(evidence: Evidence) -> str:
    """What the cell is doing while nothing is the matter, in a few words."""
    if not evidence.service:
        return f"{evidence.cell}: to be applied"
    if not evidence.pods:
        return f"{evidence.cell}: waiting for its pods"
    if len(evidence.pods) < len(evidence.hosts):
        return f"{evidence.cell}: {len(evidence.pods)} of {len(evidence.hosts)} pods are there"
    slow = [pod for pod in evidence.pods if not is_ready(pod)]
    if slow:
        what = next((state(one, "waiting").get("reason") for one in statuses(slow[0]) if state(one, "waiting")), None)
        return f"{evidence.cell}: {pod_name(slow[0])} {what or 'starts'}"
    return f"{evidence.cell}: {verdict(applications(evidence), evidence.cell).text}"


def _current(evidence: Evidence, *reasons: str) -> list[Object]:
    """Events with one of these reasons, without those from before the last change of what they are about."""
    things = [thing for thing in (evidence.service, evidence.cluster) if thing]
    since = {thing["metadata"]["name"]: changed_at(thing) for thing in things}
    found = events_of(evidence, *reasons)
    return [event for event in found if event_time(event) >= since.get(event["involvedObject"].get("name"), 0.0)]


def _said(event: Object, most: int = 300) -> str:
    """The reason that an event gives."""
    return one_line(reason(event["message"]), most)


def _ports(container: Object) -> list[Object]:
    return container.get("ports") or []


def _lack(evidence: Evidence, pod: Object, resource: str) -> str:
    asked = requests(pod).get(resource)
    parts = [f"it lacks {resource}" if asked is None else f"it asks for {_amount(asked, resource)} of {resource}"]
    for node in evidence.nodes or ():
        host = pod_name(node)
        if host not in evidence.hosts:
            continue
        text = (node.get("status", {}).get("allocatable") or {}).get(resource)
        if text is None:
            parts.append(f"{host} offers none: is its driver loaded, and does the device plugin run?")
            continue
        users = {
            pod_name(other): requests(other)[resource]
            for other in evidence.others
            if other.get("spec", {}).get("nodeName") == host
            and other.get("status", {}).get("phase") in ("Running", "Pending")
            and requests(other).get(resource)
        }
        taken = _amount(sum(users.values()), resource) if users else ""
        by = f", of which {taken} taken by {', '.join(sorted(users))}" if users else ""
        parts.append(f"{host} has {_amount(quantities.value(str(text)), resource)}{by}")
    return "; ".join(parts)


def _amount(value: Fraction | int, resource: str) -> str:
    number = float(value)
    if resource in ("memory", "ephemeral-storage"):
        return f"{number / 1024**3:.1f} GiB"
    return f"{number:g}"
