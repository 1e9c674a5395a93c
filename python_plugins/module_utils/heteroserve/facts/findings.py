"""What a probe hands back: a value, what an operator should know, and where the value came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .hardware import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Findings(Generic[T]):
    """A value with its problems and sources; ``sources`` has a key for each group of facts in ``Hardware``."""

    value: T
    problems: tuple[Problem, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
