"""Predictions against measurements, and the physics in itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import heteroserve.plan.efficiencies as table
import pytest
from heteroserve.facts.accelerators import CARDS
from heteroserve.plan.bays import device_of
from heteroserve.plan.model_cards import MODEL_CARDS, card_named
from heteroserve.plan.roofline import Deployment, cpu_device, expect, step_time

from tests.bench import predictions

ROOT = Path(__file__).resolve().parents[3]


def errors(rows: Iterable[predictions.Row]) -> list[float]:
    return [abs(predictions.error(row)) for row in rows]


def test_gpus_within_6_percent_on_average() -> None:
    every = errors(predictions.GPU)
    assert sum(every) / len(every) < 0.06


def test_half_of_the_rows_set_no_constant_and_are_as_near() -> None:
    others = errors(row for row in predictions.GPU if not predictions.sets(row))
    assert len(others) >= len(predictions.GPU) / 2
    assert sum(others) / len(others) < 0.06


def test_the_worst_is_a_row_whose_pace_the_host_sets() -> None:
    """Of vLLM's server that sends each token by itself, on a host whose processor the plan does not know."""
    by_host = [row for row in predictions.GPU if row.clients >= 256 and row.stream_interval == 1]
    assert max(errors(by_host)) < 0.3
    assert max(errors(row for row in predictions.GPU if row not in by_host)) < 0.12


def test_better_than_the_simulator() -> None:
    rows = [row for row in predictions.GPU if row.aisimulate is not None]
    theirs = [abs((row.aisimulate or 0) / row.mean - 1) for row in rows]
    assert sum(abs(predictions.error(row)) for row in rows) < sum(theirs)


def test_the_docs_show_what_the_code_predicts() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    for line in predictions.tables().splitlines():
        assert line in text


def test_the_docs_show_every_efficiency() -> None:
    text = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    for line in predictions.efficiencies().splitlines():
        assert line in text


def test_every_efficiency_has_unit_and_source() -> None:
    for value in vars(table).values():
        items = value.values() if isinstance(value, dict) else [value]
        for item in items:
            if isinstance(item, table.Efficiency):
                assert all(getattr(item, part.name) for part in fields(item))


@pytest.mark.parametrize("kind", sorted(CARDS))
def test_more_of_everything_is_never_slower(kind: str) -> None:
    if CARDS[kind].vendor == "habana":
        pytest.skip("no engine")
    device = device_of(kind)
    for card in MODEL_CARDS.values():
        deployment = Deployment(card, "bfloat16", None, "vllm")
        speeds = [expect(deployment, device, clients, 32, 256).tokens_per_s for clients in (1, 8, 64, 256)]
        assert speeds == sorted(speeds)
        tokens = [expect(deployment, device, clients, 32, 256).time_per_output_token_s for clients in (1, 8, 64, 256)]
        assert tokens == sorted(tokens)


def test_longer_contexts_are_slower_and_quantised_weights_faster() -> None:
    device = device_of("nvidia-h100-sxm-80gb")
    plain = Deployment(card_named("llama-3.1-8b"), "bfloat16", None, "vllm")
    assert step_time(plain, device, 64, 8192).total > step_time(plain, device, 64, 1024).total
    small = Deployment(card_named("llama-3.1-8b"), "bfloat16", "fp8", "vllm")
    assert step_time(small, device, 1, 100).linear < 0.6 * step_time(plain, device, 1, 100).linear


def test_a_slow_link_costs() -> None:
    fast, slow = device_of("nvidia-h100-sxm-80gb"), device_of("nvidia-h100-sxm-80gb", link="pcie")
    deployment = Deployment(card_named("llama-3.3-70b"), "bfloat16", None, "vllm", 4)
    assert step_time(deployment, slow, 64, 200).all_reduce > 2 * step_time(deployment, fast, 64, 200).all_reduce


def test_copied_kv_heads_are_read_on_every_accelerator() -> None:
    device = device_of("nvidia-h100-sxm-80gb")
    card = card_named("llama-3.1-8b")
    eight, sixteen = (Deployment(card, "bfloat16", None, "vllm", size) for size in (8, 16))
    assert step_time(eight, device, 32, 1000).attention == step_time(sixteen, device, 32, 1000).attention


def test_engines_without_batching_queue() -> None:
    device = cpu_device(56, 1 << 38, 307e9, ("avx2", "avx512f"))
    deployment = Deployment(card_named("llama-2-7b"), "bfloat16", "sym_int8", "bigdl")
    one, four = (expect(deployment, device, clients, 32, 256) for clients in (1, 4))
    assert one.tokens_per_s == four.tokens_per_s
    assert four.time_to_first_token_s > one.time_to_first_token_s + 10


def test_limited_by_names_the_largest_part() -> None:
    device = device_of("nvidia-h200-sxm-141gb")
    large = Deployment(card_named("llama-2-70b"), "bfloat16", None, "vllm", 2)
    assert step_time(large, device, 1, 100).limited_by == "memory bandwidth"
    assert step_time(large, device, 256, 100).limited_by == "compute"
    assert step_time(Deployment(card_named("llama-2-7b"), "bfloat16", None, "vllm"), device, 128, 4096).limited_by == (
        "memory bandwidth (KV cache)"
    )
