"""From three bare hosts to a cluster of a server and two agents, through an upgrade, and back to bare hosts."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster, clusters
from tests.playbook_runs import changed

HERE = Path(__file__).parent
UPGRADE = "v1.34.4+k3s2"
# Lines of snapshot.sh that differ after a reset and why that is right.
EXPLAINED = {
    r"run /run/(sudo|user|screen|sshd|heteroserve)": "left by logging in, gone at the next start",
    r"file /var/lib/sudo": "left by logging in",
    r"file /var/log/": "logs tell what happened",
    r"file /var/lib/(dpkg|apt|systemd)/": "bookkeeping of packages and of systemd",
    r"file /etc/(ld\.so\.cache|mailcap|.*-)\b": "rewritten by packages that came and went",
    r"file /root/\.ansible(_async)?": "left by Ansible itself",
    r"ip6?tables (\*|COMMIT|:)": "empty built-in tables, now loaded",
    r"nft table (ip|ip6) (nat|filter|mangle|raw)": "the same empty tables, as nft shows them",
}
BEFORE: dict[str, set[str]] = {}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    for made in clusters(10, ["server-1"], ["agent-1", "agent-2"], tmp_path_factory.mktemp("one")):
        for host in [*made.servers, *made.agents]:
            BEFORE[host] = snapshot(made, host)
        yield made


def snapshot(cluster: Cluster, host: str) -> set[str]:
    return set(cluster.on(host, "bash", text=(HERE / "snapshot.sh").read_text()).splitlines())


def wait_for(check: object, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            assert callable(check)
            assert check()
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def test_check_mode_on_bare_hosts(cluster: Cluster) -> None:
    cluster.play("site.yml", "--tags", "validate,facts,plan")
    printed = cluster.play("site.yml", "--tags", "hosts,cluster", "--check", "--diff")
    assert "failed=0" in printed
    assert "k3s" not in cluster.on("server-1", "ls", "/usr/local/bin")


def test_bare_hosts_become_a_cluster(cluster: Cluster) -> None:
    began = time.monotonic()
    cluster.up()
    print(f"first run {time.monotonic() - began:.0f} s")
    assert cluster.ready() == {"server-1": True, "agent-1": True, "agent-2": True}


def test_a_second_run_changes_nothing(cluster: Cluster) -> None:
    began = time.monotonic()
    printed = cluster.up()
    print(f"second run {time.monotonic() - began:.0f} s")
    assert changed(printed) == 0, printed


def test_nodes_say_what_they_have(cluster: Cluster) -> None:
    labels = {name: node["metadata"]["labels"] for name, node in cluster.nodes().items()}
    assert labels["agent-1"]["heteroserve.io/accelerator"] == "cpu"
    assert "node-role.kubernetes.io/control-plane" in labels["server-1"]


def test_pods_talk_across_hosts(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", text=(HERE / "web.yml").read_text())
    for what in ("daemonset/each", "deployment/pair"):
        cluster.kubectl("-n", "web", "rollout", "status", what, "--timeout=120s")
    pods = json.loads(cluster.kubectl("-n", "web", "get", "pods", "-l", "app=each", "-o", "json"))["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 3
    for pod in pods:
        inside = ("-n", "web", "exec", pod["metadata"]["name"], "--")
        for other in pods:
            url = f"http://{other['status']['podIP']}:8080/"
            said = cluster.kubectl(*inside, "timeout", "10", "wget", "-q", "-O-", url)
            assert said.strip() == other["metadata"]["name"]
        cluster.kubectl(*inside, "timeout", "10", "wget", "-q", "-O-", "http://pair.web.svc.cluster.local/")
        cluster.kubectl(*inside, "nslookup", "kubernetes.default.svc.cluster.local")
    assert "pair" in cluster.kubectl("-n", "web", "get", "networkpolicies")


def test_a_pod_that_asks_for_too_much_is_refused(cluster: Cluster) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "greedy", "namespace": "web"},
        "spec": {"containers": [{"name": "a", "image": "a", "securityContext": {"privileged": True}}]},
    }
    done = subprocess.run(
        ["podman", "exec", "-i", "-e", "KUBECACHEDIR=/tmp/kube", cluster.container("server-1")]
        + ["k3s", "kubectl", "create", "-f", "-"],
        input=json.dumps(pod),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_no_secret_is_to_be_seen(cluster: Cluster) -> None:
    printed = cluster.up("-vvv")
    secrets = {path.name: path.read_text().strip() for path in (cluster.state / "secrets").iterdir() if path.is_file()}
    assert {"k3s-token", "k3s-agent-token"} <= set(secrets)
    looked_at = 0
    for name, secret in secrets.items():
        assert secret not in printed, f"{name} is in Ansible's output"
        for host in [*cluster.servers, *cluster.agents]:
            script = (
                "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -cF -f /dev/fd/3;"
                " journalctl --no-pager | grep -cF -f /dev/fd/3;"
                " find /etc /var /root /home /tmp /run /usr/local -xdev -type f -perm /044 -size -2M -print0"
                " | xargs -0 grep -lF -f /dev/fd/3 2>/dev/null | wc -l"
            )
            # The pattern comes through a file descriptor: the search must not be what it finds.
            shell = f"exec 3< <(cat /root/.pattern); {script}".replace("/dev/fd/3", "/root/.pattern")
            cluster.on(host, "sh", "-c", "umask 077; cat > /root/.pattern", text=secret)
            counts = cluster.on(host, "bash", "-c", shell, check=False).split()
            cluster.on(host, "rm", "/root/.pattern")
            assert counts == ["0", "0", "0"], f"{name} on {host}: command lines, journal, files: {counts}"
            looked_at += 1
    assert looked_at >= 6
    assert (cluster.state / "kubeconfig").stat().st_mode & 0o077 == 0


def test_an_upgrade_under_load(cluster: Cluster) -> None:
    address = cluster.kubectl("-n", "web", "get", "service", "pair", "-o", "jsonpath={.spec.clusterIP}")
    cluster.on("server-1", "sh", "-c", "cat > /root/load.py", text=(HERE / "load.py").read_text())
    command = ["podman", "exec", "-i", cluster.container("server-1"), "python3", "/root/load.py"]
    with subprocess.Popen(
        [*command, f"http://{address}/", "0.05"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        cluster.up("-e", f"k3s_version={UPGRADE}")
        result = json.loads(load.communicate("\n", timeout=60)[0])
    cluster.on("server-1", "rm", "/root/load.py")
    print(result)
    versions = {node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.nodes().values()}
    assert versions == {UPGRADE}
    assert not any(node["spec"].get("unschedulable") for node in cluster.nodes().values())
    assert result["sent"] > 100
    assert result["failed"] == 0, result
    assert "before-upgrade" in cluster.on("server-1", "k3s", "etcd-snapshot", "ls")


def test_there_is_no_way_back(cluster: Cluster) -> None:
    done = cluster.try_play("site.yml", "--tags", "hosts,cluster")
    assert done.returncode != 0
    assert f"{UPGRADE} is installed and v1.34.4+k3s1 is older: K3s cannot go back" in done.stdout
    assert changed(done.stdout) == 0


def test_reset_leaves_the_hosts_as_they_were(cluster: Cluster) -> None:
    cluster.play("playbooks/reset.yml", "-e", "reset_purge=true", "-e", f"k3s_version={UPGRADE}")
    unexplained = {}
    for host in [*cluster.servers, *cluster.agents]:
        differing = snapshot(cluster, host) ^ BEFORE[host]
        left = sorted(line for line in differing if not any(re.match(known, line) for known in EXPLAINED))
        if left:
            unexplained[host] = left
    assert not unexplained, json.dumps(unexplained, indent=1)
    assert not (cluster.state / "kubeconfig").exists()


def test_a_second_reset_changes_nothing(cluster: Cluster) -> None:
    printed = cluster.play("playbooks/reset.yml", "-e", "reset_purge=true", "-e", f"k3s_version={UPGRADE}")
    assert changed(printed) == 0, printed
