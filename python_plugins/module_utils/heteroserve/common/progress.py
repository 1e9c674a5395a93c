"""One line that says what a long module is doing, for the action plugin that shows it."""

from __future__ import annotations

import os
from pathlib import Path


class Progress:
    """Writes the line to ``path`` (nowhere if None); the reader never sees half a line."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None

    def say(self, line: str) -> None:
        """Replace the line by ``line``."""
        if self._path is None:
            return
        fresh = self._path.with_suffix(".new")
        fresh.write_text(line)
        os.replace(fresh, self._path)
