"""Time of the cluster stage beside the plainest way to the same cluster: a script that copies, writes and starts.

    python tests/bench/bench_cluster.py

Both run in turn on the same three test hosts. The script is what somebody would type who knows every address and
checks nothing: no checksums, no hardening, no drain, no second run.
"""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import time
from pathlib import Path

from heteroserve.common.table import table

from tests.cluster.conftest import ROOT, Cluster, missing

SET = 40
RELEASE = ROOT / ".cache/testcluster/airgap/v1.34.4+k3s1"
SSH = [
    "-i",
    str(ROOT / ".cache/testcluster/ssh_key"),
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
]
UNIT = """[Service]
Type=notify
KillMode=process
Delegate=yes
LimitNOFILE=20000
ExecStart=/usr/local/bin/k3s {role}
"""


def timed(cluster: Cluster, *tags: str) -> float:
    began = time.monotonic()
    cluster.play("site.yml", "--tags", ",".join(tags))
    return time.monotonic() - began


def by_script(cluster: Cluster) -> float:
    """Seconds until all nodes are Ready, hosts in parallel where one can."""
    began = time.monotonic()
    token = secrets.token_hex(16)
    server = cluster.servers[0]
    hosts = [server, *cluster.agents]

    def ssh(host: str, script: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["ssh", *SSH, f"admin@{cluster.address(host)}", "sudo", "sh", "-s"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin
        process.stdin.write(script.encode())
        process.stdin.close()
        return process

    copies = [
        subprocess.Popen(
            [
                "scp",
                "-q",
                *SSH,
                str(RELEASE / "k3s"),
                str(RELEASE / "k3s-airgap-images-amd64.tar.zst"),
                f"admin@{cluster.address(host)}:/tmp/",
            ],
            stderr=subprocess.DEVNULL,
        )
        for host in hosts
    ]
    assert all(copy.wait(300) == 0 for copy in copies)
    for group in ([server], cluster.agents):
        started = []
        for host in group:
            role, unit = ("server", "k3s") if host == server else ("agent", "k3s-agent")
            where = "cluster-init: true" if host == server else f"server: https://{cluster.address(server)}:6443"
            started.append(
                ssh(
                    host,
                    f"""set -e
mkdir -p /etc/rancher/k3s /var/lib/rancher/k3s/agent/images
install /tmp/k3s /usr/local/bin/k3s
mv /tmp/k3s-airgap-images-amd64.tar.zst /var/lib/rancher/k3s/agent/images/
printf 'token: {token}\\n{where}\\nnode-ip: {cluster.address(host)}\\n' > /etc/rancher/k3s/config.yaml
cat > /etc/systemd/system/{unit}.service <<'U'
{UNIT.format(role=role)}U
systemctl daemon-reload
systemctl start {unit}
""",
                )
            )
        assert all(process.wait(300) == 0 for process in started)
    while len(ready := cluster.ready()) < len(hosts) or not all(ready.values()):
        time.sleep(1)
    return time.monotonic() - began


def main() -> None:
    fault = missing()
    if fault:
        raise SystemExit(fault)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(SET, Path(folder) / "inventory", ["server-1"], ["agent-1", "agent-2"])
        cluster.write()
        rows = []
        try:
            cluster.remove_hosts()
            cluster.make_hosts()
            before = timed(cluster, "validate", "facts", "plan")
            hosts = timed(cluster, "hosts")
            first = timed(cluster, "cluster")
            cluster.remove_hosts()
            cluster.make_hosts()
            script = by_script(cluster)
        finally:
            cluster.remove_hosts()
        rows = [
            ["validate, facts, plan", f"{before:.0f} s", ""],
            ["hosts (checks, kernel, firewall)", f"{hosts:.0f} s", ""],
            ["cluster, first run", f"{first:.0f} s", f"{first / script:.2f}"],
            ["the script", f"{script:.0f} s", "1"],
        ]
        print(table(["STAGE", "TIME", "OF THE SCRIPT"], rows, {1, 2}))


if __name__ == "__main__":
    main()
