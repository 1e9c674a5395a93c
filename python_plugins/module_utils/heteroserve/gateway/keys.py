"""API keys that playbooks/keys.yml makes, as pure functions over what is kept of them, which is their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ..common.records import from_dict
from ..common.table import table

LONGEST_NAME = 64  # characters
PRIORITIES = ("interactive", "batch")


@dataclass(frozen=True)
class Key:
    """What is kept of a key. Limits that are None do not hold."""

    name: str
    sha256: str
    created: str  # day, in UTC, as 2027-12-31
    expires: str | None = None  # last day
    models: tuple[str, ...] = ()  # that it may use; all, if there is none
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    priority: str | None = None


LIMITS = ("expires", "models", "requests_per_minute", "concurrent_requests", "tokens_per_day", "priority")


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for. None leaves a limit as it is; an empty list, an empty text or 0 takes it away."""

    name: str
    expires: str | None = None
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    priority: str | None = None


def faults(wanted: Wanted, known_models: Sequence[str], elsewhere: Sequence[str]) -> list[str]:
    """A sentence for everything that is wrong. ``elsewhere`` are names of keys that the inventory has."""
    found = []
    if not wanted.name or len(wanted.name) > LONGEST_NAME or not wanted.name.isprintable():
        found.append(f"key_name: found {wanted.name!r}; set 1 to {LONGEST_NAME} printable characters")
    if wanted.name in elsewhere:
        found.append(f"key_name: {wanted.name} is a key of the inventory; change it there (gateway_api_keys)")
    if wanted.expires and not is_day(wanted.expires):
        found.append(f"key_expires: found {wanted.expires!r}; set the key's last day (UTC), as 2027-12-31")
    for model in wanted.models or ():
        if model not in known_models:
            found.append(f"key_models: there is no {model}; set any of {', '.join(known_models)}")
    if wanted.priority and wanted.priority not in PRIORITIES:
        found.append(f"key_priority: found {wanted.priority!r}; set {' or '.join(PRIORITIES)}")
    limits = {
        "key_requests_per_minute": wanted.requests_per_minute,
        "key_concurrent_requests": wanted.concurrent_requests,
        "key_tokens_per_day": wanted.tokens_per_day,
    }
    found += [
        f"{name}: found {value}; set at least 1, or 0 for no limit"
        for name, value in limits.items()
        if (value or 0) < 0
    ]
    return found


def is_day(text: str) -> bool:
    """Whether a text is a day as 2027-12-31."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def digest(secret: str) -> str:
    """What is kept of a key, and what the gateway compares."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read(kept: Any) -> tuple[Key, ...]:
    """Keys of the file's JSON. Raises ``ValueError`` that names what is wrong."""
    return from_dict(tuple[Key, ...], kept, "keys.json")


def present(keys: tuple[Key, ...], wanted: Wanted, secret: str, today: str) -> tuple[Key, ...]:
    """The keys with the wanted one: changed if it is there, otherwise made from ``secret`` today."""
    old = {key.name: key for key in keys}
    key = old.get(wanted.name) or Key(wanted.name, digest(secret), today)
    given = {name: getattr(wanted, name) for name in LIMITS if getattr(wanted, name) is not None}
    given = {name: value or (() if name == "models" else None) for name, value in given.items()}
    return tuple((old | {key.name: replace(key, **given)}).values())


def absent(keys: tuple[Key, ...], name: str) -> tuple[Key, ...]:
    """The keys without one."""
    return tuple(key for key in keys if key.name != name)


def shown(keys: Sequence[Key], inventory: Sequence[dict[str, Any]], today: str) -> str:
    """All keys as a table, those of the inventory first."""

    def row(name: str, source: str, created: str, key: dict[str, Any]) -> tuple[str, ...]:
        day = str(key["expires"] or "never")
        return (
            name,
            source,
            created,
            f"{day} (over)" if key["expires"] and day < today else day,
            ", ".join(key["models"] or ["all"]),
            str(key["requests_per_minute"] or "any"),
            str(key["concurrent_requests"] or "any"),
            f"{key['tokens_per_day']:,}" if key["tokens_per_day"] else "any",
            str(key["priority"] or PRIORITIES[0]),
        )

    rows = [row(str(key["name"]), "inventory", "", {name: key.get(name) for name in LIMITS}) for key in inventory]
    rows += [row(key.name, "keys.yml", key.created, {name: getattr(key, name) for name in LIMITS}) for key in keys]
    head = ("KEY", "FROM", "CREATED", "LAST DAY", "MODELS", "A MINUTE", "AT ONCE", "TOKENS A DAY", "PRIORITY")
    return table(head, rows, right={5, 6, 7}) if rows else "There is no key: everyone who reaches the endpoint may ask."
