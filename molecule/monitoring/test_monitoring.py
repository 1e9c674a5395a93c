"""Monitoring as services of hosts: what runs, who may read what, and what follows when hosts and GPUs come and go."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
import testinfra.host

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SET = os.environ.get("HETEROSERVE_TEST_SET", "0")
NETWORK = f"10.77.{SET}"
SERVER, WATCHER, OTHER = f"{NETWORK}.11", f"{NETWORK}.21", f"{NETWORK}.22"
SERVICES = {
    "server-1": ["node-exporter", "gpu-guard"],
    "agent-1": ["node-exporter", "prometheus", "alertmanager", "monitoring-exporter"],
    "agent-2": ["node-exporter"],
}
Host = testinfra.host.Host
INVENTORIES = [f"--inventory={ROOT}/molecule/inventory", f"--inventory={HERE}/inventory"]
# Stand-ins of cells have no figures of their own.
READ = ("node", "dcgm", "gateway", "health", "plan", "prometheus", "alertmanager")


def other(host: Host, name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=host.backend.ansible_inventory, sudo=True)


@pytest.fixture
def watcher(host: Host) -> Host:
    """Tests of the whole are run once, on the host that watches."""
    if host.backend.get_hostname() != "agent-1":
        pytest.skip("another host's test")
    return host


def read(host: Host, url: str) -> str:
    """What a page says to this host; "" if it says nothing."""
    code = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
    done = host.run("python3 -c %s", code)
    return str(done.stdout) if done.rc == 0 else ""


def targets(watcher: Host) -> list[dict[str, Any]]:
    found = json.loads(read(watcher, "http://127.0.0.1:9090/api/v1/targets"))
    return [target for target in found["data"]["activeTargets"] if target["labels"]["job"] in READ]


def until(true: Callable[[], Any], what: str, limit_s: float = 60) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit_s, what
        time.sleep(0.3)
    return time.monotonic() - began


def test_services_run(host: Host) -> None:
    for name in SERVICES[host.backend.get_hostname()]:
        service = host.service(f"heteroserve-{name}")
        assert service.is_running, name
        assert service.is_enabled, name


def test_the_packages_own_services_do_not(host: Host) -> None:
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"):
        assert not host.service(name).is_running
        assert not host.service(name).is_enabled


def test_every_target_is_up(watcher: Host) -> None:
    until(lambda: {target["health"] for target in targets(watcher)} == {"up"}, str(targets(watcher)))
    found = targets(watcher)
    assert {target["labels"]["host"] for target in found if target["labels"]["job"] == "node"} == set(SERVICES)
    assert {target["labels"]["host"] for target in found if target["labels"]["job"] == "dcgm"} == {"agent-2"}


def test_only_the_watching_host_reads_the_gateways_figures(watcher: Host) -> None:
    url = f"http://{SERVER}:8405/metrics"
    assert "haproxy_server_status" in read(watcher, url)
    assert read(other(watcher, "agent-2"), url) == ""


def test_prometheus_and_alertmanager_are_on_loopback_alone(watcher: Host) -> None:
    for port in (9090, 9093, 9188):
        assert read(watcher, f"http://127.0.0.1:{port}/{'plan' if port == 9188 else 'metrics'}")
        assert read(other(watcher, "agent-2"), f"http://{WATCHER}:{port}/metrics") == ""


def test_secrets_are_alertmanagers_alone(watcher: Host) -> None:
    folder = watcher.file("/etc/heteroserve/monitoring")
    assert (folder.user, folder.group, folder.mode) == ("root", "heteroserve-monitoring", 0o750)
    secret = watcher.file("/etc/heteroserve/monitoring/receiver-hook")
    assert (secret.mode, secret.content_string) == (0o640, "s3cr3t-of-the-hook")
    assert watcher.run("grep -rl s3cr3t /etc/heteroserve/monitoring /etc/systemd").stdout.split() == [secret.path]


def playbook(*words: str) -> None:
    command = ["ansible-playbook", *INVENTORIES, "playbooks/monitoring.yml", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_a_host_that_leaves_is_read_no_more_and_one_that_joins_is(watcher: Host, tmp_path: Path) -> None:
    def hosts() -> set[str]:
        return {target["labels"]["host"] for target in targets(watcher) if target["labels"]["job"] == "node"}

    (tmp_path / "retired.yml").write_text("all: {children: {retired: {hosts: {agent-2: {}}}}}\n")
    playbook(f"--inventory={tmp_path}/retired.yml", "--limit=agent-1,server-1")
    assert hosts() == {"server-1", "agent-1"}
    playbook()
    until(lambda: hosts() == set(SERVICES), "agent-2 is read again", 10)


def ask(_: int) -> str:
    asked = {"model": "org/llama", "messages": [], "seconds": 0.2}
    answer = httpx.post(f"http://{SERVER}:8080/v1/chat/completions", json=asked, timeout=30)
    return str(answer.json()["served_by"]) if answer.status_code == 200 else f"HTTP {answer.status_code}"


def shows(host: Host, recorded: str) -> None:
    """Let the stand-in of the exporter replay this."""
    code = "import sys; open('/opt/dcgm.prom', 'w').write(sys.argv[1])"
    assert host.run("python3 -c %s %s", code, recorded).rc == 0


def test_a_broken_gpu_takes_its_cell_out_and_no_request_fails(watcher: Host) -> None:
    gpu, gateway = other(watcher, "agent-2"), other(watcher, "server-1")
    until(lambda: {ask(0) for _ in range(6)} == {"llama-a", "llama-b"}, "both cells answer")
    recorded = (ROOT / "tests/fixtures/monitoring/dcgm_xid79.prom").read_text()
    recorded = recorded.replace('device="nvidia1"', 'device="nvidia1",pod="llama-b-x2x9k-head-7cqjd"')
    with ThreadPoolExecutor(8) as clients:
        running = clients.map(ask, range(120))
        shows(gpu, recorded)
        took = until(
            lambda: "llama-b" in gateway.file("/etc/heteroserve/gateway/drained").content_string, "it is drained"
        )
        answers = list(running)
    assert set(answers) == {"llama-a", "llama-b"}
    assert {ask(0) for _ in range(8)} == {"llama-a"}
    (record,) = json.loads(gateway.file("/var/lib/heteroserve/monitoring/gpu-faults.json").content_string)
    assert record["reason"].startswith(
        "GPU 1 of agent-2 is broken (XID 79: it has fallen off the bus): llama-b gets no requests"
    )
    assert record["reason"] in gateway.run("journalctl -u heteroserve-gpu-guard -o cat").stdout
    print(
        f"drained {took:.1f} s after the exporter showed it, {len(answers)} requests, none failed: {record['reason']}"
    )
    until(lambda: "CellOnFaultyGpu" in read(watcher, "http://127.0.0.1:9090/api/v1/alerts"), "the alert is raised")
    status = subprocess.run(
        ["ansible-playbook", *INVENTORIES, "playbooks/status.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert " ".join(record["reason"].split()[:8]) in " ".join(status.stdout.split())
    shows(gpu, (ROOT / "tests/fixtures/monitoring/dcgm_well.prom").read_text())
    until(lambda: {ask(0) for _ in range(6)} == {"llama-a", "llama-b"}, "it is back")
