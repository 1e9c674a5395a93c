"""How many requests a GPU replica runs at once, how many tokens a step takes, and how often text is sent.

Three of vLLM's settings that trade throughput for waiting. They follow from the predicted time of a step, the KV cache
and two settings of the plan: ``token_ms``, the longest that a token may take, and ``stream_gap_ms``, the longest that
a reader may wait between two pieces of text. Times are seconds but for those two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from . import efficiencies as table
from .request import PlanOptions
from .roofline import Deployment, Device, Step, step_time

# vLLM's own most for a server on a data centre GPU (EngineArgs.get_batch_defaults).
MOST_REQUESTS = 1024
MOST_TOKENS = int(table.BATCHED_TOKENS.value)
LEAST_TOKENS = 2048  # less makes prompts wait for their turn (vLLM, "Performance tuning with chunked prefill")
COSTS = 0.02  # doubling the requests may cost this share of the tokens/s, because fewer requests wait


@dataclass(frozen=True)
class Batching:
    """The settings by vLLM's names, and why no more requests run at once and text is sent this often."""

    max_num_seqs: int
    max_num_batched_tokens: int
    stream_interval: int
    requests_reason: str
    interval_reason: str


def batching(
    deployment: Deployment,
    device: Device,
    options: PlanOptions,
    cache_tokens: Callable[[int, int], int],
    requests: int | None = None,
    engine_args: dict[str, Any] | None = None,
) -> Batching:
    """Choose the three. ``requests`` and ``engine_args`` are what the model's entry sets itself.

    ``cache_tokens(requests, step_tokens)``: what the KV cache holds beside the activations of such steps.
    """
    given = engine_args or {}
    tokens = given.get("max_num_batched_tokens") or _step_tokens(deployment, device, options, requests or 1)
    if requests is None:
        requests, reason = _requests(deployment, device, options, lambda count: cache_tokens(count, tokens), given)
    else:
        reason = "the model's max_num_seqs"
    tokens = max(tokens, requests)  # vLLM refuses less
    interval, why = _interval(deployment, device, options, requests, given)
    return Batching(requests, tokens, interval, reason, why)


def generating(deployment: Deployment, device: Device, options: PlanOptions, requests: int) -> Step:
    """A step in the middle of the plan's load: answers half done, and the prompts that come in meanwhile."""
    context = options.prompt_tokens + options.output_tokens / 2
    prompts = requests * options.prompt_tokens / options.output_tokens
    return step_time(deployment, device, requests, context, prompts)


def _step_tokens(deployment: Deployment, device: Device, options: PlanOptions, requests: int) -> int:
    """The largest power of two whose step does not hold up running answers for longer than a reader may wait."""
    tokens = MOST_TOKENS
    while tokens // 2 >= max(LEAST_TOKENS, requests):
        if step_time(deployment, device, 1, options.prompt_tokens, tokens).total * 1e3 <= options.stream_gap_ms:
            break
        tokens //= 2
    return tokens


def _requests(
    deployment: Deployment,
    device: Device,
    options: PlanOptions,
    cache_tokens: Callable[[int], int],
    given: dict[str, Any],
) -> tuple[int, str]:
    """Doubled while the KV cache holds them, a token takes no longer than is wanted, and tokens/s do not fall.

    A request beyond them waits for the whole answer of another before its first token. One among them waits for a step,
    and gets its tokens more slowly.
    """
    length = options.prompt_tokens + options.output_tokens
    best, before = 1, 0.0
    for power in range(MOST_REQUESTS.bit_length()):
        count = 1 << power
        room = max(1, cache_tokens(count) // length)
        if room <= best:
            break
        count = min(count, room)
        interval, _ = _interval(deployment, device, options, count, given)
        step = generating(replace(deployment, stream_interval=interval), device, options, count).total
        if count > 1 and step * 1e3 > options.token_ms:
            return best, f"with {count:,} a token would take {step * 1e3:.0f} ms (token_ms: {options.token_ms:g})"
        rate = count / step
        if rate < before * (1 - COSTS):
            return best, f"{count:,} would bring {100 * (1 - rate / before):.0f} % fewer tokens/s"
        best, before = count, rate
    if best == MOST_REQUESTS:
        return best, "that is the most that vLLM's defaults allow"
    return best, f"the KV cache holds {best:,} requests of {length:,} tokens"


def _interval(
    deployment: Deployment, device: Device, options: PlanOptions, requests: int, given: dict[str, Any]
) -> tuple[int, str]:
    """The smallest interval with which the server needs half of a step, as far as a reader does not notice."""
    if "stream_interval" in given:
        return int(given["stream_interval"]), "the model's engine_args"
    if given.get("tool_call_parser"):
        # https://github.com/vllm-project/vllm/issues/48294: llama3_json loses a call that arrives in one piece.
        return 1, "tool parsers need every token by itself"
    step = generating(replace(deployment, stream_interval=1), device, options, requests)
    interval = 1
    while step.server > step.engine / 2:
        step = generating(replace(deployment, stream_interval=interval + 1), device, options, requests)
        if (interval + 1) * step.total * 1e3 > options.stream_gap_ms:
            return interval, f"a longer interval would exceed stream_gap_ms ({options.stream_gap_ms:g})"
        interval += 1
    return interval, "the server keeps up with the engine"
