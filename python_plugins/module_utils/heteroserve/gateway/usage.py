"""Tokens of keys: what cells tell, what a key may use in a day, and how it is shown. Pure functions over records."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..common.table import table

DAY_S = 86400
NOBODY = "-"  # whose requests are where no key is asked for


@dataclass(frozen=True)
class Row:
    """What came to a request since the row before it, as a cell tells it (serving/usage.py)."""

    number: int
    at: float  # seconds since 1970
    request: str
    key: str
    model: str
    prompt: int
    answer: int
    all_prompt: int  # of the whole request so far
    all_answer: int
    ended: int


@dataclass(frozen=True)
class Use:
    """What a key used of a model on a day."""

    day: str  # in UTC, as 2027-12-31
    key: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Both."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Page:
    """What a cell answers: its file's own name, and rows after a number."""

    epoch: str
    rows: tuple[Row, ...]


def read_page(text: str | bytes) -> Page:
    """A cell's answer. Raises ``ValueError`` for anything else."""
    try:
        found = json.loads(text)
        return Page(str(found["epoch"]), tuple(Row(*row) for row in found["rows"]))
    except (KeyError, TypeError) as fault:
        raise ValueError(f"no rows: {fault!r}") from fault


def day_of(at: float) -> str:
    """The day of a time, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def summed(rows: Iterable[Row]) -> list[Use]:
    """What rows come to, for each day, key and model."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        one = sums[day_of(row.at), row.key, row.model]
        one[0] += row.ended
        one[1] += row.prompt
        one[2] += row.answer
    return [Use(*what, *numbers) for what, numbers in sorted(sums.items())]


def over(used: Iterable[Use], keys: Iterable[Mapping[str, Any]], now: float) -> dict[str, int]:
    """Digests of keys that have used up their tokens of today, with the day's number, which HAProxy compares.

    ``keys`` have name, digest and tokens_per_day; 0 is no limit. Keys of one name share what it may use.
    """
    tokens = on_day(used, day_of(now))
    return {
        str(key["digest"]): int(now // DAY_S)
        for key in keys
        if key["tokens_per_day"] and tokens.get(str(key["name"]), 0) >= key["tokens_per_day"]
    }


def map_text(entries: Mapping[str, int]) -> str:
    """HAProxy's map file."""
    return "".join(f"{digest} {day}\n" for digest, day in sorted(entries.items()))


def map_commands(shown: str, path: str, wanted: Mapping[str, int]) -> list[str]:
    """What to tell a worker, by its "show map", so that it has these entries."""
    has = {fields[1]: fields[2] for line in shown.splitlines() if len(fields := line.split()) == 3}
    commands = [f"del map {path} {digest}" for digest in sorted(set(has) - set(wanted))]
    for digest, day in sorted(wanted.items()):
        if has.get(digest) != str(day):
            commands.append(f"{'set' if digest in has else 'add'} map {path} {digest} {day}")
    return commands


def report(used: Sequence[Use], keys: Iterable[Mapping[str, Any]], now: float) -> str:
    """A table for an operator: the last day first, and of each key with a limit how much of it is used today."""
    if not used:
        return "No tokens were counted in these days."
    today, limited = day_of(now), limits(keys)
    tokens = on_day(used, today)

    def share(use: Use) -> str:
        limit = limited.get(use.key)
        return f"{tokens[use.key] / limit:.0%} of {limit:,}" if limit and use.day == today else ""

    rows = [
        (
            use.day,
            "no key" if use.key == NOBODY else use.key,
            use.model,
            f"{use.requests:,}",
            f"{use.prompt_tokens:,}",
            f"{use.completion_tokens:,}",
            f"{use.tokens:,}",
            share(use),
        )
        for use in sorted(used, key=lambda use: ([-ord(digit) for digit in use.day], use.key, use.model))
    ]
    head = ("DAY", "KEY", "MODEL", "REQUESTS", "PROMPT", "COMPLETION", "TOKENS", "OF ITS DAY")
    return table(head, rows, right={3, 4, 5, 6, 7})


def as_json(used: Iterable[Use], behind: Mapping[str, float]) -> str:
    """The same for programs; ``behind`` has the seconds since each cell was last read."""
    return json.dumps({"usage": [{**asdict(use), "tokens": use.tokens} for use in used], "behind_s": dict(behind)})


def limits(keys: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Tokens of a day of each key that has a limit."""
    return {str(key["name"]): int(key["tokens_per_day"]) for key in keys if key["tokens_per_day"]}


def on_day(used: Iterable[Use], day: str) -> dict[str, int]:
    """Tokens of each key on a day."""
    found = defaultdict[str, int](int)
    for use in used:
        if use.day == day:
            found[use.key] += use.tokens
    return found


def metrics(
    total: Iterable[Use], keys: Iterable[Mapping[str, Any]], today: Mapping[str, int], behind: Mapping[str, float]
) -> str:
    """The same for Prometheus. ``total`` are sums of all days, so that they only rise; ``today`` has today's tokens."""
    families: dict[str, tuple[str, str, list[tuple[dict[str, str], float]]]] = {
        "heteroserve_key_requests_total": ("counter", "Requests of each key that a cell answered.", []),
        "heteroserve_key_tokens_total": ("counter", "Tokens of each key.", []),
        "heteroserve_key_day_tokens": ("gauge", "Tokens that a key with a limit has used today (UTC).", []),
        "heteroserve_key_day_limit_tokens": ("gauge", "Tokens that a key may use in a day.", []),
        "heteroserve_ledger_behind_seconds": ("gauge", "Since the ledger has read the tokens of a cell.", []),
    }
    for use in total:
        labels = {"key": use.key, "model": use.model}
        families["heteroserve_key_requests_total"][2].append((labels, use.requests))
        counted = families["heteroserve_key_tokens_total"][2]
        counted.append(({**labels, "kind": "prompt"}, use.prompt_tokens))
        counted.append(({**labels, "kind": "completion"}, use.completion_tokens))
    for name, limit in sorted(limits(keys).items()):
        families["heteroserve_key_day_tokens"][2].append(({"key": name}, today.get(name, 0)))
        families["heteroserve_key_day_limit_tokens"][2].append(({"key": name}, limit))
    for cell, seconds in sorted(behind.items()):
        families["heteroserve_ledger_behind_seconds"][2].append(({"cell": cell}, round(seconds, 1)))
    lines = []
    for name, (kind, text, samples) in families.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{{{_labels(labels)}}} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
