"""The benchmark's files: what is in them, and that the page needs nothing beside it."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from serving.bench import plots, report, screen
from serving.bench.compare import differences
from serving.bench.records import Tally
from serving.bench.verdict import judge, requirement
from tests.helpers.bench_samples import point, result


class Page(HTMLParser):
    """Collects what a page would load, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in ("script", "link", "iframe", "img"):
            self.loads.append(tag)
        self.loads += [
            str(found[name])
            for name in ("src", "href", "xlink:href")
            if name in found and not str(found[name]).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def written(folder: Path, *points: object, notes: tuple[str, ...] = (), guide: bool = True) -> str:
    made = result(*points, notes=notes)  # type: ignore[arg-type]
    judged = judge([requirement("tokens_per_s>=1"), requirement("errors<=0")], made["points"])
    other = [point(2, output_throughput=made["points"][0]["output_throughput"] / 2)]
    report.write(folder, made, differences(made["points"], other), judged, guide)
    return (folder / "report.html").read_text()


def test_the_page_holds_everything_itself(tmp_path: Path) -> None:
    text = written(tmp_path, point(2), point(8), notes=("A <b>note</b>.",))
    page = Page()
    page.feed(text)
    assert page.loads == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    words = " ".join(" ".join(page.words).split())
    for said in ("Benchmark of llama", "A <b>note</b>.", "tokens_per_s>=1", "NOT MET", "HTTP 503", "+100.0 %"):
        assert said in words
    for title in ("Throughput", "Times", "Errors", "Compared", "Beside the guide's published results"):
        assert title in words
    assert "12x A100 + 4x H100" in words
    assert text.count("<svg") == 3


def test_without_the_guides_load_its_rows_are_left_out(tmp_path: Path) -> None:
    assert "12x A100" not in written(tmp_path, point(2), guide=False)


def test_what_is_measured_is_drawn(tmp_path: Path) -> None:
    cells = [{"cell": "llama-a", "requests": 3, "share": 0.75}, {"cell": "llama-b", "requests": 1, "share": 0.25}]
    prediction = {"tokens_per_s": 40.0, "time_per_output_token_ms": 10.0, "time_to_first_token_ms": None}
    text = written(tmp_path, point(2, cells=cells, joules_per_token=2.5, prediction=prediction), point(8))
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {"throughput", "latency", "percentiles", "cells", "energy"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    assert "75.0 %" in text
    assert "the plan expects" in text
    assert "joules per token" in text


def test_files_have_vllms_names(tmp_path: Path) -> None:
    written(tmp_path, point(2), point(None, rate=2.5))
    found = json.loads((tmp_path / "2-clients.json").read_text())
    for key in ("duration", "completed", "failed", "output_throughput", "median_ttft_ms", "p99_itl_ms", "std_e2el_ms"):
        assert isinstance(found[key], (int, float))
    assert (tmp_path / "2.5-requests-per-s.json").exists()
    whole = json.loads((tmp_path / "result.json").read_text())
    assert [each["met"] for each in whole["verdict"]] == [True, True, False, False]
    assert len(whole["points"]) == 2


def test_nothing_answered_still_makes_a_report(tmp_path: Path) -> None:
    text = written(tmp_path, point(2, completed=0, output_throughput=0.0))
    assert "<svg" not in text
    assert "HTTP 503" in text


def test_plots_are_the_same_again() -> None:
    first, second = (plots.svg(plots.throughput([point(2), point(8)])) for _ in range(2))
    assert first == second


def test_tables_on_the_screen() -> None:
    out = io.StringIO()
    made = result(point(2), point(8), notes=("Something to know.",))
    screen.print_result(Console(file=out, width=132), made, [], judge([requirement("errors<=0")], made["points"]), True)
    told = out.getvalue()
    for said in ("Throughput", "2 clients", "8 clients", "HTTP 503", "Something to know.", "NOT MET", "8x A100"):
        assert said in told


@pytest.mark.parametrize(
    ("value", "said"), [(None, "-"), (0.0012, "0.001"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_digits(value: float | None, said: str) -> None:
    assert screen.digits(value) == said


def test_running_figures_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(screen, "PLAIN_EVERY_S", 0.0)
    with screen.Progress(Console(file=out, width=132)) as progress:
        progress.show("32 clients", Tally(done=10, failed=1, tokens=2560, open=32, events=3000), 10.0)
    assert out.getvalue() == (
        "32 clients: 10 s, 10 answered, 32 open, 1 failed, 1.0 requests/s, 256 tokens/s, now 300 deltas/s\n"
    )


def test_the_line_for_status(tmp_path: Path) -> None:
    said = report.summary(result(point(2, output_throughput=1234.5)), tmp_path)
    assert said == f"2026-11-29 20:00, llama: 1,234 tokens/s at 2 clients; {tmp_path}/report.html"
