"""Tables for the terminal."""

from __future__ import annotations


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their longest cell, two spaces apart, a rule under the head. Figures align to the right."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = [
        all(row[column][:1].isdigit() or row[column] == "-" for row in rows) and bool(rows)
        for column in range(len(head))
    ]

    def line(row: list[str]) -> str:
        parts = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *map(line, rows)])
