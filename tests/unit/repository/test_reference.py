"""docs/reference is what roles and modules say of themselves."""

from __future__ import annotations

from docs import generate


def test_the_reference_is_not_stale() -> None:
    for path, text in generate.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale; run: python docs/generate.py"
