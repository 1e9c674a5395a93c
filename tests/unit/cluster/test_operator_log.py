"""What is read of the operator's log: each reason whole, of the right cell, and no more than is still in its way."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from heteroserve.cluster.operator_log import OperatorLog, reason
from heteroserve.serving import api as cluster

from tests.unit.serving.test_diagnosis import CELL, HANDED, REFUSED_TOKEN, STATUSES, failed_pass, reached

POD = "kuberay-operator-6d5f8c9b7-abcde"
CLUSTER = f"{CELL}-x7k2p"


def said(*pieces: str) -> tuple[str, ...]:
    """What is known of the cell after pieces of one pod's log."""
    log = OperatorLog("heteroserve")
    for piece in pieces:
        log.feed(POD, piece)
    return log.of({CELL, CLUSTER})


def test_the_reason_is_what_follows_kuberays_advice() -> None:
    assert (
        reason(HANDED.format(why="UpdateDeployments fail: 400 Bad Request x"))
        == "UpdateDeployments fail: 400 Bad Request x"
    )
    assert reason("a err: b err: c") == "c"
    assert reason("The RayService spec is\n invalid") == "The RayService spec is invalid"
    assert reason("nothing follows err: ") == "nothing follows err:"


def test_lines_of_a_cell_and_of_its_ray_cluster_count() -> None:
    pods = {
        "RayCluster": {"name": CLUSTER, "namespace": "heteroserve"},
        "ts": "2026-11-24T00:00:06Z",
        "error": "no quota",
    }
    elsewhere = {"RayService": {"name": CELL, "namespace": "other"}, "ts": "2026-11-24T00:00:07Z", "error": "x"}
    lines = (
        "I1124 00:00:00.000000       1 leaderelection.go:254] attempting to acquire leader lease...",
        json.dumps({"level": "info", "ts": "2026-11-24T00:00:01Z", "logger": "setup", "msg": "Flag", "error": "x"}),
        failed_pass(STATUSES.format(why=REFUSED_TOKEN)),
        json.dumps(pods),
        json.dumps(elsewhere),
        failed_pass("of another cell", name="other"),
        failed_pass("of another cell", name=f"{CELL}0"),
        "[]",
        "",
    )
    assert said("\n".join(lines)) == (REFUSED_TOKEN, "no quota")


def test_a_cell_among_32_is_found_however_much_the_others_say() -> None:
    """Some 3.5 lines a second each: the last 200 lines of all of them are 1.8 seconds."""
    first = failed_pass(STATUSES.format(why=REFUSED_TOKEN), at="2026-11-24T00:00:00.000Z")
    others = [
        failed_pass("dial tcp: i/o timeout", name=f"cell-{number % 31}", at=f"2026-11-24T00:00:{number / 112:06.3f}Z")
        for number in range(1, 32 * 7 * 30)
    ]
    assert said("\n".join([first, *others])) == (REFUSED_TOKEN,)


def test_pieces_may_overlap() -> None:
    lines = [failed_pass(f"error {second}", at=f"2026-11-24T00:00:0{second}.000Z") for second in range(6)]
    assert said("\n".join(lines[:4]), "\n".join(lines[2:])) == tuple(f"error {second}" for second in range(6))


def test_what_was_in_the_way_is_over_once_serve_was_reached() -> None:
    early = failed_pass("dial tcp: i/o timeout", at="2026-11-24T00:00:05.000Z")
    assert said(early, reached(at="2026-11-24T00:00:06.000Z")) == ()
    # Also where an overlapping piece brings the old line again.
    assert said("\n".join([early, reached(at="2026-11-24T00:00:06.000Z")]), early) == ()
    assert said(reached(at="2026-11-24T00:00:04.000Z"), early) == ("dial tcp: i/o timeout",)
    assert said(early, reached(name="other", at="2026-11-24T00:00:06.000Z")) == ("dial tcp: i/o timeout",)


def test_what_the_next_pass_takes_care_of_is_no_complaint() -> None:
    """Seen in normal starts with KubeRay 1.7.0."""
    assert (
        said(
            failed_pass(f'rayclusters.ray.io "{CLUSTER}" already exists'),
            failed_pass(f"found 0 head. cluster name {CLUSTER}, namespace heteroserve"),
            failed_pass(
                f'Operation cannot be fulfilled on rayservices.ray.io "{CELL}": the object has been modified; please'
                " apply your changes to the latest version and try again"
            ),
            failed_pass(f'pods "{CLUSTER}-head-9qz4m" not found'),
        )
        == ()
    )


def test_each_pod_of_the_operator_has_its_own_clock() -> None:
    log = OperatorLog("heteroserve")
    log.feed("one", failed_pass("first", at="2026-11-24T00:00:09.000Z"))
    log.feed("two", failed_pass("second", at="2026-11-24T00:00:05.000Z"))
    assert set(log.of({CELL})) == {"first", "second"}


class Logs:
    """The log of an operator's pod whose container was restarted, as the API gives it; notes what was asked for."""

    def __init__(self, previous: str, now: str) -> None:
        self.texts = {True: previous, False: now}
        self.asked: list[dict[str, Any]] = []

    def read_namespaced_pod_log(self, name: str, namespace: str, _preload_content: bool, **which: Any) -> Any:
        self.asked.append(which)
        return SimpleNamespace(data=self.texts[which["previous"]].encode())


def test_the_log_is_read_by_time_and_that_from_before_a_restart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Logs(failed_pass("lost with the old container"), failed_pass("later", at="2026-11-24T00:00:30.000Z"))
    for name, given in {"connect": None, "dynamic": None}.items():
        monkeypatch.setattr(cluster, name, lambda *_, given=given: given)
    api = SimpleNamespace(CoreV1Api=lambda _: logs, ApiextensionsV1Api=lambda _: None, ApiException=OSError)
    monkeypatch.setattr(cluster, "kubernetes", lambda: api)
    pod: dict[str, Any] = {"metadata": {"name": POD}, "status": {"containerStatuses": [{"name": "a", "state": {}}]}}
    seen = cluster.Cluster("", "heteroserve", "kuberay-operator")
    seen._operator_said([pod], {CELL}, time.time() - 60)
    assert [one["previous"] for one in logs.asked] == [False]
    assert 60 <= logs.asked[0]["since_seconds"] <= 62
    assert all("tail_lines" not in one for one in logs.asked)

    ended = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"finishedAt": ended, "exitCode": 1}}
    seen = cluster.Cluster("", "heteroserve", "kuberay-operator")
    assert seen._operator_said([pod], {CELL}, time.time() - 60) == ("lost with the old container", "later")
    assert [one["previous"] for one in logs.asked[1:]] == [True, False]
    # From then on only what is new.
    seen._operator_said([pod], {CELL}, time.time() - 60)
    assert logs.asked[-1]["since_seconds"] <= 3
