"""The surface against its own OpenAPI document, and against requests that nobody would write."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings

from serving.openai.surface import build
from tests.helpers.mutations import mutated
from tests.helpers.openai_requests import CONTEXT
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


def test_two_thousand_mutated_requests_are_answered() -> None:
    statuses: dict[int, int] = {}
    with TestClient(web, raise_server_exceptions=False) as client:
        for seed in range(2000):
            path, raw = mutated(seed, "m")
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
