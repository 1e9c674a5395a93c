"""Write the dashboards' JSON, which the role grafana copies to its host, and their tables in docs/dashboards.md.

    python -m dashboards.generate

The same code gives the same bytes; tests/unit/monitoring/test_dashboards.py fails when a file is stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from .pages import cells, cluster, endpoint, energy, fleet, host
from .panels import Page, build

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "roles" / "grafana" / "files"
DOCUMENT = ROOT / "docs" / "dashboards.md"
PAGES = tuple(module.PAGE for module in (fleet, endpoint, cells, host, energy, cluster))


def table(page: Page) -> str:
    """The panels of a page with what they show."""
    rows = [f"| {panel.title} | {panel.about} |" for section in page.sections for panel in section.panels]
    return "\n".join(["| panel | shows |", "|---|---|", *rows])


def documented(text: str) -> str:
    """The page in docs with the tables of today, each between two marks."""
    for page in PAGES:
        begin, end = f"<!-- panels: {page.name} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        assert ended, f"{DOCUMENT.name} has no place for the panels of {page.name}: {begin}{end}"
        text = f"{before}{begin}{table(page)}\n{end}{after}"
    return text


def files() -> dict[Path, str]:
    """Text of each file."""
    made = {
        FOLDER / f"{page.name}.json": json.dumps(build(page), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        for page in PAGES
    }
    return made | {DOCUMENT: documented(DOCUMENT.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
