"""What a vendor's tool prints: JSON that may begin with warnings, and words that stand in place of a value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

# In place of a value, whatever the field: nvidia-smi's words, AMD SMI's and Level Zero's result codes, sentences of
# rocm-smi and xpu-smi. "N/A", "[N/A]", "[Not Supported]" and the codes that only say so are no faults.
FAULT = re.compile(
    r"(unknown error|gpu is lost|gpu requires reset|gpu access blocked[^\]]*|\bERR!|\berror\b[^\]]*"
    r"|AMDSMI_STATUS_(?!SUCCESS|NOT_SUPPORTED|NOT_YET_IMPLEMENTED)\w+"
    r"|ZE_RESULT_ERROR_(?!UNSUPPORTED)\w+|ZE_RESULT_(?:NOT_READY|WARNING)\w*"
    r"|(?:unable|failed) to [^\]]*|device lost)",
    re.IGNORECASE,
)
ADDRESS = r"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])"
LONGEST = 120  # characters of a fault that are passed on


def fault_in(cells: Iterable[str | None]) -> str:
    """The first fault among the fields of a device; "" where there is none."""
    return next((found[1].strip()[:LONGEST] for cell in cells if (found := FAULT.search(cell or ""))), "")


def fault_in_json(value: Any) -> str:
    """The first fault among all texts of a JSON value."""
    return fault_in(_texts(value))


def number_in(value: Any) -> int | None:
    """A whole number above zero, which tools write as number or as text; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if value > 0 else None


def address_in(value: Any) -> str:
    """A PCI address as sysfs writes it: "0000:e3:00.0"; "" for anything else.

    nvidia-smi writes the PCI domain with eight digits, and in capitals.
    """
    found = re.fullmatch(rf"\s*{ADDRESS}\s*", value) if isinstance(value, str) else None
    return f"{int(found[1], 16):04x}:{found[2].lower()}" if found else ""


def faults_by_address(text: str) -> dict[str, str]:
    """Faults in sentences that name a device by its PCI address: {"0000:65:00.0": "Unable to determine ..."}."""
    found = {}
    for line in text.splitlines():
        fault = fault_in([line]) if '"' not in line else ""  # JSON may be one line with all devices
        for address in re.finditer(ADDRESS, line) if fault else ():
            found[address_in(address[0])] = fault
    return found


def json_in(text: str) -> Any:
    """The first JSON object or list that begins a line; None where there is none, or it is cut short."""
    for begin in re.finditer(r"^\s*(?=[{\[])", text, re.MULTILINE):
        try:
            return json.JSONDecoder().raw_decode(text, begin.end())[0]
        except (ValueError, RecursionError):
            continue
    return None


def before_json(text: str) -> str:
    """The first line that a tool prints before its JSON; "" where it begins with that."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "" if first[:1] in ("{", "[", "") else first


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
