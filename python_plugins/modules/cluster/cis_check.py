#!/usr/bin/python
"""Ansible module: the points of the CIS Kubernetes Benchmark, on a host or on the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cis_check
short_description: Check a K3s host or cluster against the CIS Kubernetes Benchmark 1.12
description:
  - On a host it judges sections 1 to 4 by files (modes, owners), by the arguments that K3s logs when it starts its
    components (or that processes of a component show) and by the kubelet's and etcd's configuration.
  - With O(kubeconfig), on the controller, it judges section 5 through the API and joins it with O(hosts) to one table.
  - Each point passes, fails, or cannot be judged here, with the reason. Changes nothing and never fails for a verdict.
options:
  server: {description: Whether the host is a server., type: bool, default: false}
  kubeconfig: {description: File with the way to the API., type: path}
  hosts: {description: "For each host its C(checks), to be joined.", type: dict, default: {}}
  default_level: {description: Level of PodSecurity that a server has found., type: str, default: ""}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check the host
  cis_check:
    server: true
  register: judged
"""

RETURN = r"""
checks: {description: "For each point id, text, verdict, reason (and hosts).", returned: success, type: list}
default_level: {description: Level that PodSecurity enforces by default., returned: success, type: str}
counts: {description: Points by verdict., returned: success, type: dict}
report: {description: The table., returned: with kubeconfig, type: str}
"""

import json
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.api import connect, kubernetes
from ansible.module_utils.heteroserve.cluster.cis.cluster import ClusterEvidence, judge_cluster
from ansible.module_utils.heteroserve.cluster.cis.host import AGENT, SERVER, FileState, HostEvidence, judge_host
from ansible.module_utils.heteroserve.cluster.cis.report import arguments_of, flatten, joined, report

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
LOOKED_AT = (
    f"{SERVER}/db/etcd",
    f"{SERVER}/tls",
    f"{AGENT}/kubeproxy.kubeconfig",
    f"{AGENT}/kubelet.kubeconfig",
    f"{AGENT}/client-ca.crt",
)
FOLDERS = (f"{SERVER}/cred", f"{SERVER}/tls", f"{AGENT}/etc/kubelet.conf.d")


def state_of(path: Path) -> FileState:
    """Mode and owner; numbers where a user has no name."""
    found = path.lstat()
    try:
        owner, group = getpwuid(found.st_uid).pw_name, getgrgid(found.st_gid).gr_name
    except KeyError:
        owner, group = str(found.st_uid), str(found.st_gid)
    return FileState(stat.S_IMODE(found.st_mode), owner, group)


def files() -> dict[str, FileState]:
    """Every file that a point looks at."""
    paths = [Path(path) for path in LOOKED_AT]
    for folder in FOLDERS:
        paths += [path for path in Path(folder).glob("*") if not path.is_symlink()]
    # Each address of a pod is a file; the lock beside them is not one.
    paths += [path for path in Path("/var/lib/cni/networks").glob("*/*") if path.is_file() and path.name != "lock"]
    return {str(path): state_of(path) for path in paths if path.exists()}


def processes() -> dict[str, list[str]]:
    """Arguments of components that are processes of their own."""
    found: dict[str, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        for name in COMPONENTS:
            if name in (Path(words[0]).name, words[1] if len(words) > 1 else ""):
                found[name] = words
    return found


def arguments(module: AnsibleModule, unit: str) -> dict[str, dict[str, str]]:
    """Arguments of each component: of its process, or as K3s logged them at its last start."""
    found = {name: arguments_of(words) for name, words in processes().items()}
    for name in COMPONENTS:
        if name in found:
            continue
        pattern = f"Running {name} "
        command = ["journalctl", "--unit", unit, "--output=cat", "--no-pager", f"--grep={pattern}", "--lines=1"]
        _, out, _ = module.run_command(command)
        line = next((line for line in reversed(out.splitlines()) if pattern in line), "")
        if line:
            found[name] = arguments_of(line.partition(pattern)[2].rstrip('"').split())
    return found


def text_of(path: str) -> str:
    """A file's text; empty where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def evidence_of(module: AnsibleModule, server: bool) -> tuple[HostEvidence, str]:
    """What the host shows, and the default level of PodSecurity."""
    found = arguments(module, "k3s" if server else "k3s-agent")
    api = found.get("kube-apiserver", {})
    kubelet: dict[str, str] = {}
    for path in sorted(Path(f"{AGENT}/etc/kubelet.conf.d").glob("*.conf")):
        kubelet.update(flatten(path.read_text()))
    etcd = text_of(f"{SERVER}/db/etcd/config") or text_of(f"{SERVER}/db/etcd/config.yaml")
    try:
        encryption = json.loads(text_of(api.get("encryption-provider-config", "")) or "{}")
    except ValueError:
        encryption = {}
    providers = [name for item in encryption.get("resources", []) for one in item["providers"] for name in one]
    admission = re.search(r"enforce[\"']?: *[\"']?(\w+)", text_of(api.get("admission-control-config-file", "")))
    levels = re.findall(r"level[\"']?: *[\"']?(\w+)", text_of(api.get("audit-policy-file", "")))
    evidence = HostEvidence(server, files(), found, kubelet, flatten(etcd), providers, levels)
    return evidence, admission[1] if admission else ""


def cluster(kubeconfig: str, default_level: str) -> ClusterEvidence:
    """Objects that section 5 looks at."""
    connection = connect(kubeconfig)
    core, client = kubernetes().CoreV1Api(connection), kubernetes()

    def plain(items: Iterable[Any]) -> list[Any]:
        return [connection.sanitize_for_serialization(item) for item in items]

    return ClusterEvidence(
        plain(core.list_namespace().items),
        plain(core.list_pod_for_all_namespaces().items),
        plain(core.list_service_account_for_all_namespaces().items),
        plain(client.NetworkingV1Api(connection).list_network_policy_for_all_namespaces().items),
        plain(client.RbacAuthorizationV1Api(connection).list_cluster_role_binding().items),
        default_level,
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "bool", "default": False},
            "kubeconfig": {"type": "path"},
            "hosts": {"type": "dict", "default": {}},
            "default_level": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    if not asked["kubeconfig"]:
        evidence, level = evidence_of(module, asked["server"])
        checks = [asdict(verdict) for verdict in judge_host(evidence)]
        counts = Counter(check["verdict"] for check in checks)
        module.exit_json(changed=False, checks=checks, default_level=level, counts=dict(counts))
    whole = [asdict(verdict) for verdict in judge_cluster(cluster(asked["kubeconfig"], asked["default_level"]))]
    table = joined({**asked["hosts"], "cluster": {"checks": whole}})
    module.exit_json(
        changed=False,
        checks=table,
        counts=dict(Counter(check["verdict"] for check in table)),
        report=report(table),
    )


if __name__ == "__main__":
    main()
