"""Where a run's time goes: module calls and their seconds, by role and by task.

python tests/bench/bench_calls.py -i INVENTORY [site.yml and options of ansible-playbook]

What a run costs follows from how often a module is sent to a host, changed or not. The number of calls is the same on
every machine, the seconds are not. Prints the roles, then the tasks that cost most.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from heteroserve.common.table import table

ROOT = Path(__file__).resolve().parents[2]
CALLBACKS = [ROOT / "python_plugins/callback", ROOT / "tests/bench/callbacks"]


def main() -> None:
    """Run the playbook and print the tables."""
    words = sys.argv[1:]
    if not any(word.endswith(".yml") for word in words):
        words.insert(0, str(ROOT / "site.yml"))
    with tempfile.NamedTemporaryFile() as file:
        began = time.monotonic()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), *words],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_CALLBACK_PLUGINS": ":".join(map(str, CALLBACKS)),
                "HETEROSERVE_BENCH_CALLS": file.name,
            },
        )
        took = time.monotonic() - began
        calls = [json.loads(line) for line in Path(file.name).read_text().splitlines()]
    for keys, most in ((("role",), None), (("role", "task"), 40), (("module",), 20)):
        count: dict[tuple[str, ...], int] = defaultdict(int)
        seconds: dict[tuple[str, ...], float] = defaultdict(float)
        for call in calls:
            key = tuple(call[name] for name in keys)
            count[key] += 1
            seconds[key] += call["seconds"]
        rows = [
            [*key, str(count[key]), f"{seconds[key]:.1f}"] for key in sorted(count, key=count.__getitem__, reverse=True)
        ]
        print(
            table([*(key.upper() for key in keys), "CALLS", "SECONDS"], rows[:most], {len(keys), len(keys) + 1}), "\n"
        )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{len(calls)} module calls, {took:.0f} s, {cpu:.0f} s of processor time on the controller")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
