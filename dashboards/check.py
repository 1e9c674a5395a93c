"""Ask a Prometheus every question of every dashboard: how many series does each have?

    python -m dashboards.check http://127.0.0.1:9090

Prints a table, and fails if an expression cannot be read or has no series. Standard library only.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "roles" / "grafana" / "files"
LABEL_VALUES = re.compile(r"label_values\((?P<series>.+), *(?P<label>\w+)\)")


@dataclass(frozen=True)
class Question:
    """One expression of a dashboard; ``panel`` is "$NAME" for a variable."""

    page: str
    panel: str
    expr: str
    legend: str = ""


def filled(expr: str, window: str = "5m") -> str:
    """An expression as Grafana sends it with "All" chosen in every variable."""
    return re.sub(r"\$(model|cell|host)\b", ".*", expr.replace("$__rate_interval", window))


def questions(dashboard: dict[str, Any]) -> Iterator[Question]:
    """Every expression of a dashboard's JSON, its variables first."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found, f"{dashboard['title']}: ${variable['name']} is no label_values()"
            yield Question(
                dashboard["title"], f"${variable['name']}", f"group by ({found['label']}) ({found['series']})"
            )
    for panel in dashboard["panels"]:
        for target in panel.get("targets") or []:
            yield Question(dashboard["title"], panel["title"], target["expr"], target["legendFormat"])


def dashboards(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The JSON of all dashboards."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def all_questions(folder: Path = FOLDER) -> list[Question]:
    """Those of every dashboard."""
    return [question for dashboard in dashboards(folder) for question in questions(dashboard)]


def ask(prometheus: str, path: str, **parameters: str) -> list[dict[str, Any]]:
    """The result of a query. Raises ``ValueError`` with Prometheus' own words if it refuses the expression."""
    url = f"{prometheus.rstrip('/')}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as refused:
        raise ValueError(json.load(refused)["error"]) from None


def table(prometheus: str, window: str = "5m", at: str = "") -> list[tuple[Question, int, str]]:
    """Each question, how many series it has, and what Prometheus said against it."""
    rows = []
    for question in all_questions():
        try:
            when = {"time": at} if at else {}
            rows.append((question, len(ask(prometheus, "query", query=filled(question.expr, window), **when)), ""))
        except ValueError as refused:
            rows.append((question, 0, str(refused)))
    return rows


def printed(rows: list[tuple[Question, int, str]]) -> str:
    """The table as text."""
    width = max(len(f"{question.page}: {question.panel}") for question, _, _ in rows)
    lines = [f"{'panel':<{width}}  series  expression"]
    for question, series, refused in rows:
        name = f"{question.page}: {question.panel}"
        lines.append(f"{name:<{width}}  {series:>6}  {refused or ' '.join(question.expr.split())}")
    empty = sum(1 for _, series, _ in rows if not series)
    return "\n".join([*lines, f"{len(rows)} expressions, {empty} without a series"])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m dashboards.check URL_OF_PROMETHEUS [WINDOW OF RATES, such as 1m]")
    found = table(sys.argv[1], *sys.argv[2:])
    print(printed(found))
    sys.exit(any(not series for _, series, _ in found))
