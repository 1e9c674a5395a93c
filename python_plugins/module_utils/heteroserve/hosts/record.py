"""What a host had before HeteroServe changed it, kept until it is put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..common.files import write_whole


def load(path: Path) -> dict[str, Any]:
    """What is remembered; empty if nothing is."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return data if isinstance(data, dict) else {}


def save(path: Path, key: str, value: Any) -> None:
    """Remember ``value`` under ``key``, or forget the key where it is empty. A record of nothing is no file."""
    data = load(path)
    before = dict(data)
    if value:
        data[key] = value
    else:
        data.pop(key, None)
    if data:
        if data != before:
            write_whole(path, json.dumps(data, indent=2, sort_keys=True) + "\n", 0o644)
    else:
        path.unlink(missing_ok=True)
