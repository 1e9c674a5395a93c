"""What others measure meanwhile: requests of each cell and power. Reading is apart from calculating."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heteroserve.common.web import open_own
from prometheus_client.parser import text_string_to_metric_families

POWERCAP = Path("/sys/class/powercap")
SAMPLE_S = 0.5
REQUESTS = "haproxy_server_http_responses"
# Watts as a Prometheus has them: of whole servers where their iDRACs say, otherwise of GPUs and of processors.
SERVERS = (("iDRAC (whole servers)", "sum(avg_over_time(idrac_power_control_consumed_watts{chosen}[{window}s]))"),)
PARTS = (
    ("DCGM (NVIDIA GPUs)", "sum(avg_over_time(DCGM_FI_DEV_POWER_USAGE{chosen}[{window}s]))"),
    (
        "AMD device metrics exporter (AMD GPUs)",
        'sum(avg_over_time({{__name__=~"(?i:gpu_package_power|gpu_average_package_power)"{more}}}[{window}s]))',
    ),
    ("RAPL (processors)", "sum(rate(node_rapl_package_joules_total{chosen}[{window}s]))"),
)


@dataclass(frozen=True)
class Power:
    """Energy of a measurement."""

    joules: float
    watts: float
    source: str


# Requests of each cell


def server_requests(text: str, model_backends: str = "model-") -> dict[str, float]:
    """Answers that HAProxy has passed on from each server, from its metrics in Prometheus' format."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{REQUESTS}_total" and sample.labels.get("proxy", "").startswith(model_backends):
                name = sample.labels["server"]
                found[name] = found.get(name, 0.0) + sample.value
    return found


def shares(before: Mapping[str, float], after: Mapping[str, float], cells: Sequence[str]) -> list[dict[str, Any]]:
    """Each cell's part of the answers between two readings. A HAProxy that was restarted counts from 0 again."""
    counted = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in after}
    counted = {name: after[name] if count < 0 else count for name, count in counted.items()}
    counted = {name: count for name, count in counted.items() if not cells or name in cells}
    total = sum(counted.values())
    return [
        {"cell": name, "requests": int(count), "share": count / total if total else 0.0}
        for name, count in sorted(counted.items())
    ]


@dataclass
class Shares:
    """Reads HAProxy's metrics at the gateway, or a Prometheus that scrapes it."""

    statistics: str | None = None  # URL of HAProxy's statistics
    prometheus: str | None = None
    cells: Sequence[str] = ()
    why_not: str = ""
    _before: dict[str, float] = field(default_factory=dict)

    def read(self) -> dict[str, float]:
        """Answers of each server; {} where nobody says, and then ``why_not`` has the reason."""
        if self.statistics:
            try:
                with open_own(f"{self.statistics}/metrics", 5) as answer:
                    return server_requests(answer.read().decode())
            except (OSError, ValueError) as fault:
                self.why_not = f"the gateway's figures at {self.statistics} cannot be read ({fault})"
        if self.prometheus:
            try:
                return {
                    sample["metric"].get("server", "?"): float(sample["value"][1])
                    for sample in query(
                        self.prometheus, f'sum by (server) ({REQUESTS}_total{{proxy=~"model-.*",server!=""}})'
                    )
                }
            except (OSError, ValueError) as fault:
                self.why_not = f"the Prometheus at {self.prometheus} cannot be asked ({fault})"
        self.why_not = self.why_not or "no gateway and no Prometheus is known (--statistics, --prometheus)"
        return {}

    def begin(self) -> None:
        """Note the counters."""
        self._before = self.read()

    def end(self) -> list[dict[str, Any]]:
        """Each cell's part since then."""
        after = self.read()
        return shares(self._before, after, self.cells) if self._before and after else []


# Power


def query(prometheus: str, expression: str) -> list[Any]:
    """An instant query. Raises ``OSError`` or ``ValueError``."""
    url = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with open_own(url, 10) as answer:
        data = json.loads(answer.read())
    if data.get("status") != "success":
        raise ValueError(str(data.get("error", "no success")))
    return list(data["data"]["result"])


def rapl_packages(root: Path = POWERCAP) -> list[tuple[Path, float]]:
    """Energy counters of this machine's processor packages that may be read, each with where it starts over (µJ)."""
    found = []
    for counter in sorted(root.glob("intel-rapl:[0-9]*/energy_uj")):
        if counter.parent.name.count(":") != 1:
            continue
        try:
            int(counter.read_text())
            found.append((counter, float((counter.parent / "max_energy_range_uj").read_text())))
        except (OSError, ValueError):
            continue
    return found


def rapl_joules(before: Sequence[float], after: Sequence[float], ranges: Sequence[float]) -> float:
    """Joules between two readings of counters (µJ) that start over at ``ranges``."""
    total = 0.0
    for first, last, whole in zip(before, after, ranges, strict=True):
        total += last - first if last >= first else last - first + whole
    return total / 1e6


def nvidia_watts(text: str) -> float:
    """Sum of the GPUs' power from nvidia-smi's CSV; a GPU that does not say counts 0."""
    watts = 0.0
    for line in text.splitlines():
        try:
            watts += float(line.strip().removesuffix("W"))
        except ValueError:
            continue
    return watts


def power_query(expression: str, hosts: Sequence[str], seconds: float) -> str:
    """An expression for the hosts (label ``host``) that serve the model; for everything if none are known."""
    names = "|".join(re.escape(host).replace("\\", "\\\\") for host in hosts)
    label = f'host=~"{names}"' if hosts else ""
    chosen, more = (f"{{{label}}}", f",{label}") if label else ("", "")
    return expression.format(chosen=chosen, more=more, window=max(30, round(seconds)))


class Meter:
    """Power during a measurement: a Prometheus' readings, or this machine's GPUs and processors."""

    def __init__(self, prometheus: str | None, here: bool, hosts: Sequence[str] = ()) -> None:
        self._prometheus, self._hosts, self.why_not = prometheus, hosts, ""
        self._packages = rapl_packages() if here and not prometheus else []
        self._nvidia = shutil.which("nvidia-smi") if here and not prometheus else None
        if not prometheus and not here:
            self.why_not = "the endpoint is on another machine, and no Prometheus is given (--prometheus)"
        elif not prometheus and not self._packages and not self._nvidia:
            self.why_not = f"{POWERCAP} has no reading for this user, and this machine has no nvidia-smi"
        self._samples: list[float] = []
        self._before: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start reading."""
        self._began = time.monotonic()
        self._samples, self._stop = [], threading.Event()
        self._before = [float(counter.read_text()) for counter, _ in self._packages]
        if self._nvidia:
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()

    def _sample(self) -> None:
        command = [str(self._nvidia), "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
        while not self._stop.is_set():
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
            if done.returncode == 0:
                self._samples.append(nvidia_watts(done.stdout))
            self._stop.wait(SAMPLE_S)

    def end(self) -> Power | None:
        """What was used since ``begin``; None where nothing says, and then ``why_not`` has the reason."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        self._stop.set()
        if self._thread:
            self._thread.join(35)
        if self._prometheus:
            return self._asked(seconds)
        joules = 0.0
        sources: list[str] = []
        if self._packages:
            after = [float(counter.read_text()) for counter, _ in self._packages]
            joules += rapl_joules(self._before, after, [whole for _, whole in self._packages])
            sources.append("RAPL (processors)")
        if self._samples and any(self._samples):
            joules += sum(self._samples) / len(self._samples) * seconds
            sources.append("nvidia-smi (GPUs)")
        if not sources:
            self.why_not = self.why_not or "nvidia-smi says no power"
            return None
        return Power(joules, joules / seconds, " and ".join(sources))

    def _asked(self, seconds: float) -> Power | None:
        assert self._prometheus
        watts = 0.0
        sources: list[str] = []
        try:
            for group in (SERVERS, PARTS):
                for source, expression in group if not sources else ():
                    found = query(self._prometheus, power_query(expression, self._hosts, seconds))
                    value = sum(float(sample["value"][1]) for sample in found)
                    if value > 0:
                        watts += value
                        sources.append(source)
        except (OSError, ValueError) as fault:
            self.why_not = f"the Prometheus at {self._prometheus} cannot be asked ({fault})"
            return None
        if not sources:
            self.why_not = f"the Prometheus at {self._prometheus} has no power of GPUs or processors"
            return None
        return Power(watts * seconds, watts, " and ".join(sources))
