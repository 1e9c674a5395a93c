"""Swap lines of /etc/fstab, taken out so that they can be put back as they were."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "# heteroserve, swap is off: "
SWAP = re.compile(r"^\s*[^#\s]\S*\s+\S+\s+swap(\s|$)")


@dataclass(frozen=True)
class Swap:
    """A line of /proc/swaps."""

    name: str
    kind: str  # "partition" | "file"
    size: int  # bytes
    used: int


def parse_swaps(text: str) -> tuple[Swap, ...]:
    """Swap that is in use, from /proc/swaps; octal escapes stand for white space."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4:
            name = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields[0])
            found.append(Swap(name, fields[1], int(fields[2]) * 1024, int(fields[3]) * 1024))
    return tuple(found)


def without_swap(fstab: str) -> str:
    """Each line of swap becomes a comment that holds it."""
    return "".join(f"{MARK}{line}" if SWAP.match(line) else line for line in fstab.splitlines(keepends=True))


def with_swap(fstab: str) -> str:
    """The lines that were taken out, back in their places."""
    return "".join(line.removeprefix(MARK) for line in fstab.splitlines(keepends=True))
