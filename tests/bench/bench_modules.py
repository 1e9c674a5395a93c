"""What a module call costs, with and without what saves time: a ratio in one run.

python tests/bench/bench_modules.py [--calls 20] [--rounds 3]

Each way runs the same playbook in turn: as it is, without the callback `bytecode`, and as in a container that sets
PYTHONDONTWRITEBYTECODE and PYTHONUNBUFFERED, where ./heteroserve unsets both. Seconds of processor time, all processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAYS: dict[str, dict[str, str]] = {
    "as it is": {},
    "without bytecode in the payload": {
        "ANSIBLE_CALLBACK_PLUGINS": "/nonexistent",
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
    },
    "PYTHONUNBUFFERED=1": {"PYTHONUNBUFFERED": "1"},
    "PYTHONDONTWRITEBYTECODE=1, new .venv": {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nonexistent"},
}


def cost(playbook: Path, environment: dict[str, str]) -> float:
    """Seconds of processor time of one run."""
    usual = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ANSIBLE_"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)],
        cwd=ROOT,
        env={**usual, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder) / "calls.yml"
        playbook.write_text(
            "- {hosts: localhost, connection: local, gather_facts: false, tasks: [{ansible.builtin.file:"
            f" {{path: {folder}/x, state: touch, mode: '0600'}}, loop: '{{{{ range({asked.calls}) | list }}}}'}}],"
            f" vars: {{ansible_python_interpreter: {sys.executable}}}}}\n"
        )
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way, environment in WAYS.items():
                taken[way].append(cost(playbook, environment))
    base = statistics.median(taken["as it is"])
    print(f"{asked.calls} calls, median of {asked.rounds}\n{'way':<38}  {'CPU s':>6}  {'ratio':>5}")
    for way, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{way:<38}  {median:>6.1f}  {median / base:>5.2f}")


if __name__ == "__main__":
    main()
