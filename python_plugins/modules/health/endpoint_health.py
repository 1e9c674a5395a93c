#!/usr/bin/python
"""Ansible module: does every cell, and the endpoint, answer rightly and how fast?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_health
short_description: Run the known-answer check on cells and endpoint
description:
  - Sends each target its model's questions at temperature 0, the first once whole and once streamed, and compares the
    answers with regular expressions, whatever engine answers. A server that started, and a health check that says 200,
    do not show that it answers rightly.
  - Reports the time to the first token and tokens a second, and fails with the reason if an answer is wrong.
  - Asks the cells side by side, then the models through the endpoint. Cells of one host share its processors then.
options:
  plan: {description: The plan., type: dict, required: true}
  endpoint: {description: "The endpoint, without C(/v1). Where it is left out, only cells are asked.", type: str}
  cells: {description: Names of the cells that are asked; all where left out., type: list, elements: str}
  question: {description: What is asked., type: str, default: What is the capital of France?}
  answer: {description: Regular expression that a right answer matches., type: str, default: Paris}
  checks:
    description: For single models, by their name, what they are asked instead, as a list of C(question) and C(answer).
    type: dict
    default: {}
  key_file: {description: "File with an API key for the endpoint, where it asks for one.", type: path}
  timeout: {description: Seconds that one answer may take., type: int, default: 120}
  attempts:
    description: How often a target is asked, a second apart, before its fault counts (a gateway needs a moment to
      see that a cell is up).
    type: int
    default: 5
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Check that the endpoint answers rightly
  endpoint_health:
    plan: "{{ plan }}"
    endpoint: http://127.0.0.1:8080
"""

RETURN = r"""
healthy: {description: Whether every answer was right., returned: always, type: bool}
checks: {description: "For each target: ok, reason, first_token_s, tokens_per_s.", returned: always, type: list}
report: {description: The table., returned: always, type: str}
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.table import table
from ansible.module_utils.heteroserve.health.endpoint import Target, chosen_part, targets
from ansible.module_utils.heteroserve.health.openai import Answer, ask, fault_of

AT_ONCE = 32  # requests of this module


def check(target: Target, key: str, timeout: int, attempts: int) -> dict[str, Any]:
    """Ask one target whole and streamed, again for as long as it is wrong and attempts are left.

    A last request has a temperature, as those of most clients have: it takes another way through the engine's sampler,
    and may be answered with anything.
    """

    def answer(question: str, stream: bool = False, **options: Any) -> Answer:
        return ask(
            target.url,
            target.model,
            question,
            chat=target.chat,
            stream=stream,
            key=key if target.needs_key else "",
            timeout_s=timeout,
            **options,
        )

    (question, expected), *more = target.questions
    for attempt in range(attempts):
        if attempt:
            time.sleep(1)
        whole = answer(question)
        fault = fault_of(whole, expected, question)
        streamed = answer(question, stream=True) if not fault else whole
        fault = fault or fault_of(streamed, expected, question)
        if not fault and whole.text != streamed.text:
            fault = f"answered {whole.text[:60]!r}, and streamed {streamed.text[:60]!r}"
        for another, right in more:
            fault = fault or fault_of(answer(another), right, another)
        if not fault and (error := answer(question, temperature=1, max_tokens=4).error):
            fault = f"answers at temperature 0, and to a request with a temperature: {error}"
        if not fault:
            break
    return {
        "name": target.name,
        "model": target.model,
        "url": target.url,
        "ok": not fault,
        "reason": fault,
        "answer": " ".join(streamed.text.split()),
        "first_token_s": round(streamed.first_token_s, 4),
        "tokens_per_s": round(streamed.tokens_per_s, 1),
    }


def check_all(
    chosen: list[Target], endpoint: str | None, ask_one: Callable[[Target], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Ask the cells side by side, and then the endpoint, whose answers come from the same cells."""
    done: list[dict[str, Any]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for through_gateway in (False, True):
            done += pool.map(ask_one, [target for target in chosen if (target.url == endpoint) == through_gateway])
    return done


def report(checks: list[dict[str, Any]]) -> str:
    """The table that an operator reads."""
    rows = [
        [
            item["name"],
            item["model"],
            "right" if item["ok"] else "WRONG",
            f"{item['first_token_s'] * 1000:.0f} ms" if item["ok"] else "-",
            f"{item['tokens_per_s']:.0f}" if item["ok"] else "-",
            item["answer"][:50] if item["ok"] else item["reason"][:90],
        ]
        for item in checks
    ]
    text: str = table(["TARGET", "MODEL", "ANSWER", "FIRST TOKEN", "TOKENS/S", "IT SAID"], rows, right={3, 4})
    return text


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "endpoint": {"type": "str"},
            "cells": {"type": "list", "elements": "str"},
            "question": {"type": "str", "default": "What is the capital of France?"},
            "answer": {"type": "str", "default": "Paris"},
            "checks": {"type": "dict", "default": {}},
            "key_file": {"type": "path", "no_log": False},
            "timeout": {"type": "int", "default": 120},
            "attempts": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, healthy=True, checks=[], report="not asked in check mode")
    asked = module.params
    key = Path(asked["key_file"]).read_text().strip() if asked["key_file"] else ""
    usual = {"question": asked["question"], "answer": asked["answer"]}
    plan = chosen_part(asked["plan"], asked["cells"])
    chosen = targets(plan, asked["endpoint"], usual, asked["checks"], bool(key))
    checks = check_all(
        chosen, asked["endpoint"], lambda target: check(target, key, asked["timeout"], asked["attempts"])
    )
    bad = [f"{item['name']}: {item['reason']}" for item in checks if not item["ok"]]
    module.exit_json(changed=False, healthy=not bad, checks=checks, report=report(checks), faults=bad)


if __name__ == "__main__":
    main()
