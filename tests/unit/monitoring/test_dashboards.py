"""Dashboards: fresh, in Grafana's schema, with questions that Prometheus can read and that have answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.check import Question, all_questions, ask, dashboards, filled, printed, table
from dashboards.generate import FOLDER, PAGES, files
from dashboards.panels import DOCS
from dashboards.queries import tokens
from tests.helpers.prometheus_server import PrometheusServer
from tests.helpers.recordings import FOLDER as FIXTURES
from tests.helpers.recordings import Recordings, replayed

QUESTIONS = all_questions()
SMALL = {"host": "local", "cell": "smollm2-135m-instruct-cpu-0", "model": "smollm2-135m-instruct", "engine": "vllm"}
LARGE = {"host": "xe9680-h100-1", "cell": "llama-3.1-405b-instruct-h100-0", "model": "llama-3.1-405b-instruct"}
ONNX = {"host": "r760-1", "cell": "llama-3.2-1b-instruct-cpu-0", "model": "llama-3.2-1b-instruct", "engine": "onnx"}


def named(question: Question) -> str:
    return f"{question.page}: {question.panel}"


def test_no_file_is_stale() -> None:
    made = files()
    assert {path for path in made if path.suffix == ".json"} == set(FOLDER.glob("*.json"))
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale; run: python -m dashboards.generate"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_sdk_reads_back_what_it_wrote(path: Path) -> None:
    """Every key is one of Grafana's schema: what is read into the SDK's types and written again is the same text."""
    register_default_plugins()
    text = path.read_text(encoding="utf-8")
    read = Dashboard.from_json(json.loads(text))
    assert json.dumps(read, cls=JSONEncoder, indent=1, sort_keys=True) + "\n" == text
    assert read.panels
    assert all(type(panel).__name__ in ("Panel", "RowPanel") for panel in read.panels)
    for panel in read.panels:
        if isinstance(panel, Panel):
            assert {type(target).__name__ for target in panel.targets or []} == {"Dataquery"}


@pytest.mark.parametrize("question", QUESTIONS, ids=named)
def test_an_expression_can_be_read(question: Question) -> None:
    promql_parser.parse(filled(question.expr))
    assert not re.search(r"\$(?!1\b)\w+", filled(question.expr)), "a variable that no dashboard has"


def test_panels_are_complete_and_name_no_place() -> None:
    """Each panel has words of its own, a link to its page in docs, and takes its host from the data."""
    for dashboard in dashboards():
        whole = json.dumps(dashboard)
        assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b", whole)
        assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(dashboard["panels"]) + 1))
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        titles = [(panel["title"], panel["type"]) for panel in panels]
        assert len(set(titles)) == len(titles)
        for panel in panels:
            assert len(panel["description"]) > 5
            assert [link["url"].startswith(f"{DOCS}/dashboards.md#") for link in panel["links"]] == [True]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(not re.search(r'\bhost="', target["expr"]) for target in panel["targets"])


def test_panels_do_not_overlap() -> None:
    for dashboard in dashboards():
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {
                (place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])
            }
            assert place["x"] + place["w"] <= 24, f"{dashboard['title']}: {panel['title']} is too wide"
            assert not cells & taken, f"{dashboard['title']}: {panel['title']} lies on another panel"
            taken |= cells


def test_links_lead_to_headings_of_the_page_in_docs(root: Path) -> None:
    """An anchor on GitHub is the heading's words in lower case, joined by hyphens."""
    text = (root / "docs" / "dashboards.md").read_text(encoding="utf-8")
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert {page.name for page in PAGES} <= anchors


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus that reads one recording of each exporter, under the labels that the inventory gives."""
    with Recordings() as recordings:
        jobs = [
            recordings.job("node", {"node.prom": {"host": "local"}}),
            recordings.job("dcgm", {"dcgm.prom": {"host": LARGE["host"]}}),
            recordings.job(
                "amd", {"amd_mi300x.prom": {"host": "xe9680-mi300x-1"}, "amd_mi210.prom": {"host": "r7625-mi210"}}
            ),
            recordings.job(
                "power", {"idrac_h100.prom": {"host": LARGE["host"]}, "idrac_processors.prom": {"host": "local"}}
            ),
            recordings.job("gateway", {"gateway_haproxy.prom": {"host": "local"}}),
            recordings.job(
                "cells",
                {
                    "cell_ray.prom": {**SMALL, "accelerator": "cpu"},
                    "cell_ray_vllm.prom": {**LARGE, "engine": "vllm", "accelerator": "nvidia-h100-sxm-80gb"},
                },
            ),
            recordings.job(
                "engines",
                {
                    "cell_vllm.prom": {**SMALL, "accelerator": "cpu"},
                    "cell_engine.prom": {**ONNX, "accelerator": "cpu"},
                },
            ),
            recordings.job("k3s", {"k3s.prom": {"host": "r7615-1"}}),
            recordings.job("kuberay", {"kuberay.prom": {"host": "r7615-1"}}),
            recordings.job("plan", {"plan.prom": {}}),
            recordings.job("health", {"health.prom": {}}),
        ]
        with PrometheusServer(tmp_path_factory.mktemp("prometheus"), jobs) as server:
            server.wait_for_scrapes(4)
            yield server


def test_every_expression_has_series(recorded: PrometheusServer) -> None:
    rows = table(recorded.url, "15s")
    print(printed(rows))
    assert [f"{named(question)}: {refused or 'no series'}" for question, series, refused in rows if not series] == []


def value(recorded: PrometheusServer, expr: str, **labels: str) -> float:
    """The value of the one series with these labels."""
    found = [
        one for one in ask(recorded.url, "query", query=filled(expr, "15s")) if labels.items() <= one["metric"].items()
    ]
    assert len(found) == 1, found
    return float(found[0]["value"][1])


def expression(page: str, panel: str, number: int = 0) -> str:
    """The expression of a panel."""
    return [one.expr for one in QUESTIONS if (one.page, one.panel) == (page, panel)][number]


def test_tokens_of_every_kind_of_engine_are_counted(recorded: PrometheusServer) -> None:
    found = ask(recorded.url, "query", query=filled(tokens("cell"), "15s"))
    assert {one["metric"]["cell"] for one in found} == {SMALL["cell"], LARGE["cell"], ONNX["cell"]}


def test_energy_is_shared_and_priced(recorded: PrometheusServer) -> None:
    """A host's iDRAC goes before its GPUs, and a million tokens cost their joules."""
    power = expression("Energy", "Power of each host")
    assert value(recorded, power, host=LARGE["host"]) == 2105
    assert value(recorded, power, host="local") == 412
    assert value(recorded, power, host="xe9680-mi300x-1") == 611 + 588
    model = {"model": SMALL["model"]}
    joules = value(recorded, expression("Energy", "Joules per token", 1), **model)
    rate = value(recorded, tokens("model"), **model)
    assert joules == pytest.approx(412 / rate, rel=0.05)
    cost = value(recorded, expression("Energy", "Cost of a million tokens", 1), **model)
    assert cost == pytest.approx(1e6 * joules / 3_600_000 * 0.25, rel=0.05)


def test_a_cluster_condition_is_one_or_zero(recorded: PrometheusServer) -> None:
    ready = expression("Cluster", "Ready")
    assert value(recorded, ready, name=LARGE["cell"]) == 1
    assert value(recorded, ready, name=ONNX["cell"]) == 0


def test_gateway_figures_belong_to_models(recorded: PrometheusServer) -> None:
    """HAProxy knows backends and servers; the plan says which model they are."""
    assert value(recorded, expression("Endpoint", "Requests by model"), model=SMALL["model"]) > 0


def test_throttled_gpus_are_told_from_others(recorded: PrometheusServer) -> None:
    power = expression("Host", "Throttled")
    assert value(recorded, power, gpu="0") == 0
    assert value(recorded, power, gpu="1") == 1


def test_a_recording_grows_as_counters_do() -> None:
    text = '# TYPE a counter\na{x="1 {2}"} 100\n# TYPE b gauge\nb 7\n'
    assert replayed(text, 10) == '# TYPE a counter\na{x="1 {2}"} 200.0\n# TYPE b gauge\nb 7\n'


def test_the_recordings_say_where_they_come_from() -> None:
    for path in sorted(FIXTURES.glob("*.prom")):
        assert re.match(r"# (Recorded|Written) ", path.read_text(encoding="utf-8")), path


def test_check_tells_what_is_wrong(recorded: PrometheusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Question("Host", "Broken", "sum("), Question("Host", "Dead", "nobody_has_this")]
    monkeypatch.setattr("dashboards.check.all_questions", lambda: wrong)
    rows = table(recorded.url)
    assert [series for _, series, _ in rows] == [0, 0]
    assert "parse error" in rows[0][2]
    assert rows[1][2] == ""
    assert printed(rows).endswith("2 expressions, 2 without a series")
