"""What the plan expects of a measurement, and what the guide published. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The plan's expectation of a model at a number of clients."""

    tokens_per_s: float
    time_per_output_token_ms: float
    time_to_first_token_ms: float


def predict(plan: Mapping[str, Any], model: str, clients: int) -> Prediction | None:
    """Expectations of the model's cells, each with the clients that the gateway's weights give it.

    A cell takes ``max_num_seqs`` requests for each replica at once: what more clients ask waits, and adds no tokens/s.
    Waiting is not in the time to the first token, which is None then.
    """
    cells = [cell for cell in plan["cells"] if cell["model"] == model and cell["expected"]]
    if not cells:
        return None
    weights = sum(cell["weight"] for cell in cells)
    tokens = inverse = first = 0.0
    waits = False
    for cell in cells:
        share = clients * cell["weight"] / weights
        room = cell["limits"]["max_num_seqs"] * len(cell["replicas"])
        waits = waits or share > room
        here = at(cell["expected"], min(share, room))
        tokens += here["tokens_per_s"]
        inverse += here["tokens_per_s"] * here["time_per_output_token_s"]
        first += here["tokens_per_s"] * here["time_to_first_token_s"]
    if not tokens:
        return None
    return Prediction(tokens, 1000 * inverse / tokens, math.nan if waits else 1000 * first / tokens)


def at(expected: Sequence[Mapping[str, float]], concurrency: float) -> dict[str, float]:
    """Expectations between those that the plan has: straight lines over logarithms."""
    ordered = sorted(expected, key=lambda each: each["concurrency"])
    names = ("tokens_per_s", "time_per_output_token_s", "time_to_first_token_s")
    if concurrency <= ordered[0]["concurrency"]:
        part = concurrency / ordered[0]["concurrency"]
        return {name: ordered[0][name] * (part if name == "tokens_per_s" else 1) for name in names}
    for low, high in pairwise(ordered):
        if concurrency <= high["concurrency"]:
            way = math.log(concurrency / low["concurrency"]) / math.log(high["concurrency"] / low["concurrency"])
            return {name: low[name] * (high[name] / low[name]) ** way if low[name] else high[name] for name in names}
    return {name: ordered[-1][name] for name in names}


def comparable(plan: Mapping[str, Any], mean_prompt: float | None, mean_output: float | None) -> str | None:
    """Why a measurement's lengths are not those that the plan's expectations are for; None if they are near."""
    wanted = (plan["prompt_tokens"], plan["output_tokens"])
    for name, mean, planned in zip(("asked", "answered"), (mean_prompt, mean_output), wanted, strict=True):
        # Few tokens asked cost little: 14 to 40 is near 32, but 200 is not.
        slack = max(0.1 * planned, 16 if name == "asked" else 0)
        if mean is not None and abs(mean - planned) > slack:
            return f"The plan's expectations are for {planned} tokens {name}, not for {mean:.0f}: none is shown."
    return None


@dataclass(frozen=True)
class GuideRow:
    """A row of the guide's results. Clients are those of each replica."""

    model: str
    hardware: str
    replicas: int
    clients: int | None
    tokens_per_s: float
    p95_latency_s: float


_GPUS = "Llama 2 70B chat, bfloat16, tensor parallel 4"
_CPUS = "Llama 2 7B chat, int8 (BigDL-LLM)"
GUIDE = (
    GuideRow(_GPUS, "4x A100", 1, 32, 621.4, 13),
    GuideRow(_GPUS, "8x A100", 2, 32, 1172.63, 17),
    GuideRow(_GPUS, "12x A100", 3, 32, 1551.94, 17),
    GuideRow(_GPUS, "12x A100 + 4x H100", 4, 32, 1868.76, 17),
    GuideRow(_GPUS, "4x A100", 1, 256, 1475.64, 45),
    GuideRow(_GPUS, "8x A100", 2, 256, 2542.32, 61),
    GuideRow(_GPUS, "12x A100", 3, 256, 3222.89, 64),
    GuideRow(_GPUS, "12x A100 + 4x H100", 4, 256, 4443.5, 103),
    GuideRow(_CPUS, "Xeon 8480+, 112 cores", 1, None, 17.18, 18),
    GuideRow(_CPUS, "Xeon 8480+, 224 cores", 2, None, 30.26, 21),
    GuideRow(_CPUS, "Xeon 8480+, 448 cores, 2 hosts", 4, None, 61.13, 23),
)
