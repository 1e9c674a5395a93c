"""The share of each cell and the power of a measurement."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.bench import sources
from serving.bench.sources import Meter, Shares
from tests.helpers.stub_http import StubHandler

METRICS = """\
# HELP haproxy_server_http_responses_total Total number of HTTP responses returned by the server since start.
# TYPE haproxy_server_http_responses_total counter
haproxy_server_http_responses_total{proxy="model-llama",server="llama-a",code="2xx"} %d
haproxy_server_http_responses_total{proxy="model-llama",server="llama-a",code="5xx"} 1
haproxy_server_http_responses_total{proxy="model-llama",server="llama-b",code="2xx"} %d
haproxy_server_http_responses_total{proxy="large",server="large",code="2xx"} 99
"""


def test_answers_of_each_server() -> None:
    assert sources.server_requests(METRICS % (30, 10)) == {"llama-a": 31, "llama-b": 10}


def test_shares_are_of_what_was_counted_between() -> None:
    found = sources.shares({"a": 100, "b": 50, "other": 0}, {"a": 130, "b": 60, "other": 9}, ["a", "b"])
    assert found == [{"cell": "a", "requests": 30, "share": 0.75}, {"cell": "b", "requests": 10, "share": 0.25}]


def test_a_gateway_that_was_restarted_counts_from_zero() -> None:
    (found,) = sources.shares({"a": 1000}, {"a": 30}, [])
    assert found["requests"] == 30


def test_counters_that_start_over() -> None:
    assert sources.rapl_joules([1e6, 9e6], [3e6, 1e6], [1e7, 1e7]) == pytest.approx(4)


def test_packages_and_not_their_parts(tmp_path: Path) -> None:
    for name, energy in (("intel-rapl:0", "5"), ("intel-rapl:0:0", "5"), ("intel-rapl:1", "x"), ("other", "5")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "energy_uj").write_text(energy)
        (folder / "max_energy_range_uj").write_text("1000")
    assert sources.rapl_packages(tmp_path) == [(tmp_path / "intel-rapl:0" / "energy_uj", 1000.0)]


def test_watts_of_nvidia_smi() -> None:
    assert sources.nvidia_watts("312.5\n[N/A]\n 100 W\n") == pytest.approx(412.5)


def test_power_is_asked_for_the_models_hosts() -> None:
    (_, expression) = sources.PARTS[0]
    asked = sources.power_query(expression, ["xe9680-1"], 12)
    assert asked == 'sum(avg_over_time(DCGM_FI_DEV_POWER_USAGE{host=~"xe9680\\\\-1"}[30s]))'
    assert sources.power_query(expression, [], 90.4) == "sum(avg_over_time(DCGM_FI_DEV_POWER_USAGE[90s]))"
    amd = sources.power_query(sources.PARTS[1][1], ["a"], 60)
    assert amd == ('sum(avg_over_time({__name__=~"(?i:gpu_package_power|gpu_average_package_power)",host=~"a"}[60s]))')


def test_a_machine_without_readings_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "POWERCAP", tmp_path)
    monkeypatch.setattr(sources, "rapl_packages", list)
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    meter = Meter(None, here=True)
    meter.begin()
    assert meter.end() is None
    assert meter.why_not == f"{tmp_path} has no reading for this user, and this machine has no nvidia-smi"
    away = Meter(None, here=False)
    away.begin()
    assert away.end() is None
    assert "on another machine" in away.why_not


def test_gpus_and_processors_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counter = tmp_path / "energy_uj"
    counter.write_text("1000000")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 100.0\necho 50.0\n")
    program.chmod(0o755)
    monkeypatch.setattr(sources, "rapl_packages", lambda: [(counter, 1e9)])
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(program))
    meter = Meter(None, here=True)
    meter.begin()
    sources.time.sleep(0.3)
    counter.write_text("4000000")
    found = meter.end()
    assert found is not None
    assert found.source == "RAPL (processors) and nvidia-smi (GPUs)"
    assert found.joules == pytest.approx(3 + 150 * found.joules / found.watts, rel=0.01)


@contextmanager
def served(metrics: list[str], values: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """HAProxy's metrics, one text after another, and a Prometheus that knows these expressions by their first word."""

    class Handler(StubHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/metrics":
                self.send_whole(200, metrics.pop(0).encode(), "text/plain")
                return
            (asked,) = parse_qs(parts.query)["query"]
            found = next((rows for word, rows in values.items() if word in asked), [])
            self.send_whole(200, json.dumps({"status": "success", "data": {"result": found}}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_shares_from_the_gateway() -> None:
    with served([METRICS % (30, 10), METRICS % (60, 20)], {}) as url:
        found = Shares(statistics=url, cells=["llama-a", "llama-b"])
        found.begin()
        assert [(cell["cell"], cell["share"]) for cell in found.end()] == [("llama-a", 0.75), ("llama-b", 0.25)]


def test_shares_from_a_prometheus() -> None:
    rows = [{"metric": {"server": "llama-a"}, "value": [0, "7"]}]
    with served([], {"haproxy_server_http_responses_total": rows}) as url:
        assert Shares(prometheus=url).read() == {"llama-a": 7.0}


def test_no_gateway_is_said() -> None:
    nobody = Shares(statistics="http://127.0.0.1:9")
    nobody.begin()
    assert nobody.end() == []
    assert "http://127.0.0.1:9 cannot be read" in nobody.why_not


@pytest.mark.parametrize(
    ("values", "watts", "source"),
    [
        ({"idrac": 900.0, "DCGM": 500.0}, 900.0, "iDRAC (whole servers)"),
        ({"DCGM": 500.0, "rapl": 100.0}, 600.0, "DCGM (NVIDIA GPUs) and RAPL (processors)"),
    ],
)
def test_power_from_a_prometheus(values: dict[str, float], watts: float, source: str) -> None:
    rows = {word: [{"metric": {}, "value": [0, str(value)]}] for word, value in values.items()}
    with served([], rows) as url:
        meter = Meter(url, here=False, hosts=["a"])
        meter.begin()
        found = meter.end()
    assert found is not None
    assert (found.watts, found.source) == (watts, source)


def test_a_prometheus_without_power_says_so() -> None:
    with served([], {}) as url:
        meter = Meter(url, here=False)
        meter.begin()
        assert meter.end() is None
        assert meter.why_not == f"the Prometheus at {url} has no power of GPUs or processors"
