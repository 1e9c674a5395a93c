"""The known-answer check as metrics: who was asked, who answered, and whether rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..health.endpoint import Target
from ..health.openai import Answer, fault_of
from .exposition import Sample

HELP = {
    "heteroserve_health_right": "1 if the known-answer check was answered rightly; 0 if wrongly, or not at all.",
    "heteroserve_health_answered": "1 if the known-answer check was answered at all.",
    "heteroserve_health_checked_timestamp_seconds": "When it was last asked.",
    "heteroserve_health_seconds": "How long the answer took.",
    "heteroserve_certificate_expiry_timestamp_seconds": "When a certificate ends.",
}
TOKENS = 32  # as the stage health asks for


@dataclass(frozen=True)
class Verdict:
    """What one target said."""

    target: Target
    answered: bool
    fault: str  # "" if it is right
    seconds: float
    at: float  # seconds since 1970


def check(target: Target, ask: Callable[[Target, str], Answer], clock: Callable[[], float]) -> Verdict:
    """Ask every question of a target, up to the first wrong answer."""
    fault, answered, seconds = "", True, 0.0
    for question, expected in target.questions:
        answer = ask(target, question)
        seconds += answer.total_s
        answered = not answer.error
        fault = fault_of(answer, expected, question)
        if fault:
            break
    return Verdict(target, answered, fault, seconds, clock())


def samples(verdicts: list[Verdict], hosts: dict[str, str]) -> Iterator[Sample]:
    """Of each target. ``hosts`` are those of cells; of a model asked through the gateway the cell is empty."""
    for verdict in verdicts:
        cell = "" if verdict.target.name == "endpoint" else verdict.target.name
        labels = {"cell": cell, "model": verdict.target.model, "host": hosts.get(cell, "")}
        yield Sample("heteroserve_health_right", float(not verdict.fault), labels)
        yield Sample("heteroserve_health_answered", float(verdict.answered), labels)
        yield Sample("heteroserve_health_checked_timestamp_seconds", verdict.at, labels)
        if verdict.answered:
            yield Sample("heteroserve_health_seconds", verdict.seconds, labels)


def news(before: dict[str, str], verdicts: list[Verdict]) -> list[str]:
    """Sentences for the journal where a verdict has changed; ``before`` is what was known, and is kept up to date."""
    said = []
    for verdict in verdicts:
        name = f"{verdict.target.name} ({verdict.target.model})"
        if before.get(name, "") != verdict.fault:
            said.append(f"{name}: {verdict.fault or 'answers rightly again'}")
        before[name] = verdict.fault
    return said
