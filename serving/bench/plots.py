"""The report's plots, as PNG files and as SVG for the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Hues that stay apart for colour-blind readers (after Okabe and Ito), as in the plan's page.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#9467bd", "#c28e00", "#56b4e9", "#b3446c", "#6b7a8f")
SIZE, DPI = (6.4, 3.8), 110
Point = Mapping[str, Any]
_PLAIN = FuncFormatter(lambda value, _: f"{value:,g}")


def _axes(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(_PLAIN)
    return figure, axes


def _levels(points: Sequence[Point]) -> tuple[list[float], str]:
    """Where measurements stand on the axis across, and what that axis is."""
    if all(point["clients"] for point in points):
        return [float(point["clients"]) for point in points], "clients"
    if all(point["rate"] for point in points):
        return [float(point["rate"]) for point in points], "requests/s sent"
    return [float(number) for number in range(len(points))], "measurement"


def _mark(axes: Axes, levels: Sequence[float]) -> None:
    if len(levels) > 1 and min(levels) > 0:
        axes.set_xscale("log")
    axes.set_xticks(levels, labels=[f"{level:,g}" for level in levels])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)


def throughput(points: Sequence[Point]) -> Figure:
    """Tokens/s against concurrency, beside the plan's expectation."""
    levels, across = _levels(points)
    figure, axes = _axes("Throughput", across, "tokens/s")
    axes.plot(levels, [point["output_throughput"] for point in points], "o-", color=COLOURS[0], label="measured")
    steady = [(at, point["steady_output_throughput"]) for at, point in zip(levels, points, strict=True)]
    if any(value for _, value in steady):
        kept = [(at, value) for at, value in steady if value]
        axes.plot(*zip(*kept, strict=True), "s--", color=COLOURS[5], label="while all clients ask")
    expected = [
        (at, point["prediction"]["tokens_per_s"])
        for at, point in zip(levels, points, strict=True)
        if point["prediction"]
    ]
    if expected:
        axes.plot(*zip(*expected, strict=True), "^:", color=COLOURS[1], label="the plan expects")
    _mark(axes, levels)
    axes.legend(frameon=False)
    return figure


def latency(points: Sequence[Point]) -> Figure:
    """Latency of whole answers against concurrency."""
    levels, across = _levels(points)
    figure, axes = _axes("Latency of whole answers", across, "seconds")
    for part, colour in zip(("p50", "p90", "p95", "p99"), COLOURS, strict=False):
        axes.plot(levels, [point[f"{part}_e2el_ms"] / 1000 for point in points], "o-", color=colour, label=part)
    _mark(axes, levels)
    axes.legend(frameon=False)
    return figure


def percentiles(points: Sequence[Point]) -> Figure:
    """First token, time per token and gaps: percentiles of each measurement."""
    figure = Figure(figsize=(12.8, 3.6), layout="constrained")
    panels = (("ttft", "First token"), ("tpot", "Time per token"), ("itl", "Gaps"))
    for number, (key, title) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.grid(alpha=0.25, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(_PLAIN)
        width = 0.8 / len(points)
        for place, point in enumerate(points):
            heights = [point[f"{part}_{key}_ms"] for part in ("p50", "p90", "p95", "p99")]
            across = [part + (place - (len(points) - 1) / 2) * width for part in range(4)]
            axes.bar(across, heights, width, color=COLOURS[place % len(COLOURS)], label=point["label"])
        axes.set_xticks(range(4), labels=["p50", "p90", "p95", "p99"])
        if number == 1:
            axes.set_ylabel("milliseconds")
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False)
    return figure


def over_time(points: Sequence[Point]) -> Figure:
    """Tokens that came in each second."""
    figure, axes = _axes("Tokens in each second", "seconds", "tokens/s")
    for place, point in enumerate(points):
        axes.plot(point["tokens_per_second"], color=COLOURS[place % len(COLOURS)], label=point["label"], linewidth=1.2)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def cells(points: Sequence[Point]) -> Figure:
    """Share of each cell in each measurement."""
    figure, axes = _axes("Share of each cell", "", "percent of the answers")
    names = sorted({cell["cell"] for point in points for cell in point["cells"]})
    labels = [point["label"] for point in points]
    below = [0.0] * len(points)
    for place, name in enumerate(names):
        parts = [100 * sum(cell["share"] for cell in point["cells"] if cell["cell"] == name) for point in points]
        axes.bar(labels, parts, 0.5, bottom=below, color=COLOURS[place % len(COLOURS)], label=name)
        below = [one + other for one, other in zip(below, parts, strict=True)]
    axes.set_ylim(0, 105)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def energy(points: Sequence[Point]) -> Figure:
    """Joules per token where power was measured."""
    measured = [point for point in points if point["joules_per_token"]]
    levels, across = _levels(measured)
    figure, axes = _axes("Energy", across, "joules per token")
    axes.plot(levels, [point["joules_per_token"] for point in measured], "o-", color=COLOURS[2])
    _mark(axes, levels)
    return figure


def drawn(points: Sequence[Point]) -> dict[str, Figure]:
    """All plots that there are figures for, by their names."""
    answered = [point for point in points if point["completed"]]
    if not answered:
        return {}
    found = {
        "throughput": throughput(answered),
        "latency": latency(answered),
        "percentiles": percentiles(answered),
    }
    if any(len(point["tokens_per_second"]) > 2 for point in answered):
        found["over-time"] = over_time(answered)
    if any(point["cells"] for point in answered):
        found["cells"] = cells([point for point in answered if point["cells"]])
    if any(point["joules_per_token"] for point in answered):
        found["energy"] = energy(answered)
    return found


def png(figure: Figure) -> bytes:
    """A plot as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def svg(figure: Figure) -> str:
    """A plot as an SVG element, with its text as text."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "heteroserve", "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]
