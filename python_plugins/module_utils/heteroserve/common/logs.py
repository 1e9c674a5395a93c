"""What a log says went wrong."""

from __future__ import annotations

import re

_ERROR_LINE = re.compile(r"(\w*(Error|Exception)\b: .+|Killed|Segmentation fault|FATAL.+)")
_ECHO = re.compile(r"Engine core initialization failed|RayTaskError|UnserializableException|RuntimeError: Traceback")


def last_error(log: str) -> str:
    """The last line of a log that names an error, without time stamps and prefixes; "" if there is none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    found = [match[1] for line in plain.splitlines() if (match := _ERROR_LINE.search(line))]
    # The outermost exceptions only say that something inside them failed.
    telling = [line for line in found if not _ECHO.search(line)]
    return (telling or found or [""])[-1][:400].strip()
