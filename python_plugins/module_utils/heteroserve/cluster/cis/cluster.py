"""Section 5 of the CIS Kubernetes Benchmark 1.12: what runs in the cluster, from objects as the API returns them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .host import FAIL, PASS, UNKNOWN, Verdict

ENFORCE = "pod-security.kubernetes.io/enforce"
# The cluster's own; K3s keeps everything of its own in kube-system.
SYSTEM = ("kube-system", "kube-public", "kube-node-lease")
YOURS = "it depends on what your users may do, which nobody but you can say"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class ClusterEvidence:
    """Objects of the cluster, and the level that PodSecurity asks of namespaces without a label of their own."""

    namespaces: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    accounts: Sequence[Object] = ()
    policies: Sequence[Object] = ()
    bindings: Sequence[Object] = ()  # of cluster roles
    default_level: str = ""  # "" where it is not known


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _place(item: Object) -> str:
    return str(item["metadata"].get("namespace", ""))


def _containers(pod: Object) -> list[Object]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def _security(container: Object) -> Object:
    found: Object = container.get("securityContext") or {}
    return found


def _pod_security(pod: Object) -> Object:
    found: Object = pod["spec"].get("securityContext") or {}
    return found


def _exempt(evidence: ClusterEvidence) -> dict[str, str]:
    """Namespaces that may do more, and the level that their label names."""
    labels = {_name(item): (item["metadata"].get("labels") or {}).get(ENFORCE, "") for item in evidence.namespaces}
    return {name: level for name, level in labels.items() if level in ("privileged", "baseline") and name not in SYSTEM}


def _users(evidence: ClusterEvidence) -> list[Object]:
    exempt = _exempt(evidence)
    return [pod for pod in evidence.pods if _place(pod) not in SYSTEM and exempt.get(_place(pod)) != "privileged"]


def _listed(names: Iterable[str]) -> str:
    found = sorted(set(names))
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _no_pod(
    bad: Callable[[Object], bool], what: str, *, refused: bool = True
) -> Callable[[ClusterEvidence], tuple[str, str]]:
    """No pod does it, outside of the system and of namespaces that are labelled privileged.

    ``refused`` says that the level restricted keeps such pods out, so that no pod at all is an answer as well.
    """

    def judge(evidence: ClusterEvidence) -> tuple[str, str]:
        pods = _users(evidence)
        found = [f"{_place(pod)}/{_name(pod)}" for pod in pods if bad(pod)]
        if found:
            return FAIL, f"{what}: {_listed(found)}"
        kept_out = refused and evidence.default_level == "restricted"
        if not pods and not kept_out:
            return UNKNOWN, "there is no pod outside of kube-system to look at"
        free = [name for name, level in _exempt(evidence).items() if level == "privileged"]
        left = f", left out: {_listed(free)} (labelled privileged)" if free else ""
        why = "PodSecurity refuses it; " if kept_out else ""
        return PASS, f"{why}none of {len(pods)} pods outside of kube-system{left}"

    return judge


def _mechanism(evidence: ClusterEvidence) -> tuple[str, str]:
    if evidence.default_level in ("restricted", "baseline"):
        exempt = [f"{name}={level}" for name, level in _exempt(evidence).items()]
        return PASS, f"PodSecurity enforces {evidence.default_level}" + (f", but {_listed(exempt)}" if exempt else "")
    bare = [
        _name(item)
        for item in evidence.namespaces
        if _name(item) not in SYSTEM and not (item["metadata"].get("labels") or {}).get(ENFORCE)
    ]
    if bare:
        return FAIL, f"PodSecurity has no default, and no level in {_listed(bare)}"
    return PASS, "each namespace has a level of PodSecurity"


def _administrators(evidence: ClusterEvidence) -> tuple[str, str]:
    found = [
        _name(item)
        for item in evidence.bindings
        if item["roleRef"]["name"] == "cluster-admin" and _name(item) != "cluster-admin"
    ]
    return (FAIL, f"cluster-admin is also bound by {_listed(found)}") if found else (PASS, "only its own binding")


def _accounts(evidence: ClusterEvidence) -> tuple[str, str]:
    found = [
        _place(item)
        for item in evidence.accounts
        if _name(item) == "default" and item.get("automountServiceAccountToken") is not False
    ]
    return (FAIL, f"the account default gives pods its token in {_listed(found)}") if found else (PASS, "none does")


def _network(evidence: ClusterEvidence) -> tuple[str, str]:
    used = {_place(pod) for pod in evidence.pods}
    bare = used - {_place(item) for item in evidence.policies}
    return (FAIL, f"pods and no NetworkPolicy in {_listed(bare)}") if bare else (PASS, "one in each with pods")


def _default_namespace(evidence: ClusterEvidence) -> tuple[str, str]:
    found = [_name(pod) for pod in evidence.pods if _place(pod) == "default"]
    return (FAIL, f"pods in default: {_listed(found)}") if found else (PASS, "no pod in it")


def _each(test: Callable[[Object], bool]) -> Callable[[Object], bool]:
    return lambda pod: any(test(container) for container in _containers(pod))


def _root(pod: Object) -> bool:
    whole = _pod_security(pod).get("runAsNonRoot")
    return any(not _security(item).get("runAsNonRoot", whole) for item in _containers(pod))


def _seccomp(pod: Object) -> bool:
    whole = _pod_security(pod).get("seccompProfile")
    return any(not _security(item).get("seccompProfile", whole) for item in _containers(pod))


def _drops(container: Object) -> set[str]:
    return set((_security(container).get("capabilities") or {}).get("drop") or [])


def _secret_variable(container: Object) -> bool:
    named = any((item.get("valueFrom") or {}).get("secretKeyRef") for item in container.get("env") or [])
    return named or any(item.get("secretRef") for item in container.get("envFrom") or [])


Judge = Callable[[ClusterEvidence], tuple[str, str]]


def _unknown(reason: str) -> Judge:
    return lambda evidence: (UNKNOWN, reason)


CHECKS: tuple[tuple[str, str, Judge], ...] = (
    ("5.1.1", "cluster-admin only where required", _administrators),
    ("5.1.2", "access to secrets", _unknown(YOURS)),
    ("5.1.3", "wildcards in roles", _unknown(YOURS)),
    ("5.1.4", "access to create pods", _unknown(YOURS)),
    ("5.1.5", "default accounts are not used", _accounts),
    ("5.1.6", "tokens only where necessary", _unknown("which pods need the API is known to their makers")),
    ("5.1.7", "system:masters is not used", _unknown("the administrator's kubeconfig of K3s is of this group")),
    ("5.1.8", "bind, impersonate, escalate", _unknown(YOURS)),
    ("5.1.9", "access to create volumes", _unknown(YOURS)),
    ("5.1.10", "access to nodes/proxy", _unknown(YOURS)),
    ("5.1.11", "access to approve certificates", _unknown(YOURS)),
    ("5.1.12", "access to webhooks", _unknown(YOURS)),
    ("5.1.13", "access to create tokens", _unknown(YOURS)),
    ("5.2.1", "a policy for pods", _mechanism),
    ("5.2.2", "privileged", _no_pod(_each(lambda one: bool(_security(one).get("privileged"))), "privileged")),
    ("5.2.3", "host's processes", _no_pod(lambda pod: bool(pod["spec"].get("hostPID")), "see the host's processes")),
    ("5.2.4", "host's IPC", _no_pod(lambda pod: bool(pod["spec"].get("hostIPC")), "share the host's IPC")),
    ("5.2.5", "host's network", _no_pod(lambda pod: bool(pod["spec"].get("hostNetwork")), "on the host's network")),
    (
        "5.2.6",
        "more privileges than the parent",
        _no_pod(_each(lambda one: _security(one).get("allowPrivilegeEscalation") is not False), "may gain privileges"),
    ),
    ("5.2.7", "root", _no_pod(_root, "may run as root")),
    ("5.2.8", "NET_RAW", _no_pod(_each(lambda one: not _drops(one) & {"ALL", "NET_RAW"}), "keep NET_RAW")),
    ("5.2.9", "capabilities", _no_pod(_each(lambda one: "ALL" not in _drops(one)), "keep capabilities")),
    ("5.2.10", "HostProcess of Windows", _unknown("K3s's nodes here run Linux")),
    (
        "5.2.11",
        "folders of the host",
        _no_pod(lambda pod: any("hostPath" in item for item in pod["spec"].get("volumes") or []), "mount host paths"),
    ),
    (
        "5.2.12",
        "ports of the host",
        _no_pod(_each(lambda one: any(port.get("hostPort") for port in one.get("ports") or [])), "take host ports"),
    ),
    ("5.3.1", "NetworkPolicy is enforced", _unknown("objects are accepted; whether they are enforced shows by trying")),
    ("5.3.2", "a NetworkPolicy in each namespace", _network),
    ("5.4.1", "secrets as files", _no_pod(_each(_secret_variable), "take secrets as variables", refused=False)),
    ("5.4.2", "external storage of secrets", _unknown("a choice of the site")),
    ("5.5.1", "provenance of images", _unknown("a choice of the site")),
    ("5.6.1", "boundaries by namespaces", _unknown("which applications belong together is known to their makers")),
    ("5.6.2", "seccomp in pods", _no_pod(_seccomp, "without a seccomp profile")),
    ("5.6.3", "security contexts", _unknown("5.2.2 to 5.2.12 look at what they hold")),
    ("5.6.4", "the namespace default is empty", _default_namespace),
)


def judge_cluster(evidence: ClusterEvidence) -> list[Verdict]:
    """Every point of section 5."""
    return [Verdict(number, text, *judge(evidence)) for number, text, judge in CHECKS]
