"""Throughput of the endpoint with monitoring running and stopped, in turns.

After ./heteroserve up -e monitoring_enabled=true: python tests/bench/bench_monitoring_load.py [--rounds 6]

Half of the rounds run with Prometheus, Alertmanager, the exporters and the known-answer check every minute, half
without, so that the machine's noise meets both alike. Prints medians, and the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from bench_gateway import rate

OF_SERVING = ("gateway", "chatbot")  # what the names of supervisord's other programs begin with, beside the cells
SETTLE_S = 5.0  # a program that starts needs the processor, which is not what is measured


def supervisorctl(state: Path, *words: str) -> str:
    """What supervisorctl prints; its exit status is that of the programs."""
    command = [state / "envs/host/bin/supervisorctl", "-c", state / "supervisor/supervisord.conf", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False).stdout


def monitoring(state: Path, plan: dict[str, Any]) -> list[str]:
    """Programs that are there for monitoring. Raises ``SystemExit`` if there is none."""
    found = {line.split()[0] for line in supervisorctl(state, "status").splitlines()}
    cells = {cell["name"] for cell in plan["cells"]}
    programs = sorted(name for name in found - cells if not name.startswith(OF_SERVING))
    if not programs:
        raise SystemExit("no monitoring runs: ./heteroserve up -e monitoring_enabled=true")
    return programs


async def main() -> None:
    """Print a table: tokens/s with and without, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".state"))
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    plan = json.loads((asked.state / "plan.json").read_text())
    model, programs = plan["models"][0]["name"], monitoring(asked.state, plan)
    print(f"monitoring: {', '.join(programs)}")
    rates: dict[tuple[int, str], list[float]] = {}
    try:
        for number in range(asked.rounds):
            for word in ("start", "stop") if number % 2 else ("stop", "start"):
                supervisorctl(asked.state, word, *programs)
                time.sleep(SETTLE_S)
                for clients in asked.clients:
                    speed = await rate(asked.gateway, model, clients, asked.tokens)
                    rates.setdefault((clients, word), []).append(speed)
    finally:
        supervisorctl(asked.state, "start", *programs)
    print(f"{'clients':>7}  {'without tok/s':>13}  {'with tok/s':>10}  {'with/without':>12}")
    for clients in asked.clients:
        without, beside = rates[clients, "stop"], rates[clients, "start"]
        ratio = statistics.median(b / a for a, b in zip(without, beside, strict=True))
        print(f"{clients:>7}  {statistics.median(without):>13.1f}  {statistics.median(beside):>10.1f}  {ratio:>12.3f}")


if __name__ == "__main__":
    asyncio.run(main())
