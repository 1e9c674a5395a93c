"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 120  # characters of a line


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> str:
    """Columns as wide as they need; the widest give way, cut with "...", until a line has ``WIDTH`` characters."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    while sum(widths) + 2 * len(widths) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in (head, *rows):
        cells = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            text = text if len(text) <= width else text[: width - 3] + "..."
            cells.append(text.rjust(width) if column in right else text.ljust(width))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)
