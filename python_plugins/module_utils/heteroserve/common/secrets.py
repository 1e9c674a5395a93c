"""What is a secret: by the name of a variable, by its value, by its shape."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any

# A variable's name.
SECRET = re.compile(r"(^|_)(token|password|passwd|passphrase|pass|secret|api_key|key)$")
CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]+@")  # in a URL
REMOVED = "[removed]"
# Shorter values stand in other words, which would be removed with them.
SHORTEST = 6

_NAMES = r"passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|key-data"
_PEM = r"(?:[A-Z0-9]+ )*PRIVATE KEY-----"
# Each with what is left of a match. A log's beginning may have been cut off, and with it that of a key.
_SHAPES = tuple(
    (re.compile(pattern, flags), left)
    for pattern, flags, left in (
        (rf"-----BEGIN {_PEM}.*?(?:-----END {_PEM}|\Z)", re.DOTALL, REMOVED),
        (rf"\A[A-Za-z0-9+/=\s]*-----END {_PEM}", 0, REMOVED),
        (r"\$ANSIBLE_VAULT;[^\n\"\\]*(?:(?:\s|\\n)+[0-9a-f]{20,})*", 0, REMOVED),
        (r"(://)[^/@\s\"']*:[^/@\s\"']+@", 0, rf"\1{REMOVED}@"),
        (r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE, rf"\1 {REMOVED}"),
        (r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{16,}", 0, REMOVED),
        (r"\bAKIA[0-9A-Z]{16}\b", 0, REMOVED),
        (r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*", 0, REMOVED),  # a JSON web token
        (r"\bK10[0-9a-f]{64}::[\w:.-]+", 0, REMOVED),  # a token of K3s
        (r"(\"auth\"\s*:\s*\")[^\"]+", 0, rf"\1{REMOVED}"),  # of a registry
        # A name and a value; numbers, switches and names of variables are no secrets, unless it is a password.
        (
            rf"((?:{_NAMES})\\?[\"']?\s*[:=]\s*\\?[\"']?)(?!\s|\[removed|\{{|(?:true|false|null|none|\d+(?:\.\d+)?)\b(?![\w-]))"
            r"[^\s\"'\\,;&}]{4,}",
            re.IGNORECASE,
            rf"\1{REMOVED}",
        ),
        (r"(passw(?:or)?d\\?[\"']?\s*[:=]\s*\\?[\"']?)\d{4,}\b", re.IGNORECASE, rf"\1{REMOVED}"),
        (rf"(--?(?:[\w-]+-)?(?:{_NAMES})\s+)(?!-|\[removed)\S{{4,}}", re.IGNORECASE, rf"\1{REMOVED}"),
    )
)


def named(variables: Any, key: str = "") -> Iterator[Any]:
    """Values that are secret by the name of a variable, or of a key in it, as they are written; templates too."""
    if isinstance(variables, dict):
        for name, item in variables.items():
            yield from named(item, str(name))
    elif isinstance(variables, list):
        for item in variables:
            yield from named(item, key)
    elif variables and not isinstance(variables, (bool, int, float)) and SECRET.search(key.lower()):
        yield variables


def masked(variables: Any, key: str = "") -> Any:
    """Variables without what is secret by its name."""
    if isinstance(variables, dict):
        return {str(name): masked(item, str(name)) for name, item in variables.items()}
    if isinstance(variables, list):
        return [masked(item, key) for item in variables]
    return REMOVED if variables and SECRET.search(key.lower()) else variables


def spellings(values: Iterable[str]) -> list[str]:
    """Values in every form in which programs write them, the longest first: none is then left half removed.

    A value of several lines is each of its lines. What is shorter than ``SHORTEST`` characters is left out.
    """
    found: set[str] = set()
    for value in values:
        for line in (value.strip(), *map(str.strip, value.splitlines())):
            if len(line) < SHORTEST:
                continue
            found |= {line, json.dumps(line)[1:-1], urllib.parse.quote(line, safe="")}
            found.add(base64.b64encode(line.encode()).decode())
    return sorted(found, key=len, reverse=True)


def removed(text: str, spelled: list[str]) -> tuple[str, int]:
    """The text without these values and without what has the shape of a secret, and how many places that were."""
    count = 0
    for value in spelled:
        if value in text:
            count += text.count(value)
            text = text.replace(value, REMOVED)
    for shape, left in _SHAPES:
        text, places = shape.subn(left, text)
        count += places
    return text, count
