"""The files of a result: result.json, each measurement in vLLM's shape, a page, plots, and a line for status."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from serving.bench import plots, screen
from serving.bench.compare import Difference
from serving.bench.verdict import Judgement


def numbers_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """Columns that hold numbers alone."""
    width = len(rows[0]) if rows else 0
    return [
        column
        for column in range(1, width)
        if all(not row[column] or row[column] == "-" or row[column][0] in "0123456789+-" for row in rows)
        and any(row[column] for row in rows)
    ]


def page(
    result: Mapping[str, Any],
    drawings: Mapping[str, str],
    found: Sequence[Difference],
    judged: Sequence[Judgement],
    guide: bool,
) -> str:
    """The page's text: nothing beside it is needed."""
    points = result["points"]
    best = max(points, key=lambda point: point["output_throughput"])
    tiles = [
        (f"{best['output_throughput']:,.0f}", f"tokens/s at {best['label']}"),
        (f"{sum(point['completed'] for point in points):,}", "requests answered"),
        (f"{sum(point['failed'] for point in points):,}", "failed"),
    ]
    if best["completed"]:
        tiles.append((f"{best['p95_ttft_ms']:,.0f} ms", f"first token p95 at {best['label']}"))
    if best["joules_per_token"]:
        tiles.append((f"{best['joules_per_token']:.2f} J", f"per token at {best['label']}"))
    tables = [
        (title, head, rows)
        for title, (head, rows) in (
            ("Throughput", screen.throughput_rows(points)),
            ("Times", screen.time_rows(points)),
            ("Errors", screen.error_rows(points)),
            ("Share of each cell", screen.cell_rows(points)),
            ("Compared", screen.difference_rows(found)),
            ("Beside the guide's published results", screen.guide_rows(points) if guide else ([], [])),
        )
        if rows
    ]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return made.get_template("report.html.j2").render(
        result=result,
        tiles=tiles,
        plots=drawings,
        tables=tables,
        numbers={title: numbers_of(rows) for title, _, rows in tables},
        judged=judged,
    )


def summary(result: Mapping[str, Any], folder: Path) -> str:
    """One line for status."""
    figures = ", ".join(f"{point['output_throughput']:,.0f} tokens/s at {point['label']}" for point in result["points"])
    return f"{result['date'][:16]}, {result['model']}: {figures}; {folder / 'report.html'}"


def write(
    folder: Path,
    result: Mapping[str, Any],
    found: Sequence[Difference],
    judged: Sequence[Judgement],
    guide: bool,
) -> None:
    """Write all files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {**result, "verdict": [{"requirement": str(each), "met": each.met} for each in judged]}
    (folder / "result.json").write_text(json.dumps(whole, indent=2) + "\n")
    for point in result["points"]:
        name = point["label"].replace(" ", "-").replace("/", "-per-")
        (folder / f"{name}.json").write_text(json.dumps(point) + "\n")
    drawn = plots.drawn(result["points"])
    for name, figure in drawn.items():
        (folder / f"{name}.png").write_bytes(plots.png(figure))
    drawings = {name: plots.svg(figure) for name, figure in drawn.items()}
    (folder / "report.html").write_text(page(result, drawings, found, judged, guide))
