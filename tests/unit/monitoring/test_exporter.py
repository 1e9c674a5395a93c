"""HeteroServe's own exporter: the known-answer check and iDRACs, both answered by stand-ins over HTTP."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from heteroserve.health.endpoint import Target
from heteroserve.monitoring import checks, daemon
from heteroserve.monitoring.driver_versions import samples as driver_samples
from heteroserve.monitoring.exporter import Health, Power
from heteroserve.monitoring.exposition import parse

from tests.helpers.stub_http import StubHandler

RECORDED = Path(__file__).parents[2] / "fixtures/monitoring/idrac.json"
LOGIN = "Basic " + base64.b64encode(b"monitor:calvin").decode()


class Handler(StubHandler):
    """An iDRAC that answers what was recorded, and a cell that says what the test wants."""

    says = "The capital of France is Paris."

    def do_GET(self) -> None:
        recorded = json.loads(RECORDED.read_text())
        known = self.headers["Authorization"] == LOGIN and self.path in recorded
        self.send_whole(200 if known else 401, json.dumps(recorded.get(self.path, {})).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not Handler.says:
            self.send_whole(503, b'{"error": {"message": "no cell"}}')
            return
        answer = {"choices": [{"message": {"content": Handler.says}}], "usage": {"completion_tokens": 7}}
        self.send_whole(200, json.dumps(answer).encode())


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()


def health(url: str) -> Health:
    target = {"model": "llama", "url": url, "chat": True, "questions": [["What is the capital of France?", "Paris"]]}
    targets = [{**target, "name": "llama-0"}, {**target, "name": "endpoint"}]
    return Health({"targets": targets, "hosts": {"llama-0": "gpu-1"}, "timeout_s": 5, "key_file": "", "interval_s": 60})


@pytest.mark.parametrize(
    ("says", "right", "answered"),
    [("The capital of France is Paris.", 1, 1), ("It is Lyon.", 0, 1), ("", 0, 0)],
)
def test_verdicts_are_metrics(
    server: str,
    says: str,
    right: int,
    answered: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Handler, "says", says)
    asked = health(server)
    asked.look()
    found = {(sample.name, sample.labels["cell"]): sample for sample in parse(asked.text)}
    for cell, host in (("llama-0", "gpu-1"), ("", "")):
        assert found["heteroserve_health_right", cell].value == right
        assert found["heteroserve_health_right", cell].labels == {"cell": cell, "model": "llama", "host": host}
        assert found["heteroserve_health_answered", cell].value == answered
        assert found["heteroserve_health_checked_timestamp_seconds", cell].value > 1e9
    printed = capsys.readouterr().out
    assert ("It is Lyon" in printed) == (says == "It is Lyon.")
    asked.look()
    assert capsys.readouterr().out == ""  # told once


def test_a_verdict_that_changes_is_told() -> None:
    target = Target("llama-0", "llama", "", True, ())
    known: dict[str, str] = {}
    assert checks.news(known, [checks.Verdict(target, True, "", 0, 0)]) == []
    assert checks.news(known, [checks.Verdict(target, True, "it said Lyon", 0, 0)]) == ["llama-0 (llama): it said Lyon"]
    assert checks.news(known, [checks.Verdict(target, True, "", 0, 0)]) == ["llama-0 (llama): answers rightly again"]


def idracs(folder: Path, **hosts: str) -> Power:
    (folder / "password").write_text("calvin\n")
    return Power({"hosts": hosts, "user": "monitor", "password_file": str(folder / "password"), "interval_s": 60})


def test_an_idrac_is_read(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = idracs(tmp_path, **{"gpu-1": server, "gpu-2": "http://127.0.0.1:9"})
    asked.look()
    found: dict[str, list[Any]] = {}
    for sample in parse(asked.text):
        found.setdefault(sample.name, []).append((sample.labels.get("host"), sample.labels.get("id"), sample.value))
    assert found["idrac_power_control_consumed_watts"] == [("gpu-1", "0", 2105)]
    assert found["idrac_power_control_capacity_watts"] == [("gpu-1", "0", 5600)]
    assert found["idrac_power_supply_input_watts"] == [("gpu-1", "0", 1095)]  # the other one has none
    assert found["idrac_power_supply_health"] == [("gpu-1", "0", 0), ("gpu-1", "1", 2)]
    assert found["idrac_sensors_temperature"] == [("gpu-1", "0", 23)]
    assert found["idrac_exporter_up"] == [("gpu-1", None, 1), ("gpu-2", None, 0)]
    assert "gpu-2: its iDRAC at http://127.0.0.1:9 does not answer" in capsys.readouterr().out
    assert "calvin" not in asked.text


def test_pages_are_served_and_others_are_not() -> None:
    import urllib.error
    import urllib.request

    made = daemon.serve("127.0.0.1", 0, {"/plan": lambda: "heteroserve_plan_gpus 1\n"})
    url = f"http://127.0.0.1:{made.server_address[1]}"
    with urllib.request.urlopen(f"{url}/plan") as response:
        assert (response.read(), response.headers["Content-Type"][:10]) == (b"heteroserve_plan_gpus 1\n", "text/plain")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{url}/other")
    made.shutdown()


def test_what_goes_wrong_is_said_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    stop, calls = threading.Event(), []

    def act() -> None:
        calls.append(1)
        if len(calls) == 2:
            stop.set()
        raise ValueError("no such thing")

    daemon.every(0.01, act, stop)
    assert len(calls) == 2
    assert capsys.readouterr().out.count("ValueError: no such thing") == 2


@pytest.mark.parametrize(("installed", "mismatch"), [("570.1.2", 0.0), ("580.3.4", 1.0)])
def test_another_driver_than_the_one_that_runs_is_noticed(tmp_path: Path, installed: str, mismatch: float) -> None:
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("570.1.2\n")
    library = tmp_path / "usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    (library / f"libnvidia-ml.so.{installed}").touch()
    (library / "libnvidia-ml.so.1").touch()
    (found,) = driver_samples(tmp_path)
    assert (found.value, found.labels["loaded"], found.labels["installed"]) == (mismatch, "570.1.2", installed)
    assert list(driver_samples(tmp_path / "none")) == []
