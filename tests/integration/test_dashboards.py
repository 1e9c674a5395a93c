"""Every expression of every dashboard, asked of a Prometheus that watches a real installation under load."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from heteroserve.common import processes

from dashboards.check import FOLDER, ask, dashboards, filled, printed, table
from tests.helpers.monitored import load, real_jobs, recorded_jobs, write_figures
from tests.helpers.prometheus_server import PrometheusServer, free_port, program
from tests.helpers.recordings import Recordings

from .conftest import Installation, installation

pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.long("5 minutes; tests/unit/monitoring asks the same of recordings of the same processes"),
]
BASE = 19200
CLIENTS = (1, 4, 16, 24, 8)  # more than the cell has slots, so that some wait
EACH_S = 30


@pytest.fixture(scope="module")
def stack(root: Path, scratch: Path) -> Iterator[Installation]:
    made = installation(root, scratch / "dashboards", BASE)
    made.up()
    yield made
    made.run("down")
    processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


@pytest.fixture(scope="module")
def node_exporter() -> Iterator[int]:
    """The port of a real node_exporter."""
    port = free_port()
    command = [program("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield port
        process.terminate()


@pytest.fixture(scope="module")
def watched(stack: Installation, node_exporter: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has seen the load."""
    folder, plan = tmp_path_factory.mktemp("watched"), stack.plan()
    figures = write_figures(folder / "figures", plan)
    with Recordings() as recordings, Recordings(figures) as own:
        jobs = [*real_jobs(plan, stack.ports["gateway_stats_port"], node_exporter, own), *recorded_jobs(recordings)]
        with PrometheusServer(folder, jobs, every_s=5, port=BASE + 95) as server:
            server.wait_for_scrapes(1)
            statuses = load(stack.gateway, plan["models"][0]["name"], CLIENTS, EACH_S)
            assert set(statuses) == {200, 404}
            assert statuses.count(200) > 50
            time.sleep(6)
            yield server.url


def test_no_expression_is_empty(watched: str) -> None:
    rows = table(watched, "1m")
    print(printed(rows))
    assert [(one.page, one.panel, refused) for one, series, refused in rows if not series] == []


def test_the_real_cell_was_measured(watched: str, stack: Installation) -> None:
    """Not only recordings: the cell's tokens, times and memory, the gateway's and the machine's figures."""
    cell = stack.plan()["cells"][0]["name"]
    checks = {
        ("Models and cells", "Tokens a second against the plan"): (1, 1000),
        ("Models and cells", "First token, p95"): (0.01, 120),
        ("Models and cells", "Prefix hits"): (0.01, 1),
        ("Models and cells", "Start-up time"): (5, 600),
        ("Energy", "Tokens per watt of each cell"): (0.001, 10),
    }
    panels = {(page["title"], panel["title"]): panel for page in dashboards(FOLDER) for panel in page["panels"]}
    for place, (least, most) in checks.items():
        expr = filled(panels[place]["targets"][0]["expr"], "2m")
        found = {one["metric"]["cell"]: float(one["value"][1]) for one in ask(watched, "query", query=expr)}
        assert least < found[cell] < most, (place, found)
