"""Draw the dashboards without Grafana: the same JSON, the same queries to Prometheus, pictures by matplotlib.

    python -m dashboards.draw URL_OF_PROMETHEUS FOLDER [--minutes 60] [--at UNIX_TIME] [--note TEXT]

For docs/images, and to see what a Prometheus has where there is no Grafana. Needs requirements/pictures.txt.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from .check import ask, dashboards, filled

matplotlib.use("Agg")
# Grafana's dark theme, and the names of colours that panels use.
PAGE, PANEL, LINE, TEXT, DIM = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e8e8e"
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
PALETTE = (
    "#73bf69", "#fade2a", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#37872d", "#fa6400", "#e0b400",
    "#1f60c4", "#c4162a", "#8f3bb8", "#96d98d", "#ffa6b0", "#ca95e5",
)  # fmt: skip
COLUMN, ROW, GAP = 0.6, 0.34, 0.09  # inches of a unit of Grafana's grid, and between panels
DPI = 100
LEGEND_ROWS = 5
STEPS = {
    "bytes": (1024, ("B", "KiB", "MiB", "GiB", "TiB")),
    "Bps": (1000, ("B/s", "kB/s", "MB/s", "GB/s")),
    "bps": (1000, ("b/s", "kb/s", "Mb/s", "Gb/s")),
    "hertz": (1000, ("Hz", "kHz", "MHz", "GHz")),
    "watt": (1000, ("W", "kW", "MW")),
    "joule": (1000, ("J", "kJ", "MJ")),
    "short": (1000, ("", "K", "Mil", "Bil")),
}
PLAIN = {"reqps": " req/s", "ops": " ops/s", "percent": "%", "celsius": " °C"}


@dataclass(frozen=True)
class Source:
    """A Prometheus server and the time range to draw."""

    url: str
    at: float
    seconds: float

    def points(self, expr: str) -> list[dict[str, Any]]:
        """Series over the time."""
        step = max(5, round(self.seconds / 150))
        span = {"start": str(self.at - self.seconds), "end": str(self.at), "step": str(step)}
        return ask(self.url, "query_range", query=filled(expr, "1m"), **span)

    def now(self, expr: str) -> list[dict[str, Any]]:
        """Values at its end."""
        return ask(self.url, "query", query=filled(expr, "1m"), time=str(self.at))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, as Grafana writes it."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-"
    suffix = PLAIN.get(unit, "")
    if unit.startswith("suffix:"):
        suffix = unit.removeprefix("suffix:")
    elif unit == "percentunit":
        value, suffix = value * 100, "%"
    elif unit == "s":
        for least, size, name in ((86_400, 86_400, " days"), (120, 60, " min"), (1, 1, " s"), (0, 0.001, " ms")):
            if abs(value) >= least:
                value, suffix = value / size, name
                break
    elif unit in STEPS:
        base, names = STEPS[unit]
        place = 0
        while abs(value) >= base and place < len(names) - 1:
            value, place = value / base, place + 1
        suffix = f" {names[place]}".rstrip()
    if decimals is None:
        decimals = 0 if value == round(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}{suffix}"


def tick(value: float, unit: str) -> str:
    """A value at an axis: without zeros at its end."""
    return re.sub(r"(\d)\.?0*(?=\D*$)", r"\1", shown(value, unit, 2))


def name(target: dict[str, Any], metric: dict[str, str]) -> str:
    """A line's name in the legend."""
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found[1], ""), target["legendFormat"])
    return "" if text == "__auto" else re.sub(r"\s+", " ", text).strip()


def colour(value: float, steps: list[dict[str, Any]]) -> str:
    """Of the last threshold that the value reaches."""
    reached = [step["color"] for step in steps if step.get("value") is None or value >= step["value"]]
    return COLOURS[reached[-1]]


class Canvas:
    """A figure with Grafana's grid."""

    def __init__(self, rows: int) -> None:
        self.width, self.height = 24 * COLUMN + 2 * GAP, rows * ROW + 0.55
        self.figure: Figure = pyplot.figure(figsize=(self.width, self.height), dpi=DPI, facecolor=PAGE)

    def box(self, place: dict[str, int], inner: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A panel's place in the figure, less the inches that are kept free at left, right, top and bottom."""
        left, right, top, bottom = inner
        x, y = place["x"] * COLUMN + GAP + left, place["y"] * ROW + 0.4 + top
        wide = place["w"] * COLUMN - GAP - left - right
        high = place["h"] * ROW - GAP - top - bottom
        return x / self.width, 1 - (y + high) / self.height, wide / self.width, high / self.height

    def axes(self, place: dict[str, int], *inner: float) -> Axes:
        """Axes inside of a panel."""
        left, right, top, bottom = inner
        made = self.figure.add_axes(self.box(place, (left, right, top, bottom)), facecolor="none")
        for spine in made.spines.values():
            spine.set_visible(False)
        made.tick_params(colors=DIM, labelsize=7, length=0)
        return made

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words at inches from the top left."""
        self.figure.text(x / self.width, 1 - y / self.height, words, **style)

    def frame(self, place: dict[str, int], title: str) -> None:
        """The panel's ground and title."""
        x, y, wide, high = self.box(place, (0, 0, 0, 0))
        ground = FancyBboxPatch(
            (x, y), wide, high, boxstyle="square,pad=0", facecolor=PANEL, edgecolor=LINE, linewidth=0.6,
            transform=self.figure.transFigure, zorder=-1,
        )  # fmt: skip
        self.figure.add_artist(ground)
        left, top = place["x"] * COLUMN + GAP + 0.08, place["y"] * ROW + 0.4 + 0.19
        self.text(left, top, title, color=TEXT, fontsize=8.5, fontweight="bold", va="center")


def lines(canvas: Canvas, panel: dict[str, Any], source: Source) -> None:
    """Values over time, with a legend below."""
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    found = [
        (name(target, one["metric"]) or panel["title"], one["values"])
        for target in panel["targets"]
        for one in source.points(target["expr"])
    ]
    found.sort(key=lambda one: (one[0].startswith("plan"), one[0]))
    rows = min(len(found), LEGEND_ROWS)
    axes = canvas.axes(place, 0.62, 0.12, 0.36, 0.3 + 0.15 * rows)
    axes.set_xlim(source.at - source.seconds, source.at)
    axes.grid(color=LINE, linewidth=0.6)
    under: dict[float, float] = {}
    for order, (legend, values) in enumerate(found):
        tint = PALETTE[order % len(PALETTE)]
        moments = [float(moment) for moment, _ in values]
        heights = [float(value) if math.isfinite(float(value)) else math.nan for _, value in values]
        if stacked:
            base = [under.get(moment, 0.0) for moment in moments]
            heights = [height + below for height, below in zip(heights, base, strict=True)]
            axes.fill_between(moments, base, heights, color=tint, alpha=0.35, linewidth=0)
            under |= dict(zip(moments, heights, strict=True))
        planned = legend.startswith("plan")
        axes.plot(moments, heights, color=tint, linewidth=1.3, linestyle=(0, (5, 3)) if planned else "-", clip_on=False)
        if order < LEGEND_ROWS:
            top = (place["y"] + place["h"]) * ROW + 0.4 - GAP - 0.1 - 0.15 * (rows - 1 - order)
            left = place["x"] * COLUMN + GAP + 0.12
            more = f"   and {len(found) - LEGEND_ROWS} more" if order == LEGEND_ROWS - 1 < len(found) - 1 else ""
            last = shown(float(values[-1][1]), unit, decimals)
            canvas.text(left, top, "━" if not planned else "╍", color=tint, fontsize=8, va="center")
            room = round(place["w"] * COLUMN * 14)
            canvas.text(left + 0.2, top, f"{legend}   {last}{more}"[:room], color=TEXT, fontsize=7, va="center")
    low, high = defaults.get("min"), defaults.get("max")
    if low is not None:
        axes.set_ylim(bottom=low)
    if high is not None:
        axes.set_ylim(top=high)
    elif low is not None and axes.get_ylim()[1] <= low + 0.06:
        axes.set_ylim(top=low + 1)
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: tick(value, unit))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(max(3, place["w"] // 2), steps=[1, 2, 3, 6]))
    clock = "%H:%M:%S" if source.seconds < 900 else "%H:%M"
    axes.xaxis.set_major_formatter(lambda moment, _: time.strftime(clock, time.gmtime(moment)))
    if not found:
        axes.text(0.5, 0.5, "No data", color=DIM, ha="center", va="center", transform=axes.transAxes)


def number(canvas: Canvas, panel: dict[str, Any], source: Source) -> None:
    """One value, large."""
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    found = source.now(panel["targets"][0]["expr"])
    x = (place["x"] + place["w"] / 2) * COLUMN + GAP / 2
    y = (place["y"] + place["h"] / 2) * ROW + 0.5
    if not found:
        canvas.text(x, y, defaults["noValue"], color=DIM, fontsize=15, ha="center", va="center")
        return
    value = float(found[0]["value"][1])
    words = shown(value, defaults["unit"], defaults.get("decimals"))
    tint = colour(value, defaults["thresholds"]["steps"])
    size = min(26, place["w"] * COLUMN * 72 / (0.62 * max(4, len(words))))
    canvas.text(x, y, words, color=tint, fontsize=size, ha="center", va="center", fontweight="bold")


def bars(canvas: Canvas, panel: dict[str, Any], source: Source) -> None:
    """The last values, as bars beside each other."""
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    unit, decimals = defaults["unit"], defaults.get("decimals")
    found = [
        (name(target, one["metric"]) or panel["title"], float(one["value"][1]))
        for target in panel["targets"]
        for one in source.now(target["expr"])
    ]
    axes = canvas.axes(place, 0.12, 0.12, 0.36, 0.1)
    axes.set_axis_off()
    if not found:
        axes.text(0.5, 0.5, defaults["noValue"], color=DIM, ha="center", va="center", transform=axes.transAxes)
        return
    most = defaults.get("max") or max(value for _, value in found) or 1
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(found), 3), 0)
    for row, (legend, value) in enumerate(sorted(found)):
        tint = colour(value, defaults["thresholds"]["steps"])
        axes.barh(row + 0.72, 0.84, height=0.3, color=LINE, alpha=0.6)
        axes.barh(row + 0.72, 0.84 * min(1, max(0, value / most)), height=0.3, color=tint)
        axes.text(0, row + 0.36, legend, color=TEXT, fontsize=7, va="center")
        axes.text(1, row + 0.72, shown(value, unit, decimals), color=tint, fontsize=9, va="center", ha="right")


def picture(dashboard: dict[str, Any], source: Source, note: str) -> bytes:
    """The dashboard as PNG, with few colours."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    rows = max(place["y"] + place["h"] for place in places)
    canvas = Canvas(rows)
    canvas.text(GAP + 0.05, 0.22, dashboard["title"], color=TEXT, fontsize=13, fontweight="bold", va="center")
    canvas.text(canvas.width - GAP, 0.22, note, color=DIM, fontsize=7.5, ha="right", va="center")
    draw = {"timeseries": lines, "stat": number, "bargauge": bars}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            canvas.text(
                GAP + 0.05, place["y"] * ROW + 0.57, f"⌄ {panel['title']}", color=TEXT, fontsize=9.5, va="center"
            )
            continue
        canvas.frame(place, panel["title"])
        draw[panel["type"]](canvas, panel, source)
    drawn = io.BytesIO()
    canvas.figure.savefig(drawn, format="png", facecolor=PAGE)
    pyplot.close(canvas.figure)
    few = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    few.save(packed, format="png", optimize=True)
    return packed.getvalue()


def main() -> None:
    """Draw all into a folder."""
    parser = argparse.ArgumentParser(prog="dashboards.draw", description="Draw the dashboards without Grafana.")
    parser.add_argument("prometheus", help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--at", type=float, default=time.time(), help="the time at the right edge")
    parser.add_argument("--note", default="drawn by dashboards/draw.py, not by Grafana")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    source = Source(given.prometheus, given.at, given.minutes * 60)
    for dashboard in dashboards():
        path = given.folder / f"{dashboard['uid'].replace('heteroserve-', 'dashboard-')}.png"
        path.write_bytes(picture(dashboard, source, given.note))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
