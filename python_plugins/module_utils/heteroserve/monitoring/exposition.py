"""Prometheus's text format: written for what HeteroServe exports itself, read from exporters on GPU hosts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Sample:
    """One value of one series."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render(samples: Iterable[Sample], help_texts: Mapping[str, str]) -> str:
    """The text; all are gauges. The same samples give the same text."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    lines = []
    for name, group in sorted(groups.items()):
        lines += [f"# HELP {name} {help_texts[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(sample.labels)} {_number(sample.value)}" for sample in group]
    return "".join(f"{line}\n" for line in lines)


def parse(text: str) -> list[Sample]:
    """The samples of an exporter's answer; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        match = None if line.startswith("#") else LINE.fullmatch(line.strip())
        if match is None:
            continue
        name, labels, value = match.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        pairs = {key: re.sub(r"\\.", _unescape, raw) for key, raw in LABEL.findall(labels or "")}
        found.append(Sample(name, number, pairs))
    return found


def _unescape(match: re.Match[str]) -> str:
    return UNESCAPED.get(match.group(), match.group())


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{key}="{_escape(value)}"' for key, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
