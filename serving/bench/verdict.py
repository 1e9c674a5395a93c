"""What a result must reach: --require tokens_per_s>=1000. Pure functions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"(?P<name>[a-z0-9_]+)(?:@(?P<level>[0-9.]+))?\s*(?P<sign>>=|<=|>|<)\s*(?P<value>\d+(?:\.\d+)?)")
_PLAIN = {
    "tokens_per_s": "output_throughput",
    "requests_per_s": "request_throughput",
    "errors": "failed",
    "unfinished": "unfinished",
    "completed": "completed",
    "achieved_rate": "achieved_rate",
    "joules_per_token": "joules_per_token",
}
_SPREADS = {"latency": "e2el", "ttft": "ttft", "tpot": "tpot", "gap": "itl", "lateness": "lateness"}
# Seconds for whole answers, milliseconds for the rest, as the table shows them.
NAMES = {
    **_PLAIN,
    "error_rate": "",
    **{
        f"{name}_{part}_{'s' if name == 'latency' else 'ms'}": f"{part if part != 'mean' else 'mean'}_{key}_ms"
        for name, key in _SPREADS.items()
        for part in ("mean", "p50", "p90", "p95", "p99")
    },
}


@dataclass(frozen=True)
class Requirement:
    """A figure and its bound, of all measurements or of those with ``level`` clients (or requests a second)."""

    text: str
    name: str
    sign: str
    value: float
    level: float | None = None


@dataclass(frozen=True)
class Judgement:
    """Whether a measurement meets a requirement."""

    requirement: str
    label: str
    found: float | None
    met: bool

    def __str__(self) -> str:
        found = (
            "not measured" if self.found is None else f"{self.found:,.4g}" if self.found < 1e4 else f"{self.found:,.0f}"
        )
        return f"{self.requirement}: {found} at {self.label}, {'met' if self.met else 'NOT MET'}"


def requirement(text: str) -> Requirement:
    """Read NAME[@LEVEL]>=VALUE. Raises ``ValueError`` with a sentence that says what is wrong."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f"--require: found '{text}', expected NAME>=NUMBER or NAME<=NUMBER, such as tokens_per_s>=1000"
        )
    if found["name"] not in NAMES:
        near = get_close_matches(found["name"], NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(NAMES))}"
        raise ValueError(f"--require: there is no figure '{found['name']}'; {hint}")
    level = float(found["level"]) if found["level"] else None
    return Requirement(text.strip(), found["name"], found["sign"], float(found["value"]), level)


def figure(name: str, point: Mapping[str, Any]) -> float | None:
    """A figure of a measurement by the name that requirements use."""
    if name == "error_rate":
        tried = point["completed"] + point["failed"]
        return point["failed"] / tried if tried else None
    if name not in _PLAIN and not point.get("completed"):
        return None
    value = point.get(NAMES[name])
    if value is None:
        return None
    return float(value) / 1000 if name.startswith("latency_") else float(value)


def judge(requirements: Sequence[Requirement], points: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    """Each requirement at each measurement that it is for. One that is for none is not met."""
    found = []
    for each in requirements:
        meant = [point for point in points if each.level is None or each.level in (point["clients"], point["rate"])]
        if not meant:
            found.append(Judgement(each.text, "a level that was not measured", None, False))
        for point in meant:
            value = figure(each.name, point)
            met = value is not None and _COMPARE[each.sign](value, each.value)
            found.append(Judgement(each.text, point["label"], value, met))
    return found
