"""The endpoint as an operator sees it: what to ask, what is up, how to call it. Pure functions over the plan."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..common.table import table
from ..common.web import at


@dataclass(frozen=True)
class Target:
    """Something that answers OpenAI requests for one model."""

    name: str
    model: str
    url: str  # without /v1
    chat: bool
    questions: tuple[tuple[str, str], ...]  # each with the regular expression that a right answer matches
    needs_key: bool = False


def targets(
    plan: dict[str, Any],
    endpoint: str | None,
    check: dict[str, str],
    checks: dict[str, list[dict[str, str]]],
    with_key: bool,
) -> list[Target]:
    """Every cell by itself, then each model through the gateway where ``endpoint`` names it.

    ``check`` is the usual question and answer; a model that is named in ``checks`` is asked what stands there instead.
    An adapter is asked too. Only who trained it knows what it should answer: any answer is right, unless ``checks``
    names it.
    """
    chat = {model["name"]: bool(model["chat"]) for model in plan["models"]}
    adapters = {
        model["name"]: [one["name"] for one in model.get("beside", ()) if one["kind"] == "adapter"]
        for model in plan["models"]
    }

    def of_model(name: str, model: str, url: str, needs_key: bool) -> Iterator[Target]:
        asked = tuple((one["question"], one["answer"]) for one in checks.get(model) or [check])
        yield Target(name, model, url, chat[model], asked, needs_key)
        for adapter in adapters[model]:
            asked = tuple((one["question"], one["answer"]) for one in checks.get(adapter) or [{**check, "answer": ""}])
            yield Target(name, adapter, url, chat[model], asked, needs_key)

    asked_of = [(cell["name"], cell["model"], cell_url(cell), False) for cell in plan["cells"]]
    asked_of += [("endpoint", model["name"], endpoint, with_key) for model in plan["models"] if endpoint]
    return [target for one in asked_of for target in of_model(*one)]


def chosen_part(plan: dict[str, Any], cells: list[str] | None) -> dict[str, Any]:
    """The plan with these cells alone; all of it if they are None."""
    return plan if cells is None else {**plan, "cells": [cell for cell in plan["cells"] if cell["name"] in cells]}


def cell_url(cell: dict[str, Any]) -> str:
    """Where a cell answers: on its first host."""
    return f"http://{at(cell['address'], cell['ports']['serve'])}"


def status_table(plan: dict[str, Any], states: dict[str, str], servers: dict[str, dict[str, str]]) -> str:
    """What runs where. ``states`` are what the cells themselves say, ``servers`` what the gateway sees."""
    rows = []
    for cell in plan["cells"]:
        server = servers.get(cell["name"], {})
        rows.append(
            [
                cell["name"],
                cell["model"],
                cell["build"],
                ", ".join(cell["hosts"]),
                states.get(cell["name"], "down"),
                server.get("status", "unknown").lower(),
                server.get("scur", "-"),
                server.get("stot", "-"),
            ]
        )
    head = ["CELL", "MODEL", "ENGINE", "HOST", "STATE", "GATEWAY STATE", "REQUESTS", "TOTAL"]
    return table(head, rows, right={6, 7})


def curl_line(endpoint: str, model: dict[str, Any], question: str, needs_key: bool) -> str:
    """A command that an operator can paste."""
    asked = {"messages": [{"role": "user", "content": question}]} if model["chat"] else {"prompt": question}
    body = json.dumps({"model": model["name"], **asked, "temperature": 0, "max_tokens": 64})
    key = ' -H "Authorization: Bearer $API_KEY"' if needs_key else ""
    path = "chat/completions" if model["chat"] else "completions"
    return f"curl -s {endpoint}/v1/{path}{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def summary(endpoint: str, plan: dict[str, Any], question: str, needs_key: bool, places: dict[str, str]) -> str:
    """The endpoint, how to call it, and where plan and logs lie."""
    width = max(map(len, ["endpoint", *places]))
    lines = [f"{'endpoint':<{width}}  {endpoint}/v1"]
    lines += [f"{name:<{width}}  {path}" for name, path in places.items()]
    return "\n".join([*lines, "", "Try it:", curl_line(endpoint, plan["models"][0], question, needs_key)])
