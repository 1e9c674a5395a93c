"""CPU time and memory of planning 10 to 10,000 hosts for 10 models, as a table and as a plot (docs/images).

    PYTHONPATH=python_plugins/module_utils python tests/bench/bench_planner.py [--hosts 10 100 1000] [--svg FILE]

Each size runs in a process of its own, so that peak memory is its own. Exits with 1 if 1,000 hosts take a second of
CPU time or 100 MB more than the interpreter with its modules.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

SIZES = (10, 30, 100, 300, 1000, 3000, 10000)
MOST_SECONDS, MOST_MB = 1.0, 100.0

MODELS = (
    ("llama-3.1-405b", 16384, 1),
    ("llama-3.3-70b", 16384, 4),
    ("llama-3.1-70b", 32768, 2),
    ("llama-3.1-8b", 16384, 4),
    ("llama-3.2-3b", 8192, 2),
    ("llama-3.2-1b", 8192, 1),
    ("llama-2-70b", 4096, 1),
    ("llama-2-13b", 4096, 1),
    ("llama-2-7b", 4096, 1),
    ("tinyllama-1.1b", 2048, 1),
)
HOSTS: tuple[tuple[str, str | None, int, int], ...] = (
    ("xe9680", "nvidia-h100-sxm-80gb", 8, 2048),
    ("xe9680", "nvidia-h200-sxm-141gb", 8, 2048),
    ("xe9680", "amd-mi300x-192gb", 8, 2048),
    ("r760xa", "nvidia-l40s-48gb", 4, 512),
    ("xe8545", "nvidia-a100-sxm-80gb", 4, 1024),
    ("r760", None, 0, 512),
    ("r7615", None, 0, 384),
    ("r7625", "amd-mi210-64gb", 2, 768),
)


def request_of(size: int) -> Any:
    """A mixed estate of ``size`` hosts, built as facts would arrive: an object for each host."""
    from heteroserve.facts.declared import hardware_of
    from heteroserve.plan.planner import HostEntry, ModelRequest, PlanRequest

    hosts = {}
    for number in range(size):
        server, kind, count, memory = HOSTS[number % len(HOSTS)]
        declared: dict[str, Any] = {"server": server, "memory_gib": memory}
        if kind:
            declared["accelerators"] = {"kind": kind, "count": count}
        hosts[f"host{number}"] = HostEntry(hardware_of(declared), rack=f"R{number // 10}")
    models = tuple(ModelRequest(name, card=name, context=context, share=share) for name, context, share in MODELS)
    return PlanRequest("ray", hosts, models, ("host0",))


def one(size: int) -> dict[str, float]:
    """CPU seconds of ``make_plan`` (and of its JSON), and peak MB more than before the hosts were there."""
    from heteroserve.plan.planner import make_plan
    from heteroserve.plan.schema import plan_to_json

    make_plan(request_of(4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    request = request_of(size)
    start = time.process_time()
    plan = make_plan(request)
    middle = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    text = plan_to_json(plan)
    end = time.process_time()
    return {
        "hosts": size,
        "seconds": middle - start,
        "json_seconds": end - middle,
        "json_mb": len(text) / 1e6,
        "mb": memory / 1024,
        "cells": len(plan.cells),
        "replicas": sum(len(cell.replicas) for cell in plan.cells),
    }


def plot(results: list[dict[str, float]]) -> str:
    """Hosts against CPU seconds, both axes by powers of ten; light and dark."""
    from math import log10

    width, height, left, bottom, top = 560, 320, 64, 44, 30

    def x(hosts: float) -> float:
        return left + (log10(hosts) - 1) / 3 * (width - left - 24)

    def y(seconds: float) -> float:
        return top + (2 - log10(max(seconds, 1e-3)) - 1) / 4 * (height - bottom - top)

    grid = "".join(
        f'<path class="g" d="M{left} {y(10**power):.1f}H{width - 24}"/><text x="{left - 8}" y="{y(10**power) + 4:.1f}" '
        f'text-anchor="end">{10**power:g} s</text>'
        for power in range(-3, 2)
    ) + "".join(
        f'<path class="g" d="M{x(10**power):.1f} {top}V{height - bottom}"/><text x="{x(10**power):.1f}" '
        f'y="{height - bottom + 18}" text-anchor="middle">{10**power:,}</text>'
        for power in range(1, 5)
    )
    line = " ".join(f"{x(item['hosts']):.1f},{y(item['seconds']):.1f}" for item in results)
    dots = "".join(f'<circle cx="{x(item["hosts"]):.1f}" cy="{y(item["seconds"]):.1f}" r="3.5"/>' for item in results)
    thousand = next((item for item in results if item["hosts"] == 1000), results[-1])
    label = f"{thousand['seconds']:.2f} s, {thousand['mb']:.0f} MB at {thousand['hosts']:,}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="CPU time of planning against the number of hosts">'
        "<style>text{font:12px system-ui,sans-serif;fill:#444}.g{stroke:#8884;fill:none}"
        "polyline{fill:none;stroke:#0072b2;stroke-width:2}circle{fill:#0072b2}.h{font-weight:600}"
        "@media(prefers-color-scheme:dark){text{fill:#ccc}}</style>"
        f'<text class="h" x="{left}" y="18">CPU time of make_plan, 10 models: {label}</text>{grid}'
        f'<polyline points="{line}"/>{dots}'
        f'<text x="{width - 24}" y="{height - 8}" text-anchor="end">hosts</text></svg>\n'
    )


def main() -> int:
    """Measure all sizes, print the table, write the plot, judge 1,000 hosts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--svg")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return 0
    results = []
    print(" hosts  replicas  cells  CPU s   peak MB  JSON s  JSON MB")
    for size in arguments.hosts:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(size)], check=True, capture_output=True, encoding="utf-8"
        )
        item = json.loads(done.stdout)
        results.append(item)
        print(
            f"{item['hosts']:6,}  {item['replicas']:8,}  {item['cells']:5,}  {item['seconds']:5.2f}  {item['mb']:8.1f}"
            f"  {item['json_seconds']:6.2f}  {item['json_mb']:7.1f}"
        )
    if arguments.svg:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(plot(results))
    slow = [
        item for item in results if item["hosts"] == 1000 and (item["seconds"] > MOST_SECONDS or item["mb"] > MOST_MB)
    ]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
