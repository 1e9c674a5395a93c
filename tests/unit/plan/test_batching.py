"""How many requests run at once, how long a step is, and how often text is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heteroserve.plan.batching import Batching, batching, generating
from heteroserve.plan.bays import device_of
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.request import PlanOptions
from heteroserve.plan.roofline import Deployment, Device

H200 = device_of("nvidia-h200-sxm-141gb")
PLENTY = 1 << 30
EIGHT = Deployment(card_named("llama-3.1-8b"), "bfloat16", None, "vllm")
SEVENTY = Deployment(card_named("llama-3.3-70b"), "bfloat16", None, "vllm", 4)


def chosen(
    deployment: Deployment = EIGHT,
    options: PlanOptions | None = None,
    cache: int = PLENTY,
    requests: int | None = None,
    device: Device = H200,
    **engine_args: object,
) -> Batching:
    return batching(deployment, device, options or PlanOptions(), lambda *_: cache, requests, engine_args)


@pytest.mark.parametrize("deployment", [EIGHT, SEVENTY])
@pytest.mark.parametrize("gap_ms", [30, 100, 250])
def test_text_comes_as_often_as_a_reader_wants(deployment: Deployment, gap_ms: float) -> None:
    options = PlanOptions(stream_gap_ms=gap_ms)
    found = chosen(deployment, options)
    step = generating(replace(deployment, stream_interval=found.stream_interval), H200, options, found.max_num_seqs)
    assert found.stream_interval == 1 or found.stream_interval * step.total * 1e3 <= gap_ms


def test_more_tokens_are_sent_together_only_where_the_server_would_be_the_limit() -> None:
    assert chosen().stream_interval > 1
    slow = chosen(Deployment(card_named("llama-3.1-405b"), "bfloat16", None, "vllm", 8))
    assert (slow.stream_interval, slow.interval_reason) == (1, "the server keeps up with the engine")
    assert chosen(requests=8).stream_interval == 1


def test_a_tool_parser_gets_every_token_by_itself() -> None:
    found = chosen(tool_call_parser="llama3_json", enable_auto_tool_choice=True)
    assert found.stream_interval == 1
    assert "tool parser" in found.interval_reason


def test_what_the_entry_sets_itself_stays() -> None:
    found = chosen(requests=300, stream_interval=16, max_num_batched_tokens=1024)
    assert (found.max_num_seqs, found.stream_interval, found.max_num_batched_tokens) == (300, 16, 1024)


def test_the_kv_cache_holds_all_that_run() -> None:
    found = chosen(cache=100 * 288 + 5)
    assert (found.max_num_seqs, found.requests_reason) == (100, "the KV cache holds 100 requests of 288 tokens")
    assert chosen(cache=10).max_num_seqs == 1


@pytest.mark.parametrize("token_ms", [10, 25, 60])
def test_a_token_takes_no_longer_than_is_wanted(token_ms: float) -> None:
    options = PlanOptions(token_ms=token_ms)
    found = chosen(options=options)
    best = replace(EIGHT, stream_interval=found.stream_interval)
    assert generating(best, H200, options, found.max_num_seqs).total * 1e3 <= token_ms
    assert found.max_num_seqs <= chosen(options=PlanOptions(token_ms=2 * token_ms)).max_num_seqs
    if "a token would take" in found.requests_reason:
        assert f"token_ms: {token_ms}" in found.requests_reason


def test_more_at_once_brings_no_less() -> None:
    options = PlanOptions()
    found = chosen(options=options)

    def rate(requests: int) -> float:
        one = chosen(options=options, requests=requests)
        return requests / generating(replace(EIGHT, stream_interval=one.stream_interval), H200, options, requests).total

    assert rate(found.max_num_seqs) > 0.97 * max(rate(1 << power) for power in range(found.max_num_seqs.bit_length()))


def test_prompts_do_not_hold_up_answers_for_longer_than_the_gap() -> None:
    assert chosen().max_num_batched_tokens == 4096
    assert chosen(options=PlanOptions(stream_gap_ms=500)).max_num_batched_tokens == 8192
    assert chosen(SEVENTY, PlanOptions(stream_gap_ms=1)).max_num_batched_tokens == 2048
    assert chosen(requests=3000).max_num_batched_tokens >= 3000
