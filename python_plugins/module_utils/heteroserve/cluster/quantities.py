"""Kubernetes quantities in the one form that Kubernetes itself writes.

The KubeRay operator writes a RayService back as its types print it ("1000m" becomes "1", "1024Mi" becomes "1Gi"), so a
manifest that says the same in other words would be a change on every run. The rules are those of
k8s.io/apimachinery/pkg/api/resource: no fraction, no lost precision, the largest suffix that allows both.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

MIB = 1024**2
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?")


def _read(text: str) -> tuple[Fraction, str]:
    match = _FORM.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a quantity: write it as 500m, 2, 16Gi or 1e3")
    number, suffix = Fraction(match[1]), match[2] or ""
    if suffix in _BINARY[1:]:
        return number * 1024 ** _BINARY.index(suffix), "binary"
    if len(suffix) > 1:
        return number * Fraction(10) ** int(suffix[1:]), "exponent"
    power = next(power for power, name in _DECIMAL.items() if name == suffix)
    return number * Fraction(10) ** power, "decimal"


def value(text: str) -> Fraction:
    """What a quantity stands for. Raises ``ValueError`` if it is none."""
    return _read(text)[0]


def canonical(text: str) -> str:
    """The same quantity as Kubernetes writes it."""
    number, form = _read(text)
    if form == "binary" and number.denominator == 1 and abs(number) >= 1024:
        mantissa, power = int(number), 0
        while mantissa % 1024 == 0 and power < len(_BINARY) - 1:
            mantissa, power = mantissa // 1024, power + 1
        return f"{mantissa}{_BINARY[power]}"
    # Kubernetes knows no less than a billionth, and rounds away from zero.
    nanos = number * 10**9
    mantissa, power = (math.ceil(nanos) if nanos > 0 else math.floor(nanos)), -9
    if mantissa == 0:
        return "0"
    while mantissa % 1000 == 0 and power < 18:
        mantissa, power = mantissa // 1000, power + 3
    if form == "exponent":
        return f"{mantissa}e{power}" if power else str(mantissa)
    return f"{mantissa}{_DECIMAL[power]}"


def memory(size: float) -> str:
    """Bytes, rounded up to whole MiB: figures that a reader can compare."""
    return canonical(f"{max(1, math.ceil(size / MIB))}Mi")


def cores(count: float) -> str:
    """Processors, rounded up to thousandths."""
    return canonical(f"{max(1, math.ceil(count * 1000))}m")
