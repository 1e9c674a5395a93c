"""A reader gets from the README to every page, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def linked(page: Path) -> set[Path]:
    """What a page links to inside the project."""
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    return {(page.parent / target).resolve() for target in targets}


def test_every_link_leads_to_a_file(root: Path) -> None:
    broken = {
        f"{page.relative_to(root)}: {target.relative_to(root)}"
        for page in [*root.glob("*.md"), *root.glob("docs/**/*.md")]
        for target in linked(page)
        if not target.exists()
    }
    assert broken == set()


def test_the_readme_leads_to_every_page(root: Path) -> None:
    assert set(root.glob("docs/**/*.md")) - linked(root / "README.md") == set()
