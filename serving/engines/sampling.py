"""Choosing tokens from an engine's logits, the same for every engine that gives them: vLLM's sampler in NumPy.

The order is vLLM's: log-probabilities of what the model said, then bias and minimum length, penalties, temperature,
min_p, top_k and top_p.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.engines.protocol import Sampling, Token

Logits = NDArray[np.float32]
GREEDY = 1e-5  # temperatures below are 0, as in vLLM
FIRST = 1024  # of the likeliest tokens, which nearly always hold what top_p keeps: to sort all takes ten times as long


class Sampler:
    """The state of one answer: its random numbers and what it has said."""

    def __init__(self, wanted: Sampling, prompt: Sequence[int]) -> None:
        self._wanted = wanted
        self._random = np.random.default_rng(None if wanted.seed is None else abs(wanted.seed))
        self._said: Counter[int] = Counter()
        self._seen = set(prompt) if wanted.repetition_penalty != 1 else set()
        self._count = 0

    def pick(self, logits: Logits) -> Token:
        """The next token. ``logits`` are left as they are."""
        wanted = self._wanted
        if not np.isfinite(logits).any():
            raise ArithmeticError("the model gave no finite logit")
        shaped = self._shaped(logits)
        greedy = wanted.temperature < GREEDY
        token = int(shaped.argmax()) if greedy else self._draw(shaped / max(wanted.temperature, GREEDY))
        self._count += 1
        self._said[token] += 1
        if wanted.logprobs is None:
            return Token(token)
        return _with_logprobs(token, logits, wanted.logprobs)

    def _shaped(self, logits: Logits) -> Logits:
        wanted = self._wanted
        floor = self._count < wanted.min_tokens and wanted.stop_ids
        penalised = wanted.presence_penalty or wanted.frequency_penalty or wanted.repetition_penalty != 1
        if not (wanted.logit_bias or floor or (penalised and (self._said or self._seen))):
            return logits
        shaped = logits.astype(np.float32, copy=True)
        for token, bias in wanted.logit_bias.items():
            shaped[token] += bias
        if floor:
            shaped[list(wanted.stop_ids)] = -np.inf
        if wanted.repetition_penalty != 1:
            ids = np.fromiter(self._seen | set(self._said), dtype=np.int64)
            found = shaped[ids]
            by = np.float32(wanted.repetition_penalty)
            shaped[ids] = np.where(found > 0, found / by, found * by)
        if self._said and (wanted.presence_penalty or wanted.frequency_penalty):
            ids = np.fromiter(self._said.keys(), dtype=np.int64)
            times = np.fromiter(self._said.values(), dtype=np.float32)
            shaped[ids] -= np.float32(wanted.frequency_penalty) * times + np.float32(wanted.presence_penalty)
        return shaped

    def _draw(self, scaled: Logits) -> int:
        wanted = self._wanted
        chances = np.exp(scaled - scaled.max(), dtype=np.float64)
        if wanted.min_p > 0:
            chances[chances < wanted.min_p] = 0  # the likeliest one's is 1 here
        ids = None
        if 0 < wanted.top_k < chances.size:
            ids = np.argpartition(chances, -wanted.top_k)[-wanted.top_k :]
            chances = chances[ids]
        if wanted.top_p < 1:
            kept = _nucleus(chances, wanted.top_p)
            ids = kept if ids is None else ids[kept]
            chances = chances[kept]
        summed = np.cumsum(chances)
        place = int(np.searchsorted(summed, self._random.random() * summed[-1], side="right"))
        place = min(place, chances.size - 1)
        return place if ids is None else int(ids[place])


def _nucleus(chances: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """Places of the fewest likeliest tokens that together have ``top_p``."""
    most = top_p * chances.sum()
    order: NDArray[np.int64]
    if chances.size > FIRST:
        order = np.argpartition(chances, -FIRST)[-FIRST:].astype(np.int64)
        if chances[order].sum() < most:
            order = np.arange(chances.size)
    else:
        order = np.arange(chances.size)
    order = order[np.argsort(chances[order])[::-1]]
    count = int(np.searchsorted(np.cumsum(chances[order]), most)) + 1
    return order[:count]


def _with_logprobs(token: int, logits: Logits, count: int) -> Token:
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(logits - np.float32(highest), dtype=np.float64).sum()))
    top: tuple[tuple[int, float], ...] = ()
    if count:
        best = np.argpartition(logits, -count)[-count:] if count < logits.size else np.arange(logits.size)
        best = best[np.argsort(logits[best])[::-1]]
        top = tuple((int(one), float(logits[one]) - total) for one in best)
    return Token(token, float(logits[token]) - total, top)
