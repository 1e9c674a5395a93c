"""The CIS Kubernetes Benchmark 1.12 on a K3s host: each point with a verdict and its reason.

Ids are the benchmark's; what K3s does in place of each is in K3s's own self-assessment guide for it
(docs.k3s.io/security/self-assessment-1.12, K3s 1.32 to 1.36). What a host shows is read by the module ``cis_check``;
nothing here touches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PASS, FAIL, UNKNOWN = "pass", "fail", "cannot be judged here"
DATA = "/var/lib/rancher/k3s"
SERVER = f"{DATA}/server"
AGENT = f"{DATA}/agent"
# TLS_AES and TLS_CHACHA20 are TLS 1.3's; the names with and without _SHA256 at the end are the same suite.
STRONG = {
    *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    *(f"TLS_ECDHE_{key}_WITH_AES_{size}" for key in ("ECDSA", "RSA") for size in ("128_GCM_SHA256", "256_GCM_SHA384")),
    *(f"TLS_ECDHE_{key}_WITH_CHACHA20_POLY1305{end}" for key in ("ECDSA", "RSA") for end in ("", "_SHA256")),
}


@dataclass(frozen=True)
class FileState:
    """Mode and owner of a file or folder."""

    mode: int
    owner: str
    group: str


@dataclass(frozen=True)
class HostEvidence:
    """What one host shows."""

    server: bool
    files: Mapping[str, FileState] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of each component that was found
    kubelet: Mapping[str, str] = field(default_factory=dict)  # its configuration files, keys joined by dots
    etcd: Mapping[str, str] = field(default_factory=dict)
    encryption: Sequence[str] = ()  # providers for secrets, in their order
    audit_levels: Sequence[str] = ()  # levels in the audit policy


@dataclass(frozen=True)
class Verdict:
    """One point on one host, or on the cluster."""

    id: str
    text: str
    verdict: str
    reason: str


Judge = Callable[[HostEvidence], tuple[str, str]]


@dataclass(frozen=True)
class Check:
    """A point of the benchmark that a host is judged by."""

    id: str
    text: str
    judge: Judge
    server: bool = True  # only servers are judged by it


def unknown(reason: str) -> Judge:
    """A point that no file or argument of K3s answers."""
    return lambda evidence: (UNKNOWN, reason)


def _paths(evidence: HostEvidence, pattern: str) -> list[str]:
    if not pattern.endswith("*"):
        folder, _, ending = pattern.partition("/*")
        if not ending:
            return [pattern] if pattern in evidence.files else []
        return sorted(path for path in evidence.files if path.startswith(f"{folder}/") and path.endswith(ending))
    return sorted(path for path in evidence.files if path.startswith(pattern[:-1]))


def mode(pattern: str, allowed: int, absent: str = "") -> Judge:
    """No bit beyond ``allowed`` on the files; ``absent`` says why there may be none."""

    def judge(evidence: HostEvidence) -> tuple[str, str]:
        paths = _paths(evidence, pattern)
        if not paths:
            return UNKNOWN, absent or f"{pattern} is not there"
        wide = [path for path in paths if evidence.files[path].mode & ~allowed]
        if wide:
            return FAIL, f"{wide[0]} has the mode {evidence.files[wide[0]].mode:o}: chmod {allowed:o}{_more(wide)}"
        return PASS, f"mode {max(evidence.files[path].mode for path in paths):o}"

    return judge


def owner(pattern: str, absent: str = "") -> Judge:
    """The files are root's."""

    def judge(evidence: HostEvidence) -> tuple[str, str]:
        paths = _paths(evidence, pattern)
        if not paths:
            return UNKNOWN, absent or f"{pattern} is not there"
        others = [
            path for path in paths if (evidence.files[path].owner, evidence.files[path].group) != ("root", "root")
        ]
        if others:
            found = evidence.files[others[0]]
            return FAIL, f"{others[0]} is {found.owner}:{found.group}'s: chown root:root{_more(others)}"
        return PASS, "root:root"

    return judge


def _more(paths: Sequence[str]) -> str:
    return f", and {len(paths) - 1} more" if len(paths) > 1 else ""


Test = Callable[[str | None], bool]


def flag(component: str, name: str, test: Test, wanted: str) -> Judge:
    """An argument of a component (None where it is not given) passes a test; ``wanted`` says which."""

    def judge(evidence: HostEvidence) -> tuple[str, str]:
        if component not in evidence.arguments:
            return UNKNOWN, f"no arguments of {component} in the journal or the list of processes"
        value = evidence.arguments[component].get(name)
        shown = f"--{name}={value}" if value is not None else f"--{name} is not set"
        return (PASS, shown) if test(value) else (FAIL, f"{shown}, {wanted} is asked for")

    return judge


def setting(key: str, name: str, test: Test, wanted: str) -> Judge:
    """A setting of the kubelet: its argument, which wins, or its configuration file."""

    def judge(evidence: HostEvidence) -> tuple[str, str]:
        given = evidence.arguments.get("kubelet")
        if given is None and not evidence.kubelet:
            return UNKNOWN, "no arguments of kubelet in the journal or the list of processes, and no configuration file"
        value = (given or {}).get(name, evidence.kubelet.get(key))
        shown = f"{key} is {value}" if value is not None else f"{key} is not set"
        return (PASS, shown) if test(value) else (FAIL, f"{shown}, {wanted} is asked for")

    return judge


def of_etcd(test: Callable[[Mapping[str, str]], bool], wanted: str) -> Judge:
    """A property of etcd's configuration."""

    def judge(evidence: HostEvidence) -> tuple[str, str]:
        if not evidence.etcd:
            return UNKNOWN, "the cluster has no etcd of its own (SQLite, or an external database)"
        return (PASS, wanted) if test(evidence.etcd) else (FAIL, f"etcd's configuration lacks: {wanted}")

    return judge


def given(value: str | None) -> bool:
    """It is set."""
    return bool(value)


def equals(*wanted: str) -> Test:
    """It is one of these."""
    return lambda value: value in wanted


def unset_or(*wanted: str) -> Test:
    """It is not set, for its default is right, or one of these."""
    return lambda value: value is None or value in wanted


def lists(*words: str) -> Test:
    """It lists all of these."""
    return lambda value: set(words) <= set((value or "").split(","))


def lists_none(*words: str) -> Test:
    """It lists none of these."""
    return lambda value: not set(words) & set((value or "").split(","))


def at_least(number: int) -> Test:
    """It is a number, and not smaller."""
    return lambda value: (value or "").isdigit() and int(value or 0) >= number


def unset_or_number(value: str | None) -> bool:
    """It is not set, or a number."""
    return value is None or value.isdigit()


def unset_or_local(value: str | None) -> bool:
    """It is not set, or an address of this host alone."""
    return value is None or value.startswith("127.0.0.1")


def not_off(value: str | None) -> bool:
    """It is not switched off, by its own key or among others."""
    return value != "false" and not (value or "").endswith("RotateKubeletServerCertificate=false")


def strong(value: str | None) -> bool:
    """It lists strong cipher suites only."""
    return bool(value) and set((value or "").split(",")) <= STRONG


def _files() -> Iterable[Check]:
    number = 0
    for thing in ("API server", "controller manager", "scheduler", "etcd"):
        for what in ("permissions", "ownership"):
            number += 1
            reason = unknown(f"K3s has no pod specification of it: the {thing} runs inside K3s")
            yield Check(f"1.1.{number}", f"{thing}'s pod specification: {what}", reason)
    idle = "no pod has an address of this host yet"
    yield Check("1.1.9", "files of the container network: 600", mode("/var/lib/cni/networks/*", 0o600, idle))
    yield Check("1.1.10", "files of the container network: root's", owner("/var/lib/cni/networks/*", idle))
    yield Check("1.1.11", "etcd's data: 700", mode(f"{SERVER}/db/etcd", 0o700, "the server has no etcd"))
    yield Check("1.1.12", "etcd's data: etcd's own user", unknown("etcd runs inside K3s, as root"))
    names = {"admin": "administrator", "scheduler": "scheduler", "controller": "controller manager"}
    for first, (file, who) in zip((13, 15, 17), names.items(), strict=True):
        path = f"{SERVER}/cred/{file}.kubeconfig"
        yield Check(f"1.1.{first}", f"kubeconfig of the {who}: 600", mode(path, 0o600))
        yield Check(f"1.1.{first + 1}", f"kubeconfig of the {who}: root's", owner(path))
    yield Check("1.1.19", "folder of keys and certificates: root's", owner(f"{SERVER}/tls*"))
    yield Check("1.1.20", "certificates: 644", mode(f"{SERVER}/tls/*.crt", 0o644))
    yield Check("1.1.21", "keys: 600", mode(f"{SERVER}/tls/*.key", 0o600))


def _api_server() -> Iterable[Check]:
    def api(name: str, test: Test, wanted: str) -> Judge:
        return flag("kube-apiserver", name, test, wanted)

    plugins = "enable-admission-plugins"
    off = "disable-admission-plugins"
    yield Check("1.2.1", "no anonymous requests", api("anonymous-auth", equals("false"), "false"))
    yield Check("1.2.2", "no file of tokens", api("token-auth-file", lambda value: value is None, "none"))
    yield Check(
        "1.2.3",
        "no external addresses of services",
        api(plugins, lists("DenyServiceExternalIPs"), "DenyServiceExternalIPs"),
    )
    yield Check("1.2.4", "certificate for kubelets", api("kubelet-client-certificate", given, "one"))
    yield Check("1.2.5", "authority of kubelets", api("kubelet-certificate-authority", given, "one"))
    yield Check("1.2.6", "not everything is allowed", api("authorization-mode", lists_none("AlwaysAllow"), "Node,RBAC"))
    yield Check("1.2.7", "nodes are authorised", api("authorization-mode", lists("Node"), "Node"))
    yield Check("1.2.8", "roles are authorised", api("authorization-mode", lists("RBAC"), "RBAC"))
    yield Check("1.2.9", "events are limited", api(plugins, lists("EventRateLimit"), "EventRateLimit"))
    yield Check("1.2.10", "not everything is admitted", api(plugins, lists_none("AlwaysAdmit"), "no AlwaysAdmit"))
    yield Check("1.2.11", "images are always pulled", api(plugins, lists("AlwaysPullImages"), "AlwaysPullImages"))
    yield Check("1.2.12", "service accounts are admitted", api(off, lists_none("ServiceAccount"), "ServiceAccount"))
    yield Check("1.2.13", "life of namespaces", api(off, lists_none("NamespaceLifecycle"), "NamespaceLifecycle"))
    yield Check("1.2.14", "nodes are restricted", api(plugins, lists("NodeRestriction"), "NodeRestriction"))
    yield Check("1.2.15", "no profiling", api("profiling", equals("false"), "false"))
    yield Check("1.2.16", "audit log", api("audit-log-path", given, "a path"))
    yield Check("1.2.17", "audit log: days", api("audit-log-maxage", at_least(30), "30"))
    yield Check("1.2.18", "audit log: files", api("audit-log-maxbackup", at_least(10), "10"))
    yield Check("1.2.19", "audit log: megabytes", api("audit-log-maxsize", at_least(100), "100"))
    yield Check("1.2.20", "requests end", api("request-timeout", lambda value: value not in ("0", "0s"), "a limit"))
    yield Check("1.2.21", "tokens are looked up", api("service-account-lookup", unset_or("true"), "true"))
    yield Check("1.2.22", "key of service accounts", api("service-account-key-file", given, "a file"))
    yield Check("1.2.23", "certificate for etcd", api("etcd-certfile", given, "a file"))
    yield Check("1.2.24", "certificate of the API", api("tls-cert-file", given, "a file"))
    yield Check("1.2.25", "authority of clients", api("client-ca-file", given, "a file"))
    yield Check("1.2.26", "authority of etcd", api("etcd-cafile", given, "a file"))
    yield Check("1.2.27", "secrets are encrypted", api("encryption-provider-config", given, "a file"))
    yield Check("1.2.28", "by a strong provider", _encryption)
    yield Check("1.2.29", "strong ciphers", api("tls-cipher-suites", strong, "a list of strong suites"))
    extended = api("service-account-extend-token-expiration", equals("false"), "false")
    yield Check("1.2.30", "tokens are not extended", extended)


def _encryption(evidence: HostEvidence) -> tuple[str, str]:
    if not evidence.encryption:
        return FAIL, "no configuration of encryption: set secrets-encryption"
    first = evidence.encryption[0]
    return (PASS if first in ("aescbc", "kms", "secretbox") else FAIL), f"the provider that writes is {first}"


def _control_plane() -> Iterable[Check]:
    def manager(name: str, test: Test, wanted: str) -> Judge:
        return flag("kube-controller-manager", name, test, wanted)

    yield Check("1.3.1", "ended pods are collected", manager("terminated-pod-gc-threshold", given, "a number"))
    yield Check("1.3.2", "no profiling", manager("profiling", equals("false"), "false"))
    accounts = manager("use-service-account-credentials", equals("true"), "true")
    yield Check("1.3.3", "an account for each controller", accounts)
    yield Check("1.3.4", "key of service accounts", manager("service-account-private-key-file", given, "a file"))
    yield Check("1.3.5", "authority for pods", manager("root-ca-file", given, "a file"))
    rotate = manager("feature-gates", lists_none("RotateKubeletServerCertificate=false"), "the default")
    yield Check("1.3.6", "kubelets' certificates are rotated", rotate)
    yield Check("1.3.7", "only this host reaches it", manager("bind-address", equals("127.0.0.1"), "127.0.0.1"))
    yield Check("1.4.1", "no profiling", flag("kube-scheduler", "profiling", equals("false"), "false"))
    local = flag("kube-scheduler", "bind-address", equals("127.0.0.1"), "127.0.0.1")
    yield Check("1.4.2", "only this host reaches it", local)
    for first, section, who in ((1, "client-transport-security", "clients"), (4, "peer-transport-security", "peers")):

        def has(*keys: str, at: str = section) -> Callable[[Mapping[str, str]], bool]:
            return lambda found: all(found.get(f"{at}.{key}") for key in keys)

        def says(key: str, value: str, default: str, at: str = section) -> Callable[[Mapping[str, str]], bool]:
            return lambda found: found.get(f"{at}.{key}", default) == value

        files = of_etcd(has("cert-file", "key-file"), f"a certificate for {who}")
        yield Check(f"2.{first}", f"etcd's certificate for {who}", files)
        asked = of_etcd(says("client-cert-auth", "true", "false"), f"{who} show certificates")
        yield Check(f"2.{first + 1}", f"{who} of etcd show certificates", asked)
        signed = of_etcd(says("auto-tls", "false", "false"), f"no self-signed certificates for {who}")
        yield Check(f"2.{first + 2}", f"no self-signed certificates for {who}", signed)
    yield Check("2.7", "etcd has an authority of its own", _etcd_authority)
    users = "who holds which credentials is known to the administrator alone"
    yield Check("3.1.1", "users have no client certificates", unknown(users))
    yield Check("3.1.2", "users have no service accounts' tokens", unknown(users))
    yield Check("3.1.3", "users have no bootstrap tokens", unknown(users))
    yield Check("3.2.1", "an audit policy", flag("kube-apiserver", "audit-policy-file", given, "a file"))
    yield Check("3.2.2", "it covers what matters", _audit)


def _etcd_authority(evidence: HostEvidence) -> tuple[str, str]:
    authority = evidence.etcd.get("client-transport-security.trusted-ca-file")
    if not authority:
        return UNKNOWN, "the cluster has no etcd of its own (SQLite, or an external database)"
    clients = evidence.arguments.get("kube-apiserver", {}).get("client-ca-file")
    return (FAIL if authority == clients else PASS), f"etcd trusts {authority}, the API trusts {clients}"


def _audit(evidence: HostEvidence) -> tuple[str, str]:
    if not evidence.audit_levels:
        return UNKNOWN, "there is no audit policy to read"
    if set(evidence.audit_levels) <= {"None"}:
        return FAIL, "the audit policy records nothing"
    return UNKNOWN, f"it records at the levels {', '.join(dict.fromkeys(evidence.audit_levels))}; what matters is yours"


def _node_files() -> Iterable[Check]:
    inside = unknown("the kubelet has no service of its own: it runs inside K3s")
    yield Check("4.1.1", "kubelet's service: 600", inside, server=False)
    yield Check("4.1.2", "kubelet's service: root's", inside, server=False)
    files = (
        (3, "kubeconfig of the proxy", f"{AGENT}/kubeproxy.kubeconfig", 0o600),
        (5, "kubeconfig of the kubelet", f"{AGENT}/kubelet.kubeconfig", 0o600),
        (7, "authority of clients", f"{AGENT}/client-ca.crt", 0o644),
        (9, "configuration of the kubelet", f"{AGENT}/etc/kubelet.conf.d/*", 0o600),
    )
    for first, text, path, allowed in files:
        yield Check(f"4.1.{first}", f"{text}: {allowed:o}", mode(path, allowed), server=False)
        yield Check(f"4.1.{first + 1}", f"{text}: root's", owner(path), server=False)


def _kubelet() -> Iterable[Check]:
    rows: tuple[tuple[str, str, str, Test, str], ...] = (
        ("no anonymous requests", "authentication.anonymous.enabled", "anonymous-auth", equals("false"), "false"),
        ("not everything is allowed", "authorization.mode", "authorization-mode", equals("Webhook"), "Webhook"),
        ("authority of clients", "authentication.x509.clientCAFile", "client-ca-file", given, "a file"),
        ("no port without authentication", "readOnlyPort", "read-only-port", unset_or("0"), "0"),
        (
            "idle streams end",
            "streamingConnectionIdleTimeout",
            "streaming-connection-idle-timeout",
            lambda value: value not in ("0", "0s"),
            "a limit",
        ),
        ("chains for iptables", "makeIPTablesUtilChains", "make-iptables-util-chains", unset_or("true"), "true"),
    )
    for number, (text, key, name, test, wanted) in enumerate(rows, 1):
        yield Check(f"4.2.{number}", text, setting(key, name, test, wanted), server=False)
    named = unknown("K3s names its nodes by --hostname-override, which is its way")
    yield Check("4.2.7", "the host's own name", named, server=False)
    yield Check(
        "4.2.8", "events are recorded", setting("eventRecordQPS", "event-qps", unset_or_number, "a rate"), server=False
    )
    certificate = setting("tlsCertFile", "tls-cert-file", given, "a file")
    yield Check("4.2.9", "certificate of the kubelet", certificate, server=False)
    rotation = setting("rotateCertificates", "rotate-certificates", unset_or("true"), "true")
    yield Check("4.2.10", "certificates are rotated", rotation, server=False)
    gate = setting("featureGates.RotateKubeletServerCertificate", "feature-gates", not_off, "it")
    yield Check("4.2.11", "serving certificates are rotated", gate, server=False)
    ciphers = setting("tlsCipherSuites", "tls-cipher-suites", strong, "a list of strong suites")
    yield Check("4.2.12", "strong ciphers", ciphers, server=False)
    pids = setting("podPidsLimit", "pod-max-pids", lambda value: value not in (None, "-1"), "a number")
    yield Check("4.2.13", "processes of a pod are limited", pids, server=False)
    seccomp = setting("seccompDefault", "seccomp-default", equals("true"), "true")
    yield Check("4.2.14", "seccomp by default", seccomp, server=False)
    metrics = flag("kube-proxy", "metrics-bind-address", unset_or_local, "127.0.0.1")
    yield Check("4.3.1", "the proxy's metrics stay on the host", metrics, server=False)


CHECKS = (*_files(), *_api_server(), *_control_plane(), *_node_files(), *_kubelet())


def judge_host(evidence: HostEvidence) -> list[Verdict]:
    """Every point that this host is judged by."""
    return [
        Verdict(check.id, check.text, *check.judge(evidence)) for check in CHECKS if evidence.server or not check.server
    ]
