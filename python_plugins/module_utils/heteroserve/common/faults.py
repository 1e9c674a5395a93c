"""Many faults as one message."""

from __future__ import annotations


def listing(subject: str, faults: list[str], ending: str) -> str:
    """ "This host has 2 faults; ENDING." and a numbered line for each."""
    what = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = [f"  {number}. {text}" for number, text in enumerate(faults, 1)]
    return "\n".join([f"{subject} has {what}; {ending}.", *lines])
