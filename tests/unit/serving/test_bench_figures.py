"""The benchmark's figures, its verdict, comparison and predictions: pure functions over records and results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from serving.bench.compare import differences, read_result
from serving.bench.prediction import GUIDE, at, comparable, predict
from serving.bench.statistics import at_once, details, faults, figures, per_second, spread, while_all_ask
from serving.bench.verdict import judge, requirement
from tests.helpers.bench_samples import point, record


def test_percentiles_are_those_of_vllm() -> None:
    found = spread("ttft", [0.001 * number for number in range(1, 101)])
    # Linear between two values: rank 0.95 * 99 = 94.05 of 0 to 99.
    assert found["p95_ttft_ms"] == pytest.approx(95.05)
    assert found["p99_ttft_ms"] == pytest.approx(99.01)
    assert found["median_ttft_ms"] == found["p50_ttft_ms"] == pytest.approx(50.5)
    assert found["mean_ttft_ms"] == pytest.approx(50.5)


def test_figures_of_two_answers_and_an_error() -> None:
    records = [
        record(0, sent=10.0, first=0.5, gap=0.1, tokens=11, due=9.99),
        record(1, sent=11.0, first=0.3, gap=0.2, tokens=6),
        record(2, sent=11.5, first=0.1, fault="HTTP 503"),
    ]
    found = figures(records, 10.0, 2)
    assert found["completed"] == 2
    assert found["failed"] == 1
    assert found["total_output_tokens"] == 17
    assert found["duration"] == pytest.approx(2.3)  # until the second's last token: 11 + 0.3 + 5 * 0.2
    assert found["output_throughput"] == pytest.approx(17 / 2.3)
    assert found["mean_e2el_ms"] == pytest.approx((1500 + 1300) / 2)
    assert found["mean_ttft_ms"] == pytest.approx(400)
    assert found["mean_tpot_ms"] == pytest.approx(150)
    assert found["mean_itl_ms"] == pytest.approx((10 * 100 + 5 * 200) / 15)
    assert found["mean_lateness_ms"] == pytest.approx(10 / 3)
    assert found["achieved_rate"] == pytest.approx(2 / 1.5)
    assert found["errors_by_kind"] == {"HTTP 503": {"count": 1, "first": "HTTP 503 said"}}
    assert found["max_concurrent_requests"] == 2  # the third was sent when the first had ended
    assert sum(found["tokens_per_second"]) == pytest.approx(17)


def test_tokens_that_come_together_are_counted_by_usage() -> None:
    several = record(tokens=8)
    several.events, several.output_tokens = 8, 64
    found = figures([several], 0.0, 1)
    assert found["tokens_per_delta"] == 8
    assert sum(per_second([several], 0.0)) == pytest.approx(64)
    assert found["mean_tpot_ms"] == pytest.approx(1000 * 0.07 / 63)


def test_nothing_answered_has_no_times_and_divides_by_nothing() -> None:
    found = figures([record(fault="no connection")], 0.0, 1)
    assert found["completed"] == 0
    assert found["output_throughput"] == 0
    assert found["mean_output_tokens"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_the_end_cut_off_is_no_error() -> None:
    found = figures([record(), record(1, fault="unfinished")], 0.0, 2)
    assert (found["completed"], found["failed"], found["unfinished"]) == (1, 0, 1)
    assert faults([record(fault="unfinished")]) == {}


def test_the_end_of_a_closed_loop_is_left_out() -> None:
    # Two clients, answers of a second one after another; then one of them has nothing more to do.
    records = [record(number, sent=float(number // 2), first=0.1, gap=0.1, tokens=10) for number in range(6)]
    records.append(record(6, sent=3.0, first=0.1, gap=0.1, tokens=10))
    assert while_all_ask(records, 2, 0.0) == pytest.approx(6 * 10 / 3)
    assert while_all_ask(records[:3], 2, 0.0) is None


def test_requests_at_once() -> None:
    assert at_once([record(0, sent=0.0), record(1, sent=0.05), record(2, sent=5.0)]) == 2


def test_vllms_lists_have_an_entry_for_each_request() -> None:
    found = details([record(tokens=3), record(1, fault="cut")])
    assert found["output_lens"] == [3, 0]
    assert found["errors"] == ["", "cut: cut said"]
    assert [len(gaps) for gaps in found["itls"]] == [2, 0]


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("tokens_per_s>=1", [True, True]),
        ("tokens_per_s@2>=1e", None),
        ("tokens_per_s@8<1", [False]),
        ("errors<=1", [True, True]),
        ("errors<=0", [False, False]),
        ("error_rate<=0.2", [True, True]),
        ("latency_p95_s<0.3", [True, True]),
        ("ttft_p99_ms<=99", [False, False]),
        ("joules_per_token<=5", [False, False]),
        ("tokens_per_s@64>=1", [False]),
    ],
)
def test_requirements(text: str, met: list[bool] | None) -> None:
    if met is None:
        with pytest.raises(ValueError, match="expected NAME>=NUMBER"):
            requirement(text)
        return
    found = judge([requirement(text)], [point(2), point(8)])
    assert [each.met for each in found] == met
    assert all(str(each).endswith("NOT MET") != each.met for each in found)


def test_an_unknown_figure_is_named_with_what_is_near() -> None:
    with pytest.raises(ValueError, match="there is no figure 'token_per_s'; did you mean tokens_per_s"):
        requirement("token_per_s>=1")
    with pytest.raises(ValueError, match="known are achieved_rate"):
        requirement("zzz>=1")


def test_nothing_answered_meets_no_time() -> None:
    empty = point(2, completed=0)
    assert [each.met for each in judge([requirement("ttft_p95_ms<=500")], [empty])] == [False]


def test_compared_with_vllms_own_result(tmp_path: Path) -> None:
    ours = point(2)
    theirs = {
        "max_concurrency": 2,
        "request_rate": "inf",
        "output_throughput": ours["output_throughput"] / 2,
        "median_ttft_ms": 200.0,
        "p95_e2el_ms": 100.0,
    }
    (tmp_path / "vllm.json").write_text(json.dumps(theirs))
    found = {each.name: each for each in differences([ours], read_result(tmp_path / "vllm.json"))}
    assert found["tokens/s"].change == "+100.0 %"
    assert found["tokens/s"].better is True
    assert found["first token p50 ms"].change == "-50.0 %"
    assert found["first token p50 ms"].better is True
    assert found["latency p95 ms"].better is False
    assert differences([point(4)], read_result(tmp_path / "vllm.json")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "has no output_throughput"),
        ('{"points": []}', "no result"),
    ],
)
def test_what_is_no_result_is_refused(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=says):
        read_result(path)


def cell(name: str, tokens: float, weight: int = 100, seats: int = 256) -> dict[str, Any]:
    expected = [
        {"concurrency": n, "tokens_per_s": tokens * n, "time_per_output_token_s": 0.01, "time_to_first_token_s": 0.05}
        for n in (1, 16, 256)
    ]
    return {
        "name": name,
        "model": "llama",
        "weight": weight,
        "expected": expected,
        "limits": {"max_num_seqs": seats},
        "replicas": [{}],
    }


def test_a_model_is_expected_to_do_what_its_cells_do_together() -> None:
    plan = {"cells": [cell("a", 10), cell("b", 5), {**cell("c", 99), "model": "other"}]}
    found = predict(plan, "llama", 32)
    assert found is not None
    assert found.tokens_per_s == pytest.approx(16 * 10 + 16 * 5)
    assert found.time_per_output_token_ms == pytest.approx(10)
    assert found.time_to_first_token_ms == pytest.approx(50)
    assert predict(plan, "unknown", 32) is None


def test_more_clients_than_seats_add_nothing() -> None:
    found = predict({"cells": [cell("a", 10, seats=16)]}, "llama", 256)
    assert found is not None
    assert found.tokens_per_s == pytest.approx(160)
    assert math.isnan(found.time_to_first_token_ms)


def test_between_and_beyond_what_the_plan_has() -> None:
    expected = cell("a", 10)["expected"]
    assert at(expected, 4)["tokens_per_s"] == pytest.approx(40)
    assert at(expected, 0.5)["tokens_per_s"] == pytest.approx(5)
    assert at(expected, 1000)["tokens_per_s"] == pytest.approx(2560)


def test_expectations_are_for_their_lengths_alone() -> None:
    plan = {"prompt_tokens": 32, "output_tokens": 256}
    assert comparable(plan, 27, 256) is None
    assert "32 tokens asked, not for 1730" in (comparable(plan, 1730, 256) or "")
    assert "256 tokens answered, not for 128" in (comparable(plan, 27, 128) or "")


def test_the_guides_rows_grow_with_replicas() -> None:
    rows = [row for row in GUIDE if row.clients == 32]
    assert [row.replicas for row in rows] == [1, 2, 3, 4]
    assert rows[-1].tokens_per_s / rows[0].tokens_per_s == pytest.approx(3.0, abs=0.01)
