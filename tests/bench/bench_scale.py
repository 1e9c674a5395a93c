"""What a run costs with more hosts: the stages validate to hosts over 5, 10, 20 and 40 hosts, twice each.

    python tests/bench/bench_scale.py [--hosts 5 10 20 40] [--forks 25] [--plot FILE.svg]

The hosts are those of tests/cluster: podman containers with systemd and SSH, on this machine, whose processors their
modules use as well. On real hosts that part is their own, so the controller's processor time and memory are printed
beside the wall time, and each of them for a host more (least squares). For each number bare hosts are made; the second
run changes nothing. Needs the test cluster and requirements/pictures.txt for the plot.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins" / "module_utils")]

from heteroserve.common.table import table  # noqa: E402

from tests.cluster.conftest import Cluster, missing  # noqa: E402

SET = 40  # of the hosts' names and addresses
STAGES = ("validate", "facts", "plan", "hosts")


@dataclass
class Run:
    """What one run of the stages took."""

    hosts: int
    which: str  # first or second
    seconds: float
    cpu_s: float  # of the controller
    memory_mib: float  # of the controller's processes at most; pages that they share count once
    changed: int
    stages: dict[str, int] = field(default_factory=dict)  # seconds


def children(of: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents.setdefault(int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]), []).append(
                int(entry.name)
            )
        except OSError:  # it has ended
            continue
    found, left = [], [of]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def memory_mib(process: int) -> float:
    """Proportional set size of a process and all below it."""
    total = 0
    for each in children(process):
        try:
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(kib) for kib in re.findall(r"^Pss: +(\d+) kB$", text, re.MULTILINE))
    return total / 1024


def measure(cluster: Cluster, which: str, forks: int) -> Run:
    """Run the stages once."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, most = time.monotonic(), 0.0
    command = cluster.command("site.yml", "--tags", ",".join(STAGES), "-e", "batch=100%", "-f", str(forks))
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=cluster.environment, stdout=out, stderr=subprocess.STDOUT, cwd="/")
        ended = threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.wait(1):
                most = max(most, memory_mib(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        took = time.monotonic() - began
        ended.set()
        watcher.join()
        out.seek(0)
        printed = out.read()
    if status:
        raise SystemExit(printed[-6000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stages = {name: int(s) for name, s in re.findall(r"^  (\w+) +(\d+) s$", printed, re.MULTILINE)}
    changed = sum(int(count) for count in re.findall(r"changed=(\d+)", printed))
    return Run(len(cluster.agents) + 1, which, took, cpu, most, changed, stages)


def slope(runs: list[Run], attribute: str) -> float:
    """How much a host more adds, by least squares."""
    points = [(run.hosts, float(getattr(run, attribute))) for run in runs]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def plot(runs: list[Run], file: Path) -> None:
    """Wall time and the controller's processor time by the number of hosts."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for which, colour in (("first", "#b4540a"), ("second", "#0a6ab4")):
        of = [run for run in runs if run.which == which]
        hosts = [run.hosts for run in of]
        axes.plot(hosts, [run.seconds for run in of], "o-", color=colour, label=f"{which} run")
        axes.plot(hosts, [run.cpu_s for run in of], "s:", color=colour, label=f"{which} run, controller's processor")
    axes.set(xlabel="hosts", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with mpl.rc_context({"svg.hashsalt": "heteroserve"}):
        figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure, print the table, draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--forks", type=int, default=25)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    if fault := missing():
        raise SystemExit(fault)
    runs: list[Run] = []
    for count in asked.hosts:
        with tempfile.TemporaryDirectory() as folder:
            cluster = Cluster(SET, Path(folder) / "inventory", ["server-1"], [f"agent-{i}" for i in range(1, count)])
            model = {
                "name": "echo",
                "engine": "echo",
                "max_replicas": count,
                "card": "smollm2-135m",
                "context": 2048,
                "source": {"path": "/var/lib/heteroserve/weights/smollm2"},
            }
            cluster.settings = {"models": [model], "serving_plan_options": {"builds": ["echo"]}}
            cluster.servers_serve = True
            cluster.write()
            try:
                cluster.make_hosts()
                for which in ("first", "second"):
                    runs.append(measure(cluster, which, asked.forks))
                    print(runs[-1], flush=True)
            finally:
                cluster.remove_hosts()
                shutil.rmtree(cluster.state, ignore_errors=True)
    rows = [
        [str(run.hosts), run.which, f"{run.seconds:.0f}", f"{run.cpu_s:.0f}", f"{run.memory_mib:.0f}"]
        + [str(run.stages.get(stage, "-")) for stage in STAGES]
        + [str(run.changed)]
        for run in runs
    ]
    heads = ["HOSTS", "RUN", "SECONDS", "CONTROLLER CPU S", "MIB", *(stage.upper() for stage in STAGES), "CHANGED"]
    print(table(heads, rows, {0, *range(2, len(heads))}))
    if len(asked.hosts) > 1:
        for which in ("first", "second"):
            of = [run for run in runs if run.which == which]
            more = ", ".join(
                f"{slope(of, name):.2f} {unit}"
                for name, unit in (
                    ("seconds", "s"),
                    ("cpu_s", "s of the controller's processor"),
                    ("memory_mib", "MiB"),
                )
            )
            print(f"{which} run, for each host more: {more}")
    if asked.plot:
        plot(runs, asked.plot)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
