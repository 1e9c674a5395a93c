"""Choosing tokens from logits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from serving.engines.protocol import Sampling
from serving.engines.sampling import Sampler

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1], dtype=np.float32))


def drawn(times: int = 4000, logits: Any = LOGITS, prompt: tuple[int, ...] = (), **wanted: Any) -> Counter[int]:
    """How often each token is the first of an answer."""
    return Counter(
        Sampler(Sampling(max_tokens=1, seed=seed, **wanted), prompt).pick(logits).id for seed in range(times)
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [0.7246, 0.1812, 0.0652, 0.029]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.6}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"min_p": 0.4}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [2 / 3, 1 / 3, 0, 0]),
        ({"logit_bias": {0: -100.0}}, [0, 0.5, 0.3, 0.2]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"min_tokens": 1, "stop_ids": frozenset([0])}, [0, 0.5, 0.3, 0.2]),
    ],
)
def test_tokens_come_as_often_as_they_should(wanted: dict[str, Any], expected: list[float]) -> None:
    found = drawn(**wanted)
    for token, share in enumerate(expected):
        assert found[token] / 4000 == pytest.approx(share, abs=0.03)
        assert found[token] or not share


def test_a_wide_nucleus_of_a_large_vocabulary_is_cut_where_it_should_be() -> None:
    """top_p keeps more tokens than the sampler sorts at first (FIRST)."""
    flat = np.zeros(5000, dtype=np.float32)
    flat[7] = 2
    sampler = Sampler(Sampling(max_tokens=1, top_p=0.9, seed=1), ())
    assert len({sampler.pick(flat).id for _ in range(3000)}) > 1500


def test_what_was_said_is_penalised() -> None:
    for name, value in (("presence_penalty", 2.0), ("frequency_penalty", 2.0)):
        sampler = Sampler(Sampling(max_tokens=9, temperature=0, **{name: value}), ())
        assert [sampler.pick(LOGITS).id for _ in range(3)] == [0, 1, 2]
    # Of the prompt only the repetition penalty knows.
    assert drawn(times=10, prompt=(0,), temperature=0, repetition_penalty=4.0) == {1: 10}
    assert drawn(times=10, prompt=(0,), temperature=0, presence_penalty=2.0) == {0: 10}


def test_logprobs_are_those_of_the_model() -> None:
    sampler = Sampler(Sampling(max_tokens=1, temperature=0, logit_bias={3: 50.0}, logprobs=2), ())
    token = sampler.pick(LOGITS)
    assert token.id == 3
    assert token.logprob == pytest.approx(np.log(0.1), abs=1e-4)
    assert [number for number, _ in token.top] == [0, 1]
    assert token.top[0][1] == pytest.approx(np.log(0.5), abs=1e-4)


def test_a_seed_gives_the_same_answer_again() -> None:
    def answer(seed: int) -> list[int]:
        sampler = Sampler(Sampling(max_tokens=20, seed=seed), ())
        return [sampler.pick(LOGITS).id for _ in range(20)]

    assert answer(5) == answer(5)
    assert answer(5) != answer(6)
    assert answer(-5)


def test_logits_are_left_alone_and_nonsense_is_an_error() -> None:
    before = LOGITS.copy()
    Sampler(Sampling(max_tokens=1, logit_bias={0: 5.0}, temperature=0.3, top_p=0.5), ()).pick(LOGITS)
    assert (before == LOGITS).all()
    with pytest.raises(ArithmeticError, match="no finite logit"):
        Sampler(Sampling(max_tokens=1), ()).pick(np.full(4, np.nan, dtype=np.float32))
