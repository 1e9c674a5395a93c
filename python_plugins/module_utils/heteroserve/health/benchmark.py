"""The command line of the benchmark, and what it printed. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

NOT_MEASURED = 2  # exit code
NOT_MET = "NOT MET"
REPORT = re.compile(r"Report: (.+)/report\.html")
# What a run keeps of a measurement, by its names in result.json.
FIGURES = {
    "tokens_per_s": "output_throughput",
    "ttft_p50_ms": "p50_ttft_ms",
    "ttft_p95_ms": "p95_ttft_ms",
    "requests": "completed",
    "failed": "failed",
}


def arguments(asked: dict[str, Any]) -> list[str]:
    """Options of ``serving.bench`` for the module's."""
    words = ["--target", asked["target"], "--profile", asked["profile"]]
    words += ["--requests", str(asked["requests"]), "--seconds", str(asked["seconds"])]
    for name, values in (("--clients", asked["clients"]), ("--rate", asked["rates"])):
        words += [name, ",".join(f"{value:g}" for value in values)] if values else []
    for name in ("model", "compare"):
        words += [f"--{name}", asked[name]] if asked[name] else []
    words += [word for each in asked["require"] for word in ("--require", each)]
    return [*words, *asked["options"]]


def missed_lines(lines: Sequence[str]) -> list[str]:
    """Requirements that are not met; that nothing was answered where none is."""
    return [line for line in lines if line.endswith(NOT_MET)] or ["no request was answered"]


def tables_of(lines: Sequence[str]) -> str:
    """From the first table on, without what was said while it ran."""
    start = next((number for number, line in enumerate(lines) if line.strip() == "Throughput"), 0)
    return "\n".join(lines[max(0, start - 2) :]).strip()


def folder_of(lines: Sequence[str]) -> str:
    """Where the benchmark says that it has put its files; nothing if it does not."""
    return next((found[1] for line in reversed(lines) if (found := REPORT.fullmatch(line))), "")


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """result.json in short, for the statistics of a run."""
    points = {
        point["label"]: {
            name: round(point[key], 1) if point.get(key) is not None else None for name, key in FIGURES.items()
        }
        for point in result["points"]
    }
    return {"endpoint": result["endpoint"], "model": result["model"], "profile": result["profile"], "points": points}
