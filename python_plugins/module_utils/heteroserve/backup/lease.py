"""Whose the state host is at the moment. Pure functions.

A run that works with the state host has a lease there: a file that it writes again every ``RENEW_S`` seconds, for as
long as its ansible-playbook lives, and removes at its end. A run that was killed together with all that belongs to it
writes no more; after ``LEASE_S`` seconds the lease is anybody's. How old it is says the clock of the state host alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum

RENEW_S = 5.0
LEASE_S = 60.0


@dataclass(frozen=True)
class Lease:
    """Who works with the state."""

    owner: str  # made up for a run, and nobody else's
    who: str
    since: str
    renewed: int = 0  # how often

    def text(self) -> str:
        """As it lies on the state host."""
        return json.dumps(asdict(self))

    def again(self) -> Lease:
        """The same, renewed."""
        return replace(self, renewed=self.renewed + 1)


class Verdict(Enum):
    """What a run may do that asks for the state host."""

    TAKE = "take"
    WAIT = "wait"  # its holder is alive, or it was killed a moment ago: which of them, its next renewal says
    HELD = "held"


def read(text: str | None) -> Lease | None:
    """What lies on the state host; None if that is nothing, or nothing of ours."""
    try:
        return Lease(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None


def verdict(found: Lease | None, age_s: float, seen: Lease | None) -> Verdict:
    """``found`` was written ``age_s`` ago; ``seen`` is what this run saw when it asked for the first time."""
    if found is None or abs(age_s) > LEASE_S:  # below zero: the clock was set back
        return Verdict.TAKE
    return Verdict.HELD if seen is not None and found != seen else Verdict.WAIT


def busy(holder: Lease, place: str) -> str:
    """Who works with the state."""
    return f"another run ({holder.who}, since {holder.since}) is working with {place}: wait until it has ended"


def lost(holder: Lease | None, place: str) -> str:
    """Why a run must not go on: another one has begun, because this one was not heard of."""
    now = (
        f"another run ({holder.who}, since {holder.since}) has taken it"
        if holder
        else "its lease is not there any more"
    )
    return f"{place}: this run was not heard of for {LEASE_S:.0f} seconds or more, and {now}: run it again"
