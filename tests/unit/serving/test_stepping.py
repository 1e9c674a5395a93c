"""Continuous batching: who is computed when, and in which slot."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from serving.engines.protocol import Sampling
from serving.engines.stepping import SteppingEngine
from tests.helpers.tiny_engine import END, model_of, tiny


def wanted(tokens: int = 50) -> Sampling:
    return Sampling(max_tokens=tokens, stop_ids=frozenset([END]), temperature=0)


async def said(engine: SteppingEngine, prompt: str, tokens: int = 50, leave: int = 0) -> str:
    """An answer; with ``leave`` its client leaves after so many tokens."""
    found: list[int] = []
    async with aclosing(engine.generate(list(prompt.encode()), wanted(tokens))) as stream:
        async for token in stream:
            found.append(token.id)
            if leave and len(found) >= leave:
                break
    return engine.text.decode(found)


def emptied(engine: SteppingEngine) -> None:
    """Wait until nothing is left. The last token of an answer is told before its slot is freed."""
    until = time.monotonic() + 10
    while any(model_of(engine).held) or engine._running or engine._waiting:
        assert time.monotonic() < until, (model_of(engine).held, engine._running, engine._waiting)
        time.sleep(0.01)


def test_answers_of_all_lengths_share_the_slots_and_stay_apart() -> None:
    """The model fails if a slot holds another answer's tokens: see TinyModel."""
    engine = tiny("abcdefghijklmnopqrstuvwxyz", slots=3)

    async def run() -> list[str]:
        return list(
            await asyncio.gather(*(said(engine, f"{'x' * (40 * index)}\n", 1 + 7 * index % 26) for index in range(20)))
        )

    found = asyncio.run(run())
    assert found == ["abcdefghijklmnopqrstuvwxyz"[: 1 + 7 * index % 26] for index in range(20)]
    emptied(engine)
    engine.close()


def test_a_prompt_is_read_in_pieces_and_others_go_on_between_them() -> None:
    engine = tiny("a" * 300, context=4000, slots=2, step_s=0.01)

    async def run() -> float:
        first = engine.generate(list(b"\n"), wanted(300))
        await anext(first)
        long = asyncio.create_task(said(engine, "x" * 2500 + "\n", 1))
        gaps = []
        while not long.done():
            began = time.monotonic()
            await anext(first)
            gaps.append(time.monotonic() - began)
        await first.aclose()
        assert len(gaps) >= 10  # ten pieces, a token after each
        return max(gaps)

    assert asyncio.run(run()) < 1
    engine.close()


def test_who_leaves_makes_room_within_a_token() -> None:
    engine = tiny("a" * 400, slots=1, step_s=0.005)

    async def run() -> None:
        assert await said(engine, "\n", 400, leave=3) == "aaa"
        steps = model_of(engine).steps
        assert await said(engine, "\n", 5) == "aaaaa"
        assert model_of(engine).steps - steps <= 4 + 2

    asyncio.run(run())
    engine.close()


def test_a_full_cache_sends_the_youngest_back_and_all_are_answered() -> None:
    engine = tiny("abcdefghijklmnopqrstuvwxyz", context=64, cache=64, slots=4)

    async def run() -> list[str]:
        return list(await asyncio.gather(*(said(engine, "\n", 26) for _ in range(4))))

    assert asyncio.run(run()) == ["abcdefghijklmnopqrstuvwxyz"] * 4
    engine.close()


def test_many_short_answers_with_cancels_leave_nothing_behind() -> None:
    engine = tiny("abcdef", slots=4)

    async def run() -> int:
        found = await asyncio.gather(*(said(engine, "\n", 6, leave=index % 4) for index in range(2000)))
        return sum(len(answer) == (index % 4 or 6) for index, answer in enumerate(found))

    assert asyncio.run(run()) == 2000
    asyncio.run(said(engine, "\n", 1))  # whoever left is forgotten when the thread comes by
    emptied(engine)
    engine.close()


def test_an_engine_that_was_ended_says_so() -> None:
    engine = tiny("a" * 400, step_s=0.01)

    async def run() -> None:
        stream = engine.generate(list(b"\n"), wanted(400))
        await anext(stream)
        await asyncio.to_thread(engine.close)
        with pytest.raises(RuntimeError, match="was ended"):
            async for _ in stream:
                pass
        with pytest.raises(RuntimeError, match="was ended"):
            await said(engine, "\n")

    asyncio.run(run())
    assert model_of(engine).closed.is_set()
