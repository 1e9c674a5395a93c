"""The OpenAI surface of engines without a server of their own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from serving.engines import echo
from serving.engines.stepping import SteppingEngine
from serving.openai.surface import build
from serving.openai.text import CheckpointText
from tests.helpers.openai_requests import CONTEXT, QUESTION, Asked, requests, told
from tests.helpers.tiny_engine import model_of, tiny

CHAT = "/v1/chat/completions"


@pytest.fixture
def engine() -> Iterator[SteppingEngine]:
    made = tiny(context=CONTEXT)
    yield made
    made.close()


@pytest.fixture
def client(engine: SteppingEngine) -> Iterator[TestClient]:
    with TestClient(build(engine, "m", "tiny", 8), raise_server_exceptions=False) as found:
        yield found


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": QUESTION, "temperature": 0, **fields}


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("asked", list(requests()), ids=lambda asked: asked.name)
def test_it_answers_as_vllms_server(asked: Asked, client: TestClient) -> None:
    """What differs stands in the table, with the reason."""
    raw = asked.raw.replace(b'"MODEL"', b'"m"')
    answer = client.post(asked.path, content=raw, headers={"content-type": "application/json"})
    assert told(answer.status_code, answer.content) == asked.here
    assert bool(asked.ours) == bool(asked.why)


def test_a_chat_is_answered_with_usage(client: TestClient) -> None:
    answer = client.post(CHAT, json=body(max_tokens=20)).json()
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Paris is it."}
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    prompt = len(QUESTION[0]["content"]) + 1
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 13, "total_tokens": prompt + 13}


def test_a_stream_has_the_same_text_and_ends_with_its_usage(client: TestClient) -> None:
    asked = body(stream=True, stream_options={"include_usage": True}, max_tokens=20)
    *pieces, usage = events(client.post(CHAT, json=asked).text)
    choices = [piece["choices"][0] for piece in pieces]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Paris is it."
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 13


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "text", "reason", "stop"),
    [
        ({"max_tokens": 5}, "Paris", "length", None),
        ({"stop": [" is", "it"]}, "Paris", "stop", " is"),
        ({"stop": "s i", "include_stop_str_in_output": True}, "Paris i", "stop", "s i"),
        ({"stop": "Paris is it.."}, "Paris is it.", "stop", None),
        ({"stop_token_ids": [ord(" ")]}, "Paris", "stop", 32),
        ({"ignore_eos": True, "max_tokens": 14}, "Paris is it.", "length", None),
    ],
)
def test_an_answer_ends_where_it_was_asked_to(
    stream: bool, fields: dict[str, Any], text: str, reason: str, stop: object, client: TestClient
) -> None:
    answer = client.post(CHAT, json=body(stream=stream, **fields))
    if stream:
        choices = [piece["choices"][0] for piece in events(answer.text)]
        found = "".join(choice["delta"].get("content", "") for choice in choices)
        last = choices[-1]
    else:
        (last,) = answer.json()["choices"]
        found = last["message"]["content"]
    assert (found, last["finish_reason"], last["stop_reason"]) == (text, reason, stop)


def test_characters_of_several_tokens_come_whole() -> None:
    made = tiny("Größe: 5 €")
    with TestClient(build(made, "m", "tiny", 8)) as client:
        pieces = [
            one["choices"][0]["delta"].get("content", "")
            for one in events(client.post(CHAT, json=body(stream=True)).text)
        ]
    made.close()
    assert "".join(pieces) == "Größe: 5 €"
    assert not any("\ufffd" in piece for piece in pieces)


def test_logprobs_name_the_token_and_the_likeliest(client: TestClient) -> None:
    answer = client.post(CHAT, json=body(max_tokens=2, logprobs=True, top_logprobs=2)).json()
    first, second = answer["choices"][0]["logprobs"]["content"]
    assert (first["token"], second["token"]) == ("P", "a")
    assert first["top_logprobs"][0]["token"] == "P"
    assert len(first["top_logprobs"]) == 2
    assert -0.1 < first["logprob"] < 0
    asked = {"model": "m", "prompt": "x\n", "max_tokens": 2, "logprobs": 1, "temperature": 0}
    found = client.post("/v1/completions", json=asked).json()["choices"][0]["logprobs"]
    assert (found["tokens"], found["text_offset"]) == (["P", "a"], [0, 1])


def test_several_answers_and_prompts_have_their_own_places(client: TestClient) -> None:
    asked = {"model": "m", "prompt": ["a\n", "b\nPa"], "n": 2, "max_tokens": 3, "temperature": 0.1, "seed": 1}
    answer = client.post("/v1/completions", json=asked).json()
    assert [(one["index"], one["text"]) for one in answer["choices"]] == [
        (0, "Par"),
        (1, "Par"),
        (2, "ris"),
        (3, "ris"),
    ]
    assert answer["usage"]["prompt_tokens"] == 6


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("style", "reply", "before"),
    [
        ("hermes", 'Wait. <tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>', "Wait. "),
        ("llama3_json", '{"name": "weather", "parameters": {"city": "Paris"}}', ""),
    ],
)
def test_a_tool_is_called(stream: bool, style: str, reply: str, before: str) -> None:
    made = tiny(reply, style=style)
    with TestClient(build(made, "m", "tiny", 8)) as client:
        answer = client.post(CHAT, json=body(tools=[TOOL], stream=stream))
    made.close()
    if stream:
        choices = [one["choices"][0] for one in events(answer.text)]
        text = "".join(one["delta"].get("content") or "" for one in choices)
        (call,) = choices[-1]["delta"]["tool_calls"]
        reason = choices[-1]["finish_reason"]
    else:
        (choice,) = answer.json()["choices"]
        text, (call,), reason = (
            choice["message"]["content"] or "",
            choice["message"]["tool_calls"],
            choice["finish_reason"],
        )
    assert (text, reason) == (before, "tool_calls")
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}


@pytest.mark.parametrize(
    ("style", "reply"),
    [("hermes", "a <tool_call>{no JSON"), ("hermes", "a < b"), ("llama3_json", "{5}"), ("llama3_json", "plain")],
)
def test_what_is_no_call_is_shown_as_it_was_said(style: str, reply: str) -> None:
    made = tiny(reply, style=style)
    with TestClient(build(made, "m", "tiny", 8)) as client:
        (choice,) = client.post(CHAT, json=body(tools=[TOOL])).json()["choices"]
    made.close()
    assert (choice["message"]["content"], choice["finish_reason"]) == (reply, "stop")


def test_an_exception_ends_its_own_request_only(engine: SteppingEngine, client: TestClient) -> None:
    def fail(held: list[list[int]]) -> None:
        if any(bytes(one).startswith(b"bad\nPar") for one in held):
            raise ValueError("a kernel does not like it")

    model_of(engine).before = fail
    asked = {"model": "m", "prompt": ["good\n", "bad\n"], "max_tokens": 20, "temperature": 0}
    bad = client.post("/v1/completions", json=asked)
    assert bad.status_code == 500
    assert bad.json()["error"]["type"] == "InternalServerError"
    streamed = events(client.post("/v1/completions", json={**asked, "prompt": "bad\n", "stream": True}).text)
    assert "".join(one["choices"][0]["text"] for one in streamed[:-1]) == "Par"
    assert streamed[-1]["error"]["code"] == 500
    good = client.post("/v1/completions", json={**asked, "prompt": "good\n"})
    assert good.json()["choices"][0]["text"] == "Paris is it."
    assert client.get("/health").status_code == 200


def test_the_health_is_the_engines(engine: SteppingEngine, client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    engine.close()
    assert client.get("/health").status_code == 503


def test_models_and_metrics(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("m", "model", CONTEXT)
    client.post(CHAT, json=body(max_tokens=4))
    client.post(CHAT, json=body(top_p=7))
    lines = client.get("/metrics").text
    assert 'heteroserve_engine_generation_tokens_total{engine="tiny",model_name="m"} 4.0' in lines
    assert 'finished_reason="length",model_name="m"} 1.0' in lines
    assert 'status="400"} 1.0' in lines
    assert 'heteroserve_engine_num_requests{engine="tiny",model_name="m"} 0.0' in lines


def test_the_model_has_its_way_of_asking() -> None:
    made = tiny(style="hermes")
    with TestClient(build(made, "m", "tiny", 8)) as client:
        client.post(CHAT, json=body(tools=[TOOL], chat_template_kwargs={"enable_thinking": False}))
    made.close()
    options = made.text.options  # type: ignore[attr-defined]
    assert options["tools"][0]["function"]["name"] == "weather"
    assert options["enable_thinking"] is False


@asynccontextmanager
async def connected(web: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server on a port of its own: only there can a client leave."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(web, host="127.0.0.1", port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_generation(stream: bool) -> None:
    made = tiny("x" * 400, step_s=0.02)
    web = build(made, "m", "tiny", 8)

    async def run() -> int:
        async with connected(web) as client:
            if stream:
                async with client.stream("POST", CHAT, json=body(stream=True)) as answer:
                    await anext(answer.aiter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):
                    await client.post(CHAT, json=body(), timeout=0.3)
            await asyncio.sleep(0.15)
            left = model_of(made).steps
            await asyncio.sleep(0.4)
            assert web.state.surface.queue.inside == 0
            return model_of(made).steps - left

    assert asyncio.run(run()) == 0
    made.close()


def test_beyond_the_queue_clients_are_told_when_to_come_again() -> None:
    made = tiny("x" * 20, slots=1, step_s=0.02)
    web = build(made, "m", "tiny", 2)

    async def run() -> list[httpx.Response]:
        async with connected(web) as client:
            return list(await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(6))))

    found = asyncio.run(run())
    assert sorted(answer.status_code for answer in found) == [200] * 3 + [429] * 3
    (refused, *_) = [answer for answer in found if answer.status_code == 429]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["code"] == 429
    made.close()


def test_the_event_loop_is_free_while_the_model_computes() -> None:
    made = tiny("x" * 20, step_s=0.05)

    async def run() -> float:
        async with connected(build(made, "m", "tiny", 8)) as client:
            task = asyncio.create_task(client.post(CHAT, json=body()))
            slowest = 0.0
            while not task.done():
                began = time.monotonic()
                assert (await client.get("/health")).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
            return slowest

    # The answer takes a second: a loop that waited for the model would let every health check wait for it.
    assert asyncio.run(run()) < 0.5
    made.close()


def test_the_engine_for_tests_answers_through_the_same_surface() -> None:
    made = echo.load("", echo.Arguments(max_model_len=100))
    with TestClient(build(made, "m", "echo", 8)) as client:
        answer = client.post(CHAT, json=body()).json()
        assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."
        said = client.post("/v1/completions", json={"prompt": "Grüße an alle", "stream": True}).text
        assert "".join(one["choices"][0]["text"] for one in events(said)) == "Grüße an alle"
        refused = client.post(CHAT, json=body(logit_bias={"1": 2}))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logit_bias")
        long = client.post(CHAT, json=body(messages=[{"role": "user", "content": "word " * 120}]))
        assert (long.status_code, long.json()["error"]["param"]) == (400, "input_tokens")
        assert "100 tokens" in long.json()["error"]["message"]
        assert "120 input tokens" in long.json()["error"]["message"]


def test_a_checkpoints_tokenizer_refuses_what_is_no_utf8(tmp_path: Path) -> None:
    """Whatever release of tokenizers the engine has: that of BigDL replaces half a surrogate pair."""
    made = Tokenizer(WordLevel({"Paris": 0, "?": 1}, unk_token="?"))
    made.save(str(tmp_path / "tokenizer.json"))
    text = CheckpointText(tmp_path)
    assert text.encode("Paris", special=False) == [0]
    with pytest.raises(UnicodeError):
        text.encode("\ud800", special=False)
