"""Each point of the benchmark passes, fails or says why it cannot be judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heteroserve.cluster.cis.cluster import CHECKS as OF_CLUSTER
from heteroserve.cluster.cis.cluster import ENFORCE, ClusterEvidence, judge_cluster
from heteroserve.cluster.cis.host import CHECKS, FAIL, PASS, SERVER, UNKNOWN, FileState, HostEvidence, judge_host
from heteroserve.cluster.cis.report import arguments_of, flatten, joined, report

# As a server of a hardened K3s logs it, from its self-assessment guide.
LOGGED = (
    "--admission-control-config-file=/var/lib/rancher/k3s/server/psa.yaml --anonymous-auth=false --audit-log-maxage=30"
    " --audit-log-maxbackup=10 --audit-log-maxsize=100 --audit-log-path=/var/lib/rancher/k3s/server/logs/audit.log"
    " --audit-policy-file=/var/lib/rancher/k3s/server/audit.yaml --authorization-mode=Node,RBAC"
    " --client-ca-file=/tls/client-ca.crt --enable-admission-plugins=NodeRestriction,EventRateLimit"
    " --encryption-provider-config=/e.json --etcd-cafile=/tls/etcd/server-ca.crt --etcd-certfile=/c --etcd-keyfile=/k"
    " --kubelet-certificate-authority=/a --kubelet-client-certificate=/b --profiling=false"
    " --service-account-extend-token-expiration=false --service-account-key-file=/s"
    " --tls-cert-file=/t --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
)
KUBELET = """apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  x509:
    clientCAFile: /var/lib/rancher/k3s/agent/client-ca.crt
authorization:
  mode: Webhook
clusterDNS:
- 10.43.0.10
tlsCertFile: "/serving-kubelet.crt"
tlsCipherSuites:
- TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
- TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
"""
PRIVATE = FileState(0o600, "root", "root")
HARDENED = HostEvidence(
    server=True,
    files={f"{SERVER}/cred/admin.kubeconfig": PRIVATE, f"{SERVER}/tls/client-ca.key": PRIVATE},
    arguments={"kube-apiserver": arguments_of(LOGGED.split()), "kubelet": {}},
    kubelet=flatten(KUBELET),
    encryption=("aescbc", "identity"),
    audit_levels=("Metadata",),
)


def verdicts(evidence: HostEvidence) -> dict[str, tuple[str, str]]:
    return {item.id: (item.verdict, item.reason) for item in judge_host(evidence)}


def test_every_point_of_the_benchmark_is_there_once() -> None:
    sections = {"1.1": 21, "1.2": 30, "1.3": 7, "1.4": 2, "2": 7, "3.1": 3, "3.2": 2, "4.1": 10, "4.2": 14, "4.3": 1}
    sections |= {"5.1": 13, "5.2": 12, "5.3": 2, "5.4": 2, "5.5": 1, "5.6": 4}
    wanted = {f"{section}.{number}" for section, count in sections.items() for number in range(1, count + 1)}
    found = [check.id for check in CHECKS] + [number for number, _, _ in OF_CLUSTER]
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_a_hardened_server_passes() -> None:
    found = verdicts(HARDENED)
    failing = {number for number, (verdict, _) in found.items() if verdict == FAIL}
    # What K3s's guide leaves to the site.
    assert failing == {"1.2.3", "1.2.11", "4.2.13", "4.2.14"}
    assert found["1.2.29"][0] == PASS
    assert found["4.2.12"][0] == PASS


@pytest.mark.parametrize(
    ("number", "argument", "value"),
    [
        ("1.2.1", "anonymous-auth", "true"),
        ("1.2.2", "token-auth-file", "/tokens"),
        ("1.2.6", "authorization-mode", "AlwaysAllow"),
        ("1.2.7", "authorization-mode", "RBAC"),
        ("1.2.9", "enable-admission-plugins", "NodeRestriction"),
        ("1.2.10", "enable-admission-plugins", "NodeRestriction,AlwaysAdmit"),
        ("1.2.13", "disable-admission-plugins", "NamespaceLifecycle"),
        ("1.2.17", "audit-log-maxage", "7"),
        ("1.2.20", "request-timeout", "0"),
        ("1.2.29", "tls-cipher-suites", "TLS_RSA_WITH_AES_128_CBC_SHA"),
    ],
)
def test_a_wrong_argument_fails_and_is_quoted(number: str, argument: str, value: str) -> None:
    arguments = {**HARDENED.arguments["kube-apiserver"], argument: value}
    verdict, reason = verdicts(replace(HARDENED, arguments={"kube-apiserver": arguments}))[number]
    assert verdict == FAIL
    assert f"--{argument}={value}" in reason


def test_modes_and_owners() -> None:
    path = f"{SERVER}/cred/admin.kubeconfig"
    found = verdicts(replace(HARDENED, files={path: FileState(0o644, "root", "admin")}))
    assert found["1.1.13"] == (FAIL, f"{path} has the mode 644: chmod 600")
    assert found["1.1.14"] == (FAIL, f"{path} is root:admin's: chown root:root")
    keys = {f"{SERVER}/tls/{name}.key": FileState(0o640, "root", "root") for name in "abc"}
    assert verdicts(replace(HARDENED, files=keys))["1.1.21"][1].endswith(", and 2 more")


def test_what_is_not_seen_is_not_judged() -> None:
    found = verdicts(HostEvidence(server=True))
    assert {verdict for verdict, _ in found.values()} <= {UNKNOWN, FAIL}
    assert found["1.2.1"][0] == UNKNOWN
    assert "journal" in found["1.2.1"][1]
    assert found["2.1"][0] == UNKNOWN


def test_an_agent_is_not_judged_as_a_server() -> None:
    assert {number.split(".")[0] for number in verdicts(HostEvidence(server=False))} == {"4"}


def test_an_argument_of_the_kubelet_wins_over_its_file() -> None:
    arguments = {**HARDENED.arguments, "kubelet": {"anonymous-auth": "true", "pod-max-pids": "4096"}}
    found = verdicts(replace(HARDENED, arguments=arguments))
    assert found["4.2.1"][0] == FAIL
    assert found["4.2.13"][0] == PASS


def test_etcd_shares_no_authority_with_the_api() -> None:
    section = {"client-transport-security.trusted-ca-file": "/tls/client-ca.crt"}
    assert verdicts(replace(HARDENED, etcd=section))["2.7"][0] == FAIL
    section = {"client-transport-security.trusted-ca-file": "/tls/etcd/server-ca.crt"}
    assert verdicts(replace(HARDENED, etcd=section))["2.7"][0] == PASS
    assert verdicts(replace(HARDENED, etcd=section))["2.2"][0] == FAIL


def test_configuration_is_read_without_a_yaml_parser() -> None:
    found = flatten(KUBELET)
    assert found["authentication.anonymous.enabled"] == "false"
    assert found["authorization.mode"] == "Webhook"
    assert found["clusterDNS"] == "10.43.0.10"
    assert found["tlsCertFile"] == "/serving-kubelet.crt"
    assert found["tlsCipherSuites"].count(",") == 1


def pod(namespace: str = "apps", **spec: Any) -> dict[str, Any]:
    secure = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "one", "securityContext": {**secure, **spec.pop("security", {})}, **spec.pop("container", {})}
    return {"metadata": {"name": "web", "namespace": namespace}, "spec": {"containers": [container], **spec}}


def space(name: str, level: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {ENFORCE: level} if level else {}}}


def of_cluster(**objects: Any) -> dict[str, tuple[str, str]]:
    return {item.id: (item.verdict, item.reason) for item in judge_cluster(ClusterEvidence(**objects))}


@pytest.mark.parametrize(
    ("number", "bad"),
    [
        ("5.2.2", pod(security={"privileged": True})),
        ("5.2.3", pod(hostPID=True)),
        ("5.2.4", pod(hostIPC=True)),
        ("5.2.5", pod(hostNetwork=True)),
        ("5.2.6", pod(security={"allowPrivilegeEscalation": None})),
        ("5.2.7", pod(security={"runAsNonRoot": None})),
        ("5.2.8", pod(security={"capabilities": {}})),
        ("5.2.9", pod(security={"capabilities": {"drop": ["NET_RAW"]}})),
        ("5.2.11", pod(volumes=[{"hostPath": {"path": "/"}}])),
        ("5.2.12", pod(container={"ports": [{"hostPort": 80}]})),
        ("5.4.1", pod(container={"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]})),
        ("5.6.2", pod(security={"seccompProfile": None})),
        ("5.6.4", pod("default")),
    ],
)
def test_a_pod_that_may_too_much_is_named(number: str, bad: dict[str, Any]) -> None:
    good = of_cluster(pods=[pod()], namespaces=[space("apps")])
    assert good[number][0] == PASS
    verdict, reason = of_cluster(pods=[bad], namespaces=[space("apps")])[number]
    assert verdict == FAIL
    assert "web" in reason
    # The cluster's own, and namespaces that are labelled so, may.
    if number != "5.6.4":
        bad["metadata"]["namespace"] = "devices"
        objects = {"pods": [bad, pod()], "namespaces": [space("devices", "privileged")]}
        verdict, reason = of_cluster(**objects)[number]
        assert verdict == PASS
        assert "devices (labelled privileged)" in reason
        bad["metadata"]["namespace"] = "kube-system"
        assert of_cluster(pods=[bad, pod()])[number][0] == PASS


def test_without_pods_only_a_policy_is_an_answer() -> None:
    assert of_cluster()["5.2.2"][0] == UNKNOWN
    assert of_cluster(default_level="restricted")["5.2.2"][0] == PASS
    assert of_cluster(default_level="restricted")["5.4.1"][0] == UNKNOWN


def test_policies_of_namespaces() -> None:
    assert of_cluster(namespaces=[space("apps")])["5.2.1"][0] == FAIL
    assert of_cluster(namespaces=[space("apps", "restricted")])["5.2.1"][0] == PASS
    found = of_cluster(namespaces=[space("devices", "privileged")], default_level="restricted")["5.2.1"]
    assert found == (PASS, "PodSecurity enforces restricted, but devices=privileged")
    policy = {"metadata": {"name": "p", "namespace": "apps"}}
    assert of_cluster(pods=[pod()])["5.3.2"][0] == FAIL
    assert of_cluster(pods=[pod()], policies=[policy])["5.3.2"][0] == PASS


def test_bindings_and_accounts() -> None:
    own = {"metadata": {"name": "cluster-admin"}, "roleRef": {"name": "cluster-admin"}}
    other = {"metadata": {"name": "mine"}, "roleRef": {"name": "cluster-admin"}}
    assert of_cluster(bindings=[own])["5.1.1"][0] == PASS
    assert of_cluster(bindings=[own, other])["5.1.1"] == (FAIL, "cluster-admin is also bound by mine")
    account = {"metadata": {"name": "default", "namespace": "apps"}}
    assert of_cluster(accounts=[account])["5.1.5"][0] == FAIL
    assert of_cluster(accounts=[{**account, "automountServiceAccountToken": False}])["5.1.5"][0] == PASS


def test_the_worst_verdict_of_a_point_is_shown() -> None:
    def check(verdict: str) -> dict[str, str]:
        return {"id": "4.2.1", "text": "asked", "verdict": verdict, "reason": f"because {verdict}"}

    lines = joined({"a": {"checks": [check(PASS)]}, "b": {"checks": [check(FAIL)]}, "c": {"checks": [check(UNKNOWN)]}})
    assert [(line["verdict"], line["hosts"]) for line in lines] == [(FAIL, ["b"])]
    text = report(lines)
    assert "4.2.1 asked: because fail" in text
    assert "1 points: 0 pass, 1 fail, 0 cannot be judged here" in text


def test_points_are_in_the_benchmarks_order() -> None:
    checks = [{"id": number, "text": "", "verdict": PASS, "reason": ""} for number in ("1.2.10", "1.2.9", "1.1.3")]
    assert [line["id"] for line in joined({"a": {"checks": checks}})] == ["1.1.3", "1.2.9", "1.2.10"]
