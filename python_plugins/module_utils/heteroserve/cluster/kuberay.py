"""KubeRay's operator and CRDs in a cluster: whose they are, whether they are ready, and why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..common.names import PART_OF
from .evidence import Evidence, condition, one_line
from .pods import Finding, operator_down

Object = Mapping[str, Any]

GROUP = "ray.io"
IMAGE = "kuberay/operator"
LABEL = "kuberay-operator"  # app.kubernetes.io/name of its pods, unless whoever installed it named it otherwise
APPLIED = "heteroserve.io/applied"  # annotation: what a CRD was when it was applied
MANAGER = "app.kubernetes.io/managed-by"
RELEASE = ("meta.helm.sh/release-namespace", "meta.helm.sh/release-name")
# What tools that keep objects as they want them write on those: label or annotation, and the tool's name.
KEEPERS = {
    "argocd.argoproj.io/instance": "Argo CD",
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "olm.managed": "the Operator Lifecycle Manager",
}


def own_labels(crd: Object) -> dict[str, Any]:
    """The CRD with labels that say who put it there: Helm writes none on what lies in a chart's folder crds."""
    labels = {**(crd["metadata"].get("labels") or {}), **PART_OF}
    return {**crd, "metadata": {**crd["metadata"], "labels": labels}}


def is_ours(crd: Object) -> bool:
    """Whether a CRD is KubeRay's and was put there by ``own_labels``."""
    labels = crd["metadata"].get("labels") or {}
    return bool(crd["spec"]["group"] == GROUP) and labels.get(MANAGER) == PART_OF[MANAGER]


def content(crd: Object | None) -> dict[str, Any]:
    """What an apply may change of a CRD, to tell whether it did."""
    if crd is None:
        return {}
    metadata = crd["metadata"]
    notes = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != APPLIED}
    return {"spec": crd["spec"], "labels": metadata.get("labels") or {}, "annotations": notes}


def applied_note(crd: Object, chart: str) -> str:
    """What a CRD is, as the API has it after an apply, and the digest of the chart's CRDs that it came from."""
    spec = hashlib.sha256(json.dumps(crd["spec"], sort_keys=True).encode()).hexdigest()
    return f"{chart[:16]} {spec[:32]}"


def as_applied(crds: Iterable[Object], chart: str) -> list[str]:
    """Names of the CRDs that are served and are what the chart made of them, by their notes."""
    return [
        crd["metadata"]["name"]
        for crd in crds
        if is_ours(crd)
        and established(crd)
        and (crd["metadata"].get("annotations") or {}).get(APPLIED) == applied_note(crd, chart)
    ]


def established(crd: Object) -> bool:
    """Whether the API serves the kind."""
    return condition(dict(crd), "Established").get("status") == "True"


def not_established(crd: Object) -> str:
    """Why the API does not serve the kind."""
    accepted = condition(dict(crd), "NamesAccepted")
    why = accepted if accepted.get("status") == "False" else condition(dict(crd), "Established")
    return f"{crd['metadata']['name']}: {one_line(why.get('message', '')) or 'the API has not looked at it yet'}"


def conflict(crds: Iterable[Object], deployments: Iterable[Object], release: tuple[str, str]) -> str:
    """A sentence if the cluster has a KubeRay that is not the release (namespace, name); "" if it has none."""
    for one in deployments:
        if is_operator(one) and _release(one) != release:
            metadata = one["metadata"]
            owner, remove = _owner(one)
            return (
                f"the cluster has a KubeRay already: the Deployment {metadata['name']} in the namespace"
                f" {metadata['namespace']}{f', of {owner}' if owner else ''}; two operators would work on the same"
                f" objects and need not be of one version: remove that one ({remove}), or use a cluster without it"
            )
    for crd in crds:
        if crd["spec"]["group"] != GROUP:
            continue
        owner, remove = _owner(crd)
        if owner and _release(crd) != release:
            return (
                f"the CRD {crd['metadata']['name']} belongs to {owner}, which would undo what is changed here:"
                f" remove it there ({remove}), or use a cluster without it"
            )
    return ""


def is_operator(deployment: Object) -> bool:
    """Whether a Deployment runs KubeRay's operator, whatever it is called."""
    template = deployment["spec"]["template"]
    named = (template["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == LABEL
    return named or any(IMAGE in (one.get("image") or "") for one in template["spec"]["containers"])


def in_use(objects: Mapping[str, Iterable[Object]], emptied: str = "") -> str:
    """Objects of KubeRay's kinds outside of a namespace that is emptied; "" if there are none."""
    found = [
        f"{name} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
        for name, many in sorted(objects.items())
        for one in many
        if not emptied or one["metadata"].get("namespace") != emptied
    ]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{', '.join(found[:3])}{more}" if found else ""


def available(deployment: Object | None) -> bool:
    """Whether all of a Deployment runs as it was last written, and it is not scaled to nothing."""
    if deployment is None:
        return False
    status, count = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return seen and count > 0 and all(status.get(key, 0) >= count for key in ("updatedReplicas", "availableReplicas"))


def operator_fault(deployment: Object | None, evidence: Evidence) -> Finding | None:
    """Why the operator does not run; None if it does, or is only starting."""
    where = f"the namespace {evidence.operator_namespace}"
    if deployment is None:
        return Finding("operator_missing", f"there is no Deployment of the KubeRay operator in {where}", 10)
    if available(deployment):
        return None
    failure = condition(dict(deployment), "ReplicaFailure")
    if failure.get("status") == "True" and not evidence.operator:
        said = one_line(failure.get("message", ""), 500)
        return Finding("operator_refused", f"Kubernetes refuses the KubeRay operator's pod in {where}: {said}", 30)
    found = operator_down(evidence)
    return Finding("operator_down", found[0], found[1]) if found else None


def _release(thing: Object) -> tuple[str, str] | None:
    notes = thing["metadata"].get("annotations") or {}
    return (notes[RELEASE[0]], notes[RELEASE[1]]) if all(key in notes for key in RELEASE) else None


def _owner(thing: Object) -> tuple[str, str]:
    """Who keeps an object, and how it is removed."""
    release = _release(thing)
    if release:
        return (
            f"the Helm release {release[1]} of the namespace {release[0]}",
            f"helm uninstall -n {release[0]} {release[1]}",
        )
    metadata = thing["metadata"]
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for mark, tool in KEEPERS.items():
        if mark in marks:
            return tool, f"where {tool} takes it from"
    manager = marks.get(MANAGER)
    if manager and manager != PART_OF[MANAGER]:
        return manager, f"with {manager}"
    return (
        "",
        f"kubectl delete -n {metadata['namespace']} deployment {metadata['name']}" if "namespace" in metadata else "",
    )
