"""Requests to an OpenAI server, right and wrong ones, and what vLLM's server answers them.

Each expectation was taken from vLLM 0.29 with SmolLM2-135M-Instruct and a context of 512 tokens (``python -m
tests.helpers.openai_requests URL MODEL`` prints what a server answers). Where ours differs, ``ours`` says how.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CONTEXT = 512
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True)
class Asked:
    """A request, and what vLLM's server answers: the status, and for an error its type and the field."""

    name: str
    path: str
    body: Any  # an object, or bytes as they are
    expected: str
    ours: str = ""  # where this project's surface answers otherwise
    why: str = ""  # and why

    @property
    def raw(self) -> bytes:
        """The body's bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def here(self) -> str:
        """What this project's surface answers."""
        return self.ours or self.expected


def chat(name: str, expected: str, ours: str = "", why: str = "", **fields: Any) -> Asked:
    """A chat with some fields changed; None for a field leaves it out."""
    body = {"model": "MODEL", "messages": QUESTION, "max_tokens": 8, "temperature": 0, **fields}
    return Asked(
        f"chat: {name}", CHAT, {key: value for key, value in body.items() if value != "LEFT OUT"}, expected, ours, why
    )


def text(name: str, expected: str, ours: str = "", why: str = "", **fields: Any) -> Asked:
    """A completion with some fields changed."""
    body = {"model": "MODEL", "prompt": "One, two, three,", "max_tokens": 4, "temperature": 0, **fields}
    return Asked(
        f"text: {name}", TEXT, {key: value for key, value in body.items() if value != "LEFT OUT"}, expected, ours, why
    )


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
NOT_HERE = "no engine here can honour it, so the request is refused by name"
PARAM = "the field is named, which vLLM leaves out here"


def requests() -> Iterator[Asked]:
    """The table."""
    yield chat("plain", "200")
    yield chat("no max_tokens", "200", max_tokens=8, max_completion_tokens="LEFT OUT")
    yield chat("max_completion_tokens", "200", max_completion_tokens=4)
    yield chat("model left out", "200", model="LEFT OUT")
    yield chat("model unknown", "404 NotFoundError model", model="gpt-4")
    yield chat("model null", "200", model=None)
    yield chat("model a number", "400 Bad Request body.model", model=1)
    yield chat("temperature 0.7", "200", temperature=0.7, top_p=0.9, seed=1)
    yield chat("temperature negative", "400 BadRequestError temperature", temperature=-1)
    yield chat("temperature a text", "400 Bad Request body.temperature", temperature="hot")
    yield chat("top_p 0", "400 BadRequestError top_p", top_p=0)
    yield chat("top_p 2", "400 BadRequestError top_p", top_p=2)
    yield chat("top_k -2", "400 BadRequestError None", "400 BadRequestError top_k", PARAM, top_k=-2)
    yield chat("top_k 5", "200", top_k=5, temperature=1)
    yield chat("min_p 0.1", "200", min_p=0.1, temperature=1)
    yield chat("min_p 2", "400 BadRequestError None", "400 BadRequestError min_p", PARAM, min_p=2)
    yield chat(
        "presence 3", "400 BadRequestError None", "400 BadRequestError presence_penalty", PARAM, presence_penalty=3
    )
    yield chat("penalties", "200", presence_penalty=0.5, frequency_penalty=0.5, repetition_penalty=1.1)
    yield chat("n 2", "200", n=2, temperature=1)
    yield chat("n 0", "400 BadRequestError None", "400 BadRequestError n", PARAM, n=0)
    yield chat("n 2 greedy", "400 BadRequestError None", "400 BadRequestError n", PARAM, n=2, temperature=0)
    yield chat("max_tokens 0", "400 BadRequestError max_tokens", max_tokens=0)
    yield chat("max_tokens -1", "400 BadRequestError max_tokens", max_tokens=-1)
    yield chat("max_tokens beyond the context", "400 BadRequestError max_tokens", max_tokens=4000)
    yield chat("min_tokens", "200", min_tokens=4)
    yield chat("stop", "200", stop=["Paris"])
    yield chat("stop a text", "200", stop="capital")
    yield chat("stop empty", "400 BadRequestError None", "400 BadRequestError stop", PARAM, stop=[""])
    yield chat("stop_token_ids", "200", stop_token_ids=[2])
    yield chat("seed too large", "400 Bad Request body.seed", seed=2**64)
    yield chat("logprobs", "200", logprobs=True, top_logprobs=3)
    yield chat("top_logprobs without logprobs", "400 BadRequestError top_logprobs", top_logprobs=3)
    yield chat(
        "top_logprobs 50",
        "400 BadRequestError logprobs",
        "400 BadRequestError top_logprobs",
        "the client's field",
        logprobs=True,
        top_logprobs=50,
    )
    yield chat("logit_bias", "200", logit_bias={"5": 1})
    yield chat("logit_bias unknown token", "400 BadRequestError logit_bias", logit_bias={"999999": 1})
    yield chat("ignore_eos", "200", ignore_eos=True)
    yield chat("stream", "200", stream=True)
    yield chat("stream with usage", "200", stream=True, stream_options={"include_usage": True})
    yield chat("stream_options alone", "400 BadRequestError stream_options", stream_options={"include_usage": True})
    yield chat("an unknown field", "200", anything="x")
    yield chat("user", "200", user="me")
    yield chat("response_format text", "200", response_format={"type": "text"})
    yield chat(
        "response_format json",
        "200",
        "400 BadRequestError response_format",
        NOT_HERE,
        response_format={"type": "json_object"},
    )
    yield chat("beams", "200", "400 BadRequestError use_beam_search", NOT_HERE, use_beam_search=True, n=2)
    yield chat(
        "structured",
        "200",
        "400 BadRequestError structured_outputs",
        NOT_HERE,
        structured_outputs={"choice": ["a", "b"]},
    )
    yield chat(
        "tools auto",
        "400 BadRequestError None",
        "400 BadRequestError tools",
        "this model's template has no tools",
        tools=[TOOL],
    )
    yield chat("tools empty", "400 BadRequestError tools", tools=[])
    yield chat("tool_choice alone", "400 BadRequestError tool_choice", tool_choice="auto")
    yield chat("tool_choice none", "200", tool_choice="none")
    yield chat("messages left out", "400 Bad Request body.messages", messages="LEFT OUT")
    yield chat("messages a text", "400 Bad Request body.messages", messages="hello")
    yield chat("messages empty", "400 BadRequestError None", "400 Bad Request body.messages", PARAM, messages=[])
    yield chat(
        "a message without role",
        "400 Bad Request body.messages.0.ChatCompletionDeveloperMessageParam.role",
        "400 Bad Request body.messages.0.role",
        "a client knows no classes of the server",
        messages=[{"content": "x"}],
    )
    yield chat("content in parts", "200", messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}])
    yield chat(
        "an image",
        "400 BadRequestError None",
        "400 BadRequestError messages",
        PARAM,
        messages=[
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]}
        ],
    )
    yield chat(
        "longer than the context",
        "400 BadRequestError input_tokens",
        messages=[{"role": "user", "content": "word " * 600}],
    )
    yield text("plain", "200")
    yield text("two prompts", "200", prompt=["One, two,", "three, four,"])
    yield text("tokens", "200", prompt=[1, 2, 3, 4])
    yield text(
        "tokens out of the vocabulary", "400 BadRequestError None", "400 BadRequestError prompt", PARAM, prompt=[999999]
    )
    yield text("prompt left out", "400 BadRequestError prompt", prompt="LEFT OUT")
    yield text("prompt empty", "400 BadRequestError prompt", prompt="")
    yield text("echo", "200", echo=True)
    yield text("logprobs", "200", logprobs=2)
    yield text("logprobs -5", "400 BadRequestError logprobs", logprobs=-5)
    yield text("suffix", "400 BadRequestError None", "400 BadRequestError suffix", PARAM, suffix="x")
    yield text("stream", "200", stream=True)
    yield text("longer than the context", "400 BadRequestError input_tokens", prompt="word " * 600)
    yield Asked("no JSON", CHAT, b"{", "400 Bad Request body.1")
    yield Asked("an array", CHAT, b"[]", "400 Bad Request body")
    yield Asked("null", CHAT, b"null", "400 Bad Request body")
    yield Asked("no body", CHAT, b"", "400 Bad Request body")
    yield Asked(
        "half a surrogate pair",
        CHAT,
        b'{"messages":[{"role":"user","content":"\\ud800"}],"max_tokens":2}',
        "400 BadRequestError None",
        "400 BadRequestError messages",
        PARAM,
    )
    yield Asked(
        "half a surrogate pair in a prompt",
        TEXT,
        b'{"prompt":"\\ud800","max_tokens":2}',
        "400 BadRequestError None",
        "400 BadRequestError prompt",
        PARAM,
    )


def told(status: int, body: bytes) -> str:
    """An answer as the table writes it."""
    if status == 200:
        return "200"
    error = json.loads(body)["error"]
    return f"{status} {error['type']} {error['param']}"


def send(url: str, model: str, one: Asked, timeout_s: float = 120) -> str:
    """Send a request; what came back as the table writes it."""
    raw = one.raw.replace(b'"MODEL"', json.dumps(model).encode())
    request = urllib.request.Request(url + one.path, raw, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return told(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return told(error.code, error.read())


if __name__ == "__main__":
    for wanted in requests():
        found = send(sys.argv[1], sys.argv[2], wanted)
        print(
            "=" if found == wanted.expected else "!",
            "=" if found == wanted.here else "!",
            wanted.name,
            "|",
            found,
            "|",
            wanted.expected,
            "|",
            wanted.ours,
        )
