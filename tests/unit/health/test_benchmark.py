"""The module that runs the benchmark: its command line, and what it makes of the output."""

from __future__ import annotations

from typing import Any

from heteroserve.health.benchmark import arguments, figures_of, folder_of, missed_lines, tables_of

from serving.bench.options import parse

ASKED: dict[str, Any] = {
    "target": "/state/benchmarks/target.json",
    "profile": "guide",
    "clients": [32, 256],
    "rates": [],
    "requests": 100,
    "seconds": 30,
    "model": "llama",
    "require": ["tokens_per_s>=1", "errors<=0"],
    "compare": None,
    "options": ["--temperature", "0"],
}


def test_the_command_reads_what_the_module_writes() -> None:
    asked = parse(arguments(ASKED))
    assert asked.clients == [32, 256]
    assert asked.rate is None
    assert (asked.requests, asked.seconds, asked.model, asked.temperature) == (100, 30, "llama", 0)
    assert [each.text for each in asked.require] == ASKED["require"]
    assert parse(arguments({**ASKED, "clients": [], "rates": [0.5, 2.0]})).rate == [0.5, 2.0]


def test_what_is_not_met() -> None:
    said = ["tokens_per_s>=9: 5 at 2 clients, NOT MET", "errors<=0: 0 at 2 clients, met", "Report: x"]
    assert missed_lines(said) == said[:1]
    assert missed_lines(["Report: x"]) == ["no request was answered"]


def test_tables_without_what_was_said_on_the_way() -> None:
    lines = ["32 clients: 5 s", "", "llama at http://a: guide", "", "Throughput   ", "  tokens/s"]
    assert tables_of(lines).splitlines()[0] == "llama at http://a: guide"


def test_where_the_result_is_and_what_a_run_keeps_of_it() -> None:
    assert folder_of(["32 clients: 5 s", "Report: /state/benchmarks/a b/report.html"]) == "/state/benchmarks/a b"
    assert folder_of(["Traceback"]) == ""
    point = {
        "label": "32 clients",
        "output_throughput": 812.34,
        "p50_ttft_ms": None,
        "completed": 5,
        "failed": 0,
        "x": 1,
    }
    result = {"endpoint": "http://a/v1", "model": "llama", "profile": "guide", "points": [point]}
    figures = {"tokens_per_s": 812.3, "ttft_p50_ms": None, "ttft_p95_ms": None, "requests": 5, "failed": 0}
    assert figures_of(result)["points"] == {"32 clients": figures}
