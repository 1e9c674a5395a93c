"""Requests as the benchmark keeps them, made by hand."""

from __future__ import annotations

from array import array
from typing import Any

from serving.bench.records import Record
from serving.bench.statistics import figures


def record(
    index: int = 0,
    sent: float = 0.0,
    first: float = 0.1,
    gap: float = 0.01,
    tokens: int = 11,
    due: float | None = None,
    fault: str = "",
    prompt: int = 20,
) -> Record:
    """An answered request whose tokens came one by one; with ``fault`` one that failed when it should have begun."""
    if fault:
        return Record(
            index, sent if due is None else due, sent=sent, last=sent + first, fault=fault, said=f"{fault} said"
        )
    made = Record(index, sent if due is None else due, sent, sent + first, 0.0, prompt, tokens, tokens)
    made.gaps = array("d", [gap] * (tokens - 1))
    made.last = made.first + gap * (tokens - 1)
    return made


def point(clients: int | None = 2, rate: float | None = None, **changes: Any) -> dict[str, Any]:
    """A measurement with four answers and an error."""
    records = [record(number, sent=0.1 * number) for number in range(4)] + [record(4, sent=0.2, fault="HTTP 503")]
    records.sort(key=lambda each: each.sent)
    made = {
        "label": f"{clients} clients" if clients else f"{rate:g} requests/s",
        "model_id": "llama",
        "clients": clients,
        "rate": rate,
        **figures(records, 0.0, clients),
        "prediction": None,
        "cells": [],
        "power": None,
        "joules_per_token": None,
        "client_processes": 2,
    }
    return made | changes


def result(*points: dict[str, Any], notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """A result with these measurements."""
    return {
        "date": "2026-11-29 20:00:00",
        "endpoint": "http://127.0.0.1:8080",
        "model": "llama",
        "workload": {
            "description": "14 to 40 tokens asked, 256 answered",
            "source": "the guide",
            "prompt_tokens": "14 to 40",
            "output_tokens": "256",
            "temperature": 1.0,
            "ignore_eos": True,
        },
        "machine": {"name": "here", "cpus": 2},
        "points": list(points),
        "notes": list(notes),
    }
