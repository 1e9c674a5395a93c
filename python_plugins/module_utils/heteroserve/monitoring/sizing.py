"""How much memory and disk Prometheus takes, from what it reads. Measured by tests/bench/bench_monitoring.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Series of one target of each job, on a large host: 8 GPUs, 128 cores, many network interfaces.
SERIES = {
    "node": 900,
    "dcgm": 8 * 30,
    "amd": 8 * 60,
    "power": 0,  # counted with the hosts
    "gateway": 1500,
    "usage": 500,
    "cells": 700,
    "engines": 500,
    "k3s": 400,
    "kuberay": 300,
    "health": 100,
    "plan": 100,
    "prometheus": 800,
    "alertmanager": 400,
}
POWER = 40  # series of an iDRAC
BYTES = 2.4  # of a stored sample, index included
HEAD_BYTES = 4_500  # memory of a series that is being written
BASE_BYTES = 150_000_000
WAL_SHARE = 1.25  # blocks, and the write-ahead log of the last three hours beside them


@dataclass(frozen=True)
class Size:
    """What Prometheus will hold."""

    series: int
    memory_bytes: int
    disk_bytes: int


def size(targets: Mapping[str, list[Any]], hosts: int, interval_s: int, days: int) -> Size:
    """An upper estimate for these targets."""
    series = sum(SERIES[job] * len(groups) for job, groups in targets.items())
    series += POWER * hosts if targets.get("power") else 0
    samples = series / interval_s * 86_400 * days
    return Size(series, int(BASE_BYTES + series * HEAD_BYTES), int(samples * BYTES * WAL_SHARE))
