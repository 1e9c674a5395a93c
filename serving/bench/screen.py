"""What a person sees while it runs and at its end: rich on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from serving.bench.compare import Difference
from serving.bench.prediction import GUIDE
from serving.bench.records import Tally
from serving.bench.verdict import Judgement

PLAIN_EVERY_S = 5.0
NOW_S = 2.0  # over which "now" is
Point = Mapping[str, Any]


class Progress:
    """Running figures: one line that changes, or a line every few seconds where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._said = time.monotonic()
        self._before_s = self._now = 0.0
        self._before = Tally()
        self._label = ""

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, label: str, tally: Tally, seconds: float) -> None:
        """Show a measurement's figures so far: rates of whole answers, and the deltas that come now."""
        if label != self._label or seconds < self._before_s:
            self._label, self._before, self._before_s, self._now = label, Tally(), 0.0, 0.0
        if seconds - self._before_s >= NOW_S:
            self._now = (tally.events - self._before.events) / (seconds - self._before_s)
            self._before, self._before_s = tally, seconds
        line = (
            f"{label}: {max(0.0, seconds):.0f} s, {tally.done} answered, {tally.open} open, {tally.failed} failed,"
            f" {tally.done / max(seconds, 0.1):,.1f} requests/s, {tally.tokens / max(seconds, 0.1):,.0f} tokens/s,"
            f" now {self._now:,.0f} deltas/s"
        )
        if self._live:
            self._live.update(line)
        elif time.monotonic() - self._said >= PLAIN_EVERY_S:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._said = time.monotonic()

    def done(self, point: Point) -> None:
        """Say what a measurement found."""
        self._console.print(
            f"{point['label']}: {point['output_throughput']:,.1f} tokens/s, {point['completed']} answered,"
            f" {point['failed']} failed in {point['duration']:.0f} s",
            highlight=False,
            soft_wrap=True,
        )


def digits(value: float | None, none: str = "-") -> str:
    """A number with three digits that say something, more only before the point."""
    if value is None:
        return none
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def shown(value: float | None, form: str = ",.1f", none: str = "-") -> str:
    """A number, or a dash."""
    return none if value is None else format(value, form)


# Heading, key, and divisor to what is printed.
TIMES = (
    ("latency s", "e2el", 1000),
    ("first token ms", "ttft", 1),
    ("time per token ms", "tpot", 1),
    ("gap ms", "itl", 1),
)
PARTS = ("p50", "p90", "p95", "p99")


def throughput_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Throughput of every measurement beside the plan's expectation."""
    head = [
        "",
        "tokens/s",
        "plan expects",
        "while all ask",
        "requests/s",
        "answered",
        "failed",
        "unfinished",
        "late p99 ms",
    ]
    power = any(point.get("joules_per_token") for point in points)
    rows = []
    for point in points:
        expected = point.get("prediction") or {}
        rows.append(
            [
                point["label"],
                shown(point["output_throughput"]),
                shown(expected.get("tokens_per_s")),
                shown(point["steady_output_throughput"]),
                shown(point["request_throughput"], ",.2f"),
                str(point["completed"]),
                str(point["failed"]),
                str(point["unfinished"]),
                shown(point["p99_lateness_ms"]),
                *([shown(point["joules_per_token"], ",.2f")] if power else []),
            ]
        )
    return [*head, *(["J/token"] if power else [])], rows


def time_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Percentiles of every measurement."""
    head = ["", "", *PARTS, "plan expects"]
    expectations = {"ttft": "time_to_first_token_ms", "tpot": "time_per_output_token_ms"}
    rows = []
    for point in points:
        for number, (heading, key, divisor) in enumerate(TIMES):
            expected = (point.get("prediction") or {}).get(expectations.get(key, ""))
            values = [digits(point[f"{part}_{key}_ms"] / divisor if point["completed"] else None) for part in PARTS]
            rows.append([point["label"] if not number else "", heading, *values, digits(expected, "")])
    return head, rows


def guide_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """The guide's published rows, ours first."""
    head = ["model", "hardware", "replicas", "clients each", "tokens/s", "latency p95 s"]
    ours = [
        [
            point["model_id"],
            "this endpoint",
            "",
            f"{point['clients']} in all",
            shown(point["output_throughput"]),
            shown(point["p95_e2el_ms"] / 1000 if point["completed"] else None),
        ]
        for point in points
        if point["clients"]
    ]
    theirs = [
        [
            row.model,
            row.hardware,
            str(row.replicas),
            str(row.clients or "-"),
            f"{row.tokens_per_s:,.1f}",
            f"{row.p95_latency_s:g}",
        ]
        for row in GUIDE
    ]
    return head, ours + theirs


def error_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Errors by kind."""
    rows = [
        [point["label"], kind, str(found["count"]), found["first"]]
        for point in points
        for kind, found in point["errors_by_kind"].items()
    ]
    return ["", "error", "number", "the first said"], rows


def cell_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Requests of each cell."""
    rows = [
        [point["label"], cell["cell"], f"{cell['requests']:,}", f"{100 * cell['share']:.1f} %"]
        for point in points
        for cell in point.get("cells") or []
    ]
    return ["", "cell", "requests", "share"], rows


def difference_rows(found: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    """Two runs side by side."""
    rows = [[each.label, each.name, f"{each.ours:,.4g}", f"{each.theirs:,.4g}", each.change] for each in found]
    return ["", "figure", "this run", "the other", "change"], rows


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of rich, numbers to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column, heading in enumerate(head):
        text = any(row[column] and not row[column][0].isdigit() and row[column] != "-" for row in rows)
        made.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def print_result(
    console: Console, result: Mapping[str, Any], found: Sequence[Difference], judged: Sequence[Judgement], guide: bool
) -> None:
    """The tables at the end."""
    points = result["points"]
    console.print(
        f"\n{result['model']} at {result['endpoint']}: {result['workload']['description']}\n", highlight=False
    )
    console.print(table("Throughput", *throughput_rows(points)))
    console.print()
    console.print(table("Times", *time_rows(points)))
    for title, (head, rows) in (
        ("Errors", error_rows(points)),
        ("Share of each cell", cell_rows(points)),
        ("Compared", difference_rows(found)),
    ):
        if rows:
            console.print()
            console.print(table(title, head, rows))
    if guide:
        console.print()
        console.print(table("Beside the guide's published results", *guide_rows(points)))
    for note in (*result["notes"], *map(str, judged)):
        console.print(f"\n{note}", highlight=False, soft_wrap=True)
