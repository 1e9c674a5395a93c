"""One benchmark from its command line to its report and exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console

from serving.bench import compare, report, screen
from serving.bench.measure import benchmark, prepare
from serving.bench.null_server import null_server
from serving.bench.options import MOST_CLIENTS, parse, workload_of
from serving.bench.target import Target, ask_inventory, default_folder, key_of, read_target
from serving.bench.verdict import judge
from serving.bench.workers import WorkerError, raise_limit
from serving.bench.workload import GUIDE

MET, NOT_MET, NOT_MEASURED = 0, 1, 2
WIDTH = 132  # of tables where there is no terminal


@contextlib.contextmanager
def target_of(asked: argparse.Namespace) -> Iterator[Target]:
    """What is to be measured, for as long as it is. Raises ``ValueError``."""
    if asked.null:
        with null_server(asked.null_token_s) as address:
            yield Target(address, folder=default_folder())
        return
    if asked.url:
        found = Target(asked.url, folder=default_folder())
    elif asked.target:
        found = read_target(asked.target)
    else:
        found = ask_inventory(asked.inventory, asked.extra_vars)
    yield replace(found, key=key_of(asked.key_file, found.key))


def main(arguments: list[str]) -> int:
    """Measure and report; the exit code."""
    asked = parse(arguments)
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDTH)
    try:
        other = compare.read_result(asked.compare) if asked.compare else []
        workload = workload_of(asked)
        clients = [] if asked.rate or workload.trace else asked.clients or workload.clients
        raise_limit(max(clients, default=MOST_CLIENTS), all_at_once=bool(clients))
        with target_of(asked) as target:
            folder = asked.out or target.folder / time.strftime("%Y-%m-%dT%H-%M-%S")
            run = prepare(asked, target, workload)
            folder.mkdir(parents=True, exist_ok=True)  # sooner than after minutes of measuring
            with screen.Progress(console) as progress:
                result = benchmark(run, progress.show, progress.done)
    except (ValueError, OSError, WorkerError) as fault:
        print(f"heteroserve bench: {fault}", file=sys.stderr)
        return NOT_MEASURED
    except KeyboardInterrupt:
        print("heteroserve bench: interrupted", file=sys.stderr)
        return NOT_MEASURED
    found = compare.differences(result["points"], other)
    if other and not found:
        result["notes"].append(
            f"{asked.compare} has no measurement with the same clients or rate: nothing is compared."
        )
    judged = judge(asked.require, result["points"])
    # Its rows are shown beside its own lengths alone.
    guide = (run.workload.prompt, run.workload.output) == (GUIDE.prompt, GUIDE.output) and not asked.null
    report.write(folder, result, found, judged, guide)
    if not (asked.null or asked.url):
        target.folder.mkdir(parents=True, exist_ok=True)
        (target.folder / "latest.txt").write_text(report.summary(result, folder) + "\n")
    screen.print_result(console, result, found, judged, guide)
    console.print(f"\nReport: {folder}/report.html", highlight=False, soft_wrap=True)
    answered = any(point["completed"] for point in result["points"])
    return MET if answered and all(each.met for each in judged) else NOT_MET
