"""Targets follow from inventory and plan; the configuration names every job once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heteroserve.monitoring import prometheus, sizing
from heteroserve.monitoring.exposition import parse, render
from heteroserve.monitoring.plan_metrics import HELP, samples
from heteroserve.monitoring.targets import JOBS, Host, Wanted, targets


def cell(name: str, host: str, ports: dict[str, int]) -> dict[str, Any]:
    return {
        "name": name, "model": "llama", "engine": "vllm", "accelerator": "nvidia-h100", "vendor": "nvidia",
        "pool": "llama-h100", "build": "vllm-cuda", "start_s": 900, "hosts": [host], "address": f"10.0.0.{host[-1]}",
        "ports": ports, "replicas": [{"hosts": [host], "devices": [[0, 1]]}],
        "expected": [{"concurrency": 1, "tokens_per_s": 90.0}, {"concurrency": 256, "tokens_per_s": 9000.0}],
    }  # fmt: skip


HOSTS = {
    "gpu-1": Host("10.0.0.1", ("serving",), ("nvidia",), "10.9.0.1"),
    "amd-2": Host("10.0.0.2", ("serving",), ("amd",)),
    "s-3": Host("10.0.0.3", ("k3s_server", "gateway")),
    "m-4": Host("10.0.0.4", ("monitoring",)),
}
PLAN = {"cells": [cell("llama-0", "gpu-1", {"serve": 30000, "dashboard": 30001})]}
WANTED = Wanted("m-4", HOSTS, PLAN)


def addresses(wanted: Wanted) -> dict[str, list[str]]:
    return {
        job: [address for group in groups for address in group["targets"]] for job, groups in targets(wanted).items()
    }


def test_every_host_and_cell_is_read() -> None:
    found = addresses(WANTED)
    assert found["node"] == ["10.0.0.2:9100", "10.0.0.1:9100", "10.0.0.4:9100", "10.0.0.3:9100"]
    assert (found["dcgm"], found["amd"]) == (["10.0.0.1:9400"], ["10.0.0.2:5000"])
    assert found["gateway"] == found["usage"] == ["10.0.0.3:8405"]
    assert (found["cells"], found["engines"]) == (["10.0.0.1:30001"], ["10.0.0.1:30000"])
    assert (found["k3s"], found["kuberay"], found["power"]) == ([], [], [])
    assert found["plan"] == found["health"] == ["127.0.0.1:9188"]


def test_labels_name_host_and_cell() -> None:
    (found,) = targets(WANTED)["cells"]
    assert found["labels"] == {
        "host": "gpu-1", "cell": "llama-0", "model": "llama", "engine": "vllm", "accelerator": "nvidia-h100",
    }  # fmt: skip
    assert all(
        "host" in group["labels"] for job, groups in targets(WANTED).items() for group in groups if job != "kuberay"
    )


def test_under_ray_a_cell_has_a_port_for_its_figures() -> None:
    plan = {"cells": [cell("llama-0", "gpu-1", {"serve": 18000, "metrics": 18004, "dashboard": 18001})]}
    assert addresses(replace(WANTED, plan=plan))["cells"] == ["10.0.0.1:18004"]


def test_a_gateway_on_the_monitoring_host_is_read_on_loopback() -> None:
    hosts = {"one": Host("10.0.0.1", ("serving", "gateway", "monitoring"))}
    assert addresses(Wanted("one", hosts, PLAN))["gateway"] == ["127.0.0.1:8405"]


def test_of_k3s_servers_and_nodes_are_read() -> None:
    found = targets(replace(WANTED, cluster=True, power=True))
    assert [(group["targets"], group["labels"]["component"]) for group in found["k3s"]] == [
        (["10.0.0.2:10250"], "kubelet"), (["10.0.0.2:10250"], "cadvisor"),
        (["10.0.0.1:10250"], "kubelet"), (["10.0.0.1:10250"], "cadvisor"),
        (["10.0.0.3:6443"], "server"), (["10.0.0.3:10250"], "kubelet"), (["10.0.0.3:10250"], "cadvisor"),
    ]  # fmt: skip
    assert found["kuberay"][0]["labels"]["__metrics_path__"].endswith("/services/kuberay-operator:8080/proxy/metrics")
    assert found["power"][0]["labels"]["__metrics_path__"] == "/power"


def test_a_host_that_has_left_is_gone() -> None:
    hosts = {name: host for name, host in HOSTS.items() if name != "amd-2"}
    found = addresses(replace(WANTED, hosts=hosts))
    assert "10.0.0.2:9100" not in found["node"]
    assert found["amd"] == []


def test_the_configuration_has_each_job_once() -> None:
    found = prometheus.configuration(prometheus.Settings("/etc/m"))["scrape_configs"]
    assert tuple(job["job_name"] for job in found) == JOBS
    assert found[0]["file_sd_configs"] == [{"files": ["/etc/m/targets/node.json"]}]
    by_name = {job["job_name"]: job for job in found}
    assert {name for name, job in by_name.items() if job.get("honor_labels")} == {"plan", "health", "power"}
    assert by_name["k3s"]["authorization"] == {"credentials_file": "/etc/m/k3s-token"}


def test_the_plan_as_metrics() -> None:
    text = render(samples(PLAN, {"gpu-1": {"0": 700.0}}, 0.25), HELP)
    found = {sample.name: sample for sample in parse(text)}
    assert found["heteroserve_plan_tokens_per_second"].value == 9000
    assert found["heteroserve_plan_requests"].value == 256
    assert found["heteroserve_plan_cell_info"].labels["host"] == "gpu-1"
    assert (found["heteroserve_plan_gpus"].value, found["heteroserve_energy_price_per_kwh"].value) == (2, 0.25)
    assert found["heteroserve_gpu_watts_limit"].labels == {"host": "gpu-1", "gpu": "0"}
    assert "price" not in render(samples(PLAN, {}, 0), HELP)


def test_more_hosts_and_longer_need_more() -> None:
    one = sizing.size(targets(WANTED), len(HOSTS), 15, 30)
    longer = sizing.size(targets(WANTED), len(HOSTS), 15, 60)
    assert longer.disk_bytes > 1.9 * one.disk_bytes
    assert longer.memory_bytes == one.memory_bytes
    assert sizing.size({job: [{}] * 300 for job in JOBS}, 300, 15, 30).series > 100 * one.series / 2


def test_labels_survive_writing_and_reading() -> None:
    odd = {"reason": 'a "quoted" \\ path\nand a line', "empty": ""}
    from heteroserve.monitoring.exposition import Sample

    (found,) = parse(render([Sample("heteroserve_gpu_fault", 1.5, odd)], {"heteroserve_gpu_fault": "x"}))
    assert (found.labels, found.value) == (odd, 1.5)
