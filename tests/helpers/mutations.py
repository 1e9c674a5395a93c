"""Requests that nobody would write, sent to any OpenAI server: ``python -m tests.helpers.mutations URL MODEL [COUNT]``.

Also asks what schemathesis makes of the server's own OpenAPI document. Prints how often each status came; anything but
200, 400, 404 and 405 is a fault.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.helpers.openai_requests import requests

ODD_TEXTS = ("", "a", "\ud800", "\x00", "é" * 50, "auto")
ODD_NUMBERS = (None, True, -1, 0, 1, 2**70, 1.5, 1e308)
ODD_LISTS = ([], [None], [[]], [1], ["a"], [{"role": "user"}], [{"role": "user", "content": [{"type": "text"}]}])
ODD_OBJECTS: tuple[Any, ...] = ({}, {"a": 1}, {"type": "function"}, {"1": 1e30})
VALUES: tuple[Any, ...] = (*ODD_TEXTS, *ODD_NUMBERS, *ODD_LISTS, *ODD_OBJECTS)
ANSWERS = (200, 400, 404, 405)


def mutated(seed: int, model: str) -> tuple[str, bytes]:
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
    raw = json.dumps(body).replace('"MODEL"', json.dumps(model)).encode()
    if chance.random() < 0.1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + chance.randint(0, 3) :]
    return asked.path, raw


def send(url: str, model: str, count: int, clients: int = 4) -> tuple[Counter[int], list[str]]:
    """How often each status came, and what was no answer as it should be: with the seed, to send it again."""
    statuses: Counter[int] = Counter()
    faults: list[str] = []

    def one(seed: int) -> None:
        path, raw = mutated(seed, model)
        try:
            answer = client.post(path, content=raw, headers={"content-type": "application/json"})
        except httpx.HTTPError as fault:
            faults.append(f"{seed}: {fault!r}")
            return
        statuses[answer.status_code] += 1
        if answer.status_code not in ANSWERS:
            faults.append(f"{seed}: {answer.status_code} {answer.text[:200]}")

    with httpx.Client(base_url=url, timeout=120) as client, ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(count)))
    return statuses, faults


def ask_its_document(url: str, examples: int) -> tuple[Counter[int], list[str]]:
    """The same of requests that schemathesis makes from the server's OpenAPI document."""
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    for operation in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
            phases=[Phase.generate],
        )
        def ask(case: schemathesis.Case) -> None:
            # Answers of any length would be asked for, one after the other.
            if isinstance(case.body, dict):
                case.body["max_tokens"] = 2
                case.body.pop("max_completion_tokens", None)
            answer = case.call(timeout=120)
            statuses[answer.status_code] += 1
            if answer.status_code not in ANSWERS:
                faults.append(f"{case.method} {case.path}: {answer.status_code} {answer.text[:200]}")

        ask()
    return statuses, faults


if __name__ == "__main__":
    address, name = sys.argv[1:3]
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    found = [send(address, name, number), ask_its_document(address, 60)]
    for label, (answers, wrong) in zip(("mutated", "schemathesis"), found, strict=True):
        print(f"{label}: {dict(sorted(answers.items()))}, faults: {wrong[:5]}")
    sys.exit(any(wrong for _, wrong in found))
