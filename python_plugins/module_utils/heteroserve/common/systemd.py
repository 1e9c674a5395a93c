"""What systemd says of a unit, and what the unit last said."""

from __future__ import annotations

import re
import subprocess

PROPERTIES = ("ActiveState", "ExecMainStartTimestampMonotonic", "MainPID", "NRestarts", "UnitFileState")
TROUBLE = re.compile(r"level=(error|fatal)|\b[EF]\d{4} |error:|failed|panic", re.IGNORECASE)
LINES_READ = 200
WORDS = 3  # lines that are shown
WORD_LENGTH = 300  # characters of each


def properties(unit: str) -> dict[str, str]:
    """PROPERTIES of a unit; a unit that does not exist is inactive. Raises ``OSError`` where there is no systemd."""
    done = subprocess.run(
        ["systemctl", "show", unit, f"--property={','.join(PROPERTIES)}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return {name: found.get(name, "") for name in PROPERTIES}


def last_words(unit: str) -> list[str]:
    """Lines of the unit's journal that tell of trouble, newest last; the very last line where none does."""
    done = subprocess.run(
        ["journalctl", "--unit", unit, "--no-pager", "--output", "cat", "--lines", str(LINES_READ)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    telling = [line for line in lines if TROUBLE.search(line)] or lines[-1:]
    return [line[:WORD_LENGTH] for line in telling[-WORDS:]]
