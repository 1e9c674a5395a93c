"""API keys of inventory and playbooks/keys.yml as the gateway's maps have them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_grants
short_description: What each API key may do, in the terms of the gateway's maps
description: Joins the keys of the inventory with those of C(playbooks/keys.yml), and fills in what they leave out.
positional: _input
options:
  _input: {description: "Keys: name, sha256 or key, and limits.", type: list, elements: dict, required: true}
"""

EXAMPLES = r"""
gateway_keys: "{{ gateway_api_keys | gateway_grants }}"
"""

RETURN = r"""
_value:
  description: >-
    For each key its digest, name, when it ends (seconds since 1970), requests_per_minute, concurrent_requests and
    tokens_per_day (0: no limit), priority, and models (empty: all).
  type: list
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

NEVER = 2**62  # HAProxy's integers have 64 bits


def ends(last_day: str) -> int:
    """When a day is over, in seconds since 1970."""
    return int((datetime.fromisoformat(last_day).replace(tzinfo=UTC) + timedelta(days=1)).timestamp())


def gateway_grants(keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each key; of two entries with the same key the first counts."""
    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        digest = str(key.get("sha256") or hashlib.sha256(str(key["key"]).encode()).hexdigest()).lower()
        grant = {
            "digest": digest,
            "name": str(key["name"]),
            "ends": ends(str(key["expires"])) if key.get("expires") else NEVER,
            "requests_per_minute": int(key.get("requests_per_minute") or 0),
            "concurrent_requests": int(key.get("concurrent_requests") or 0),
            "tokens_per_day": int(key.get("tokens_per_day") or 0),
            "priority": str(key.get("priority") or "interactive"),
            "models": list(key.get("models") or []),
        }
        found.setdefault(digest, grant)
    return list(found.values())


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """By its name."""
        return {"gateway_grants": gateway_grants}
