"""Two results side by side: ours, or one of vLLM's own benchmark. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Name, key, whether more is better.
COMPARED = (
    ("tokens/s", "output_throughput", True),
    ("requests/s", "request_throughput", True),
    ("latency p50 ms", "p50_e2el_ms", False),
    ("latency p95 ms", "p95_e2el_ms", False),
    ("latency p99 ms", "p99_e2el_ms", False),
    ("first token p50 ms", "p50_ttft_ms", False),
    ("first token p95 ms", "p95_ttft_ms", False),
    ("time per token p50 ms", "p50_tpot_ms", False),
    ("time per token p95 ms", "p95_tpot_ms", False),
    ("gap p99 ms", "p99_itl_ms", False),
    ("failed", "failed", False),
    ("joules per token", "joules_per_token", False),
)


@dataclass(frozen=True)
class Difference:
    """A figure in both results."""

    label: str
    name: str
    ours: float
    theirs: float
    better: bool | None  # None: the same

    @property
    def change(self) -> str:
        """In percent of theirs."""
        return f"{100 * (self.ours / self.theirs - 1):+.1f} %" if self.theirs else ""


def read_result(path: Path) -> list[dict[str, Any]]:
    """Measurements of a result file. Raises ``ValueError`` with one sentence."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"--compare: {path} cannot be read: {fault}") from fault
    except json.JSONDecodeError as fault:
        raise ValueError(f"--compare: {path} is no JSON: {fault}") from fault
    points = data.get("points", [data]) if isinstance(data, dict) else None
    if not points or not all(isinstance(point, dict) and "output_throughput" in point for point in points):
        raise ValueError(
            f"--compare: {path} is no result of this benchmark, nor of vLLM's: it has no output_throughput"
        )
    return [_normal(point) for point in points]


def _normal(point: Mapping[str, Any]) -> dict[str, Any]:
    """vLLM's names for the load as ours, and its median as the 50th percentile."""
    medians = {f"p50_{name}_ms": point.get(f"median_{name}_ms") for name in ("ttft", "tpot", "itl", "e2el")}
    rate = point.get("rate", point.get("request_rate"))
    return {
        **{name: value for name, value in medians.items() if value is not None},
        **point,
        "clients": point.get("clients", point.get("max_concurrency")),
        "rate": rate if isinstance(rate, (int, float)) else None,
    }


def differences(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Each figure that both have, for each load that both have measured."""
    found = []
    for point in ours:
        for other in theirs:
            if (point["clients"], point["rate"]) != (other["clients"], other["rate"]):
                continue
            for name, key, more in COMPARED:
                here, there = point.get(key), other.get(key)
                if here is None or there is None or (here == 0 and there == 0):
                    continue
                better = None if here == there else (here > there) == more
                found.append(Difference(str(point["label"]), name, float(here), float(there), better))
            break
    return found
