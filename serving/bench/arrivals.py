"""When requests of an open loop are sent. Pure functions: the same seed gives the same times."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

Times = list[float]


def even(rate: float, count: int, burst: int, seed: int) -> Times:
    """One request every 1/rate seconds."""
    return [number / rate for number in range(count)]


def poisson(rate: float, count: int, burst: int, seed: int) -> Times:
    """Pauses that are exponentially distributed, as of many clients who know nothing of each other."""
    rng = random.Random(seed)
    return list(accumulate(rng.expovariate(rate) for _ in range(count)))


def bursts(rate: float, count: int, burst: int, seed: int) -> Times:
    """``burst`` requests at one moment; the moments are a Poisson process, so that the mean rate is ``rate``."""
    moments = poisson(rate / burst, -(-count // burst), 1, seed)
    return [moments[number // burst] for number in range(count)]


PROCESSES: dict[str, Callable[[float, int, int, int], Times]] = {"poisson": poisson, "even": even, "bursts": bursts}


def within(times: Times, seconds: float) -> Times:
    """Those that are sent before the time is up."""
    return [time for time in times if time < seconds]
