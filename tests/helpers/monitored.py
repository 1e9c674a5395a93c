"""The jobs of a Prometheus that watches a real installation of inventory/local, and a load whose traces it finds."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.helpers.recordings import Recordings

HOST = "local"
# Labels of a cell, and the keys of plan.json that they come from.
LABELS = {"cell": "name", "model": "model", "engine": "engine", "accelerator": "accelerator"}
GAUGE = "# TYPE {0} gauge\n"


def plan_figures(plan: dict[str, Any], price: float) -> str:
    """What the monitoring host shows of a plan."""
    expected = "heteroserve_plan_tokens_per_second"
    lines = [GAUGE.format(expected)]
    for cell in plan["cells"]:
        labels = ",".join(f'{name}="{cell[key]}"' for name, key in LABELS.items())
        for host in cell["hosts"]:
            lines.append(f'{expected}{{{labels},host="{host}"}} {cell["expected"][-1]["tokens_per_s"]}\n')
    return "".join(
        [*lines, GAUGE.format("heteroserve_energy_price_per_kwh"), f"heteroserve_energy_price_per_kwh {price}\n"]
    )


def health_figures(plan: dict[str, Any], right: bool, checked: float) -> str:
    """What the monitoring host shows of the last health check."""
    name = "heteroserve_health_right"
    rows = [f'{name}{{cell="{one["name"]}",model="{one["model"]}"}} {int(right)}\n' for one in plan["cells"]]
    when = "heteroserve_health_checked_timestamp_seconds"
    return "".join([GAUGE.format(name), *rows, GAUGE.format(when), f"{when} {checked}\n"])


def real_jobs(plan: dict[str, Any], gateway_port: int, node_port: int, figures: Recordings) -> list[dict[str, Any]]:
    """The real targets: HAProxy, Ray and the engine of each cell, node_exporter; the plan's figures come from files."""

    def job(name: str, targets: list[tuple[str, dict[str, str]]]) -> dict[str, Any]:
        found = [{"targets": [address], "labels": {"host": HOST, **labels}} for address, labels in targets]
        return {"job_name": name, "static_configs": found}

    def of_cells(port: str) -> list[tuple[str, dict[str, str]]]:
        return [
            (f"{cell['address']}:{cell['ports'][port]}", {name: str(cell[key]) for name, key in LABELS.items()})
            for cell in plan["cells"]
        ]

    return [
        job("gateway", [(f"127.0.0.1:{gateway_port}", {})]),
        job("cells", of_cells("metrics")),
        job("engines", of_cells("serve")),
        job("node", [(f"127.0.0.1:{node_port}", {})]),
        figures.job("plan", {"plan.prom": {}}),
        figures.job("health", {"health.prom": {}}),
    ]


def recorded_jobs(recordings: Recordings) -> list[dict[str, Any]]:
    """Exporters of hardware and of a cluster that the machine has not; also the power of the machine itself."""
    return [
        recordings.job("dcgm", {"dcgm.prom": {"host": "xe9680-h100-1"}}),
        recordings.job(
            "amd", {"amd_mi300x.prom": {"host": "xe9680-mi300x-1"}, "amd_mi210.prom": {"host": "r7625-mi210"}}
        ),
        recordings.job(
            "power", {"idrac_h100.prom": {"host": "xe9680-h100-1"}, "idrac_processors.prom": {"host": HOST}}
        ),
        recordings.job("k3s", {"k3s.prom": {"host": "r7615-1"}}),
        recordings.job("kuberay", {"kuberay.prom": {"host": "r7615-1"}}),
    ]


def write_figures(folder: Path, plan: dict[str, Any]) -> Path:
    """Files that a server of recordings shows for the plan and the health check."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.prom").write_text(plan_figures(plan, price=0.25))
    (folder / "health.prom").write_text(health_figures(plan, True, time.time()))
    return folder


def load(endpoint: str, model: str, clients: tuple[int, ...], seconds: float) -> list[int]:
    """Ask with each number of clients for that long; half of the prompts share their beginning. Returns the statuses.

    One request in twenty is for a model that does not exist.
    """
    statuses: list[int] = []
    numbers = itertools.count()
    tale = "Once upon a time there was a gardener who grew roses, tulips and lilies beside the river. " * 9

    def ask(until: float) -> None:
        with httpx.Client(timeout=120) as client:
            while time.monotonic() < until:
                number = next(numbers)
                body = {
                    "model": "no-such-model" if number % 20 == 7 else model,
                    "messages": [{"role": "user", "content": tale if number % 2 else f"Name {number % 9 + 2} rivers."}],
                    "max_tokens": 16 + number % 5 * 12,
                    "stream": True,
                    "ignore_eos": bool(number % 3),
                }
                with client.stream("POST", f"{endpoint}/v1/chat/completions", json=body) as answer:
                    answer.read()
                    statuses.append(answer.status_code)

    for together in clients:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=ask, args=(until,)) for _ in range(together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return statuses
