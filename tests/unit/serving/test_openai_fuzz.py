"""The surface against its own OpenAPI document, and against requests that nobody would write."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings

from serving.openai.surface import build
from tests.helpers.openai_requests import CONTEXT, requests
from tests.helpers.tiny_engine import tiny

engine = tiny(context=CONTEXT)
web = build(engine, "m", "tiny", 8)
schema = schemathesis.openapi.from_asgi("/openapi.json", web)


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_of_its_document_ends_in_a_fault(case: schemathesis.Case) -> None:
    answer = case.call()
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400 and answer.status_code != 405:
        assert {"message", "type", "param", "code"} == set(answer.json()["error"])


ODD_TEXTS = ("", "a", "\ud800", "\x00", "é" * 50, "auto")
ODD_NUMBERS = (None, True, -1, 0, 1, 2**70, 1.5, 1e308)
ODD_LISTS = ([], [None], [[]], [1], ["a"], [{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}])
ODD_OBJECTS: tuple[Any, ...] = ({}, {"a": 1}, {"type": "function"}, {"1": 1e30})
VALUES: tuple[Any, ...] = (*ODD_TEXTS, *ODD_NUMBERS, *ODD_LISTS, *ODD_OBJECTS)


def mutated(seed: int) -> tuple[str, bytes]:
    """One of the table's requests with fields changed, left out and invented, and now and then with broken bytes."""
    chance = random.Random(seed)
    asked = chance.choice([one for one in requests() if isinstance(one.body, dict)])
    body: dict[str, Any] = {**asked.body, "max_tokens": 3}
    for _ in range(chance.randint(1, 3)):
        more = ["logprobs", "top_logprobs", "tools", "logit_bias", "stop", "n", "top_p", "nonsense"]
        name = chance.choice([*body, *more])
        if chance.random() < 0.1:
            body.pop(name, None)
        else:
            body[name] = chance.choice(VALUES)
    raw = json.dumps(body).replace('"MODEL"', '"m"').encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + chance.randint(0, 3) :]
    return asked.path, raw


def test_two_thousand_mutated_requests_are_answered() -> None:
    statuses: dict[int, int] = {}
    with TestClient(web, raise_server_exceptions=False) as client:
        for seed in range(2000):
            path, raw = mutated(seed)
            answer = client.post(path, content=raw, headers={"content-type": "application/json"})
            assert answer.status_code in (200, 400, 404), (seed, raw, answer.text)
            if answer.status_code != 200:
                assert {"message", "type", "param", "code"} == set(answer.json()["error"])
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert min(statuses.values()) > 20, statuses
    assert web.state.surface.queue.inside == 0


@pytest.fixture(scope="module", autouse=True)
def ended() -> Any:
    """The engine goes with the module."""
    yield
    engine.close()
