"""Figures of one measurement, under the names of vLLM's own benchmark. Pure functions over records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.bench.records import UNFINISHED, Record

PERCENTILES = (50, 90, 95, 99)
Floats = npt.NDArray[np.float64]


def spread(name: str, seconds: Sequence[float] | Floats) -> dict[str, float]:
    """Mean, median, deviation and percentiles in milliseconds, as vLLM names and computes them."""
    values = np.asarray(seconds if len(seconds) else [0.0], dtype=np.float64) * 1000
    found = {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
    }
    return found | {f"p{p}_{name}_ms": float(np.percentile(values, p)) for p in PERCENTILES}


def deltas(answered: Sequence[Record]) -> tuple[Floats, Floats]:
    """When each delta came, and how many tokens it stands for: a request's tokens over the number of its deltas."""
    if not answered:
        return np.zeros(0), np.zeros(0)
    times = [np.concatenate(([record.first], record.first + np.cumsum(record.gaps))) for record in answered]
    tokens = [
        np.full(len(each), record.output_tokens / len(each)) for each, record in zip(times, answered, strict=True)
    ]
    return np.concatenate(times), np.concatenate(tokens)


def per_second(answered: Sequence[Record], began: float) -> list[float]:
    """Tokens that came in each second of the measurement."""
    times, tokens = deltas(answered)
    if not len(times):
        return []
    seconds = int(times.max() - began) + 1
    return [float(value) for value in np.histogram(times - began, bins=seconds, range=(0, seconds), weights=tokens)[0]]


def while_all_ask(records: Sequence[Record], clients: int, began: float) -> float | None:
    """Tokens/s of a closed loop from its start until the last request was sent: no client had nothing to do until then.

    None for fewer than two requests for each client: that is all start and end.
    """
    if len(records) < 2 * clients:
        return None
    until = max(record.sent for record in records)
    times, tokens = deltas([record for record in records if record.answered])
    return float(tokens[times <= until].sum() / (until - began)) if until - began >= 1 else None


def at_once(records: Sequence[Record]) -> int:
    """The most requests that ran at one moment."""
    changes = sorted([(record.sent, 1) for record in records] + [(record.last, -1) for record in records])
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


def faults(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Errors by kind, each with its number and what the first one said."""
    counts = Counter(record.fault for record in records if record.fault and record.fault != UNFINISHED)
    first: dict[str, str] = {}
    for record in records:
        first.setdefault(record.fault, record.said)
    return {kind: {"count": count, "first": first[kind]} for kind, count in counts.most_common()}


def figures(records: Sequence[Record], began: float, clients: int | None) -> dict[str, Any]:
    """What vLLM's benchmark reports, and what it does not: unfinished requests, errors by kind, lateness."""
    # A whole answer may have no delta where the model ended at once: it counts, and has no times.
    answered = [record for record in records if record.answered]
    timed = [record for record in answered if record.events]
    failed = [record for record in records if record.fault and record.fault != UNFINISHED]
    last = max((record.last for record in (*answered, *failed)), default=began)
    duration = max(last - began, 1e-9)
    asked = sum(record.prompt_tokens for record in answered)
    given = sum(record.output_tokens for record in answered)
    seconds = per_second(timed, began)
    sent_for = max((record.sent for record in records), default=began) - began
    gaps = np.concatenate([np.asarray(record.gaps) for record in timed]) if timed else np.zeros(0)
    found: dict[str, Any] = {
        "duration": duration,
        "completed": len(answered),
        "failed": len(failed),
        "total_input_tokens": asked,
        "total_output_tokens": given,
        "request_throughput": len(answered) / duration,
        "request_goodput": None,
        "output_throughput": given / duration,
        "total_token_throughput": (asked + given) / duration,
        "max_output_tokens_per_s": max(seconds, default=0.0),
        "max_concurrent_requests": at_once(records),
        **spread("ttft", [record.first - record.sent for record in timed]),
        **spread(
            "tpot",
            [(record.last - record.first) / (record.output_tokens - 1) for record in timed if record.output_tokens > 1],
        ),
        **spread("itl", gaps),
        **spread("e2el", [record.latency for record in timed]),
        # Ours.
        "unfinished": sum(record.fault == UNFINISHED for record in records),
        "errors_by_kind": faults(records),
        "tokens_per_second": [round(value, 1) for value in seconds],
        "steady_output_throughput": while_all_ask(records, clients, began) if clients else None,
        "sent": len(records),
        "achieved_rate": (len(records) - 1) / sent_for if len(records) > 1 and sent_for > 0 else None,
        "mean_input_tokens": asked / len(answered) if answered else None,
        "mean_output_tokens": given / len(answered) if answered else None,
        "tokens_per_delta": given / max(1, sum(record.events for record in timed)),
    }
    return found | spread("lateness", [record.sent - record.due for record in records])


def details(records: Sequence[Record]) -> dict[str, Any]:
    """vLLM's lists with an entry for each request."""
    return {
        "input_lens": [record.prompt_tokens for record in records],
        "output_lens": [record.output_tokens for record in records],
        "ttfts": [record.first - record.sent if record.events else 0.0 for record in records],
        "itls": [list(record.gaps) for record in records],
        "start_times": [record.sent for record in records],
        "generated_texts": ["" for _ in records],
        "errors": [f"{record.fault}: {record.said}" if record.fault else "" for record in records],
    }
