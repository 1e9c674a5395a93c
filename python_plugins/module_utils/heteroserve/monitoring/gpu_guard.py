"""Takes cells off broken GPUs: ``python3 -m heteroserve.monitoring.gpu_guard CONFIG.json``.

Runs on each gateway's host, beside the HAProxy whose cells it drains, and reads the GPU exporters itself: it works
without Prometheus and Alertmanager, and nobody has to be let in from outside. What it did stands in its journal, in a
file that ``status`` reads, and in a metric that node_exporter shows.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common.files import write_whole
from ..common.web import open_own
from ..gateway import haproxy
from ..gateway.master import Gateway, NotRunningError
from ..health.endpoint import Target
from ..health.openai import ask
from . import checks, daemon
from .exposition import Sample, parse, render
from .gpu_faults import Fault, Record, decide, faults
from .gpu_faults import Gateway as Seen

HELP = {
    "heteroserve_gpu_fault": "1 for each cell on a broken GPU; state says whether it still gets requests.",
    "heteroserve_gpu_guard_silent": "1 for each host whose GPU exporter does not answer.",
}
READ_S = 5.0  # seconds that an exporter may take
TIMEOUT_S = 60.0  # seconds that a cell may take for the answer by which it comes back


class Guard:
    """One look after the other."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.plan = given["plan"]
        self.gateway = Gateway(given["socket"])
        self.records_file = Path(given["records"])
        self.silent: frozenset[str] = frozenset()
        self.records = self._read()

    def _read(self) -> tuple[Record, ...]:
        try:
            rows = json.loads(self.records_file.read_text())
        except (OSError, ValueError):
            return ()
        return tuple(
            Record(row["cell"], tuple(Fault(**fault) for fault in row["faults"]), row["state"], row["since"])
            for row in rows
        )

    def shown(self) -> tuple[list[Fault], frozenset[str]]:
        """Faults of all GPUs, and the hosts of which nothing is known."""

        def read(exporter: dict[str, str]) -> tuple[str, list[Fault] | None]:
            try:
                with open_own(exporter["url"], READ_S) as response:
                    text = response.read().decode()
            except OSError:
                return exporter["host"], None
            return exporter["host"], faults(exporter["host"], parse(text))

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(read, self.given["exporters"]))
        silent = frozenset(host for host, what in found if what is None)
        for host in sorted(silent - self.silent):
            daemon.say(f"{host}: its GPU exporter does not answer, so a broken GPU there is not noticed")
        self.silent = silent
        return [fault for _, what in found for fault in what or ()], silent

    def look(self) -> None:
        """Read the exporters, and do what follows."""
        shown, silent = self.shown()
        try:
            cells = self.gateway.look()
        except NotRunningError:
            return  # nobody gets requests; when HAProxy is back, this is too
        seen = Seen(
            frozenset(haproxy.answering(cells)), frozenset(name for name, cell in cells.items() if cell.drained)
        )
        step = decide(self.records, shown, silent, seen, self.plan, self.given["drains"], time.time())
        # First on disk: if this process ends in between, it knows that the cell was not drained by an operator.
        self.keep(step.records)
        for text in step.said:
            daemon.say(text)
        if step.drain and not self.gateway.switch(list(step.drain), "drain", self.remember):
            daemon.say(f"HAProxy does not drain {', '.join(step.drain)}; it is told again")
            self.keep(tuple(record for record in step.records if record.cell not in step.drain))
        for cell in step.ask:
            self.give_back(cell)

    def give_back(self, cell: str) -> None:
        """Return a cell whose GPU is well again, if it answers rightly."""
        target = next(Target(**one) for one in self.targets() if one["name"] == cell)
        verdict = checks.check(
            target,
            lambda asked, question: ask(asked.url, asked.model, question, chat=asked.chat, timeout_s=TIMEOUT_S),
            time.time,
        )
        if verdict.fault:
            return
        if self.gateway.switch([cell], "ready", self.remember):
            daemon.say(f"{cell}: its GPU shows no fault any more and it answers rightly: it gets requests again")
            self.keep(tuple(record for record in self.records if record.cell != cell))

    def targets(self) -> list[dict[str, Any]]:
        """Cells with their questions."""
        return [{**one, "questions": tuple(map(tuple, one["questions"]))} for one in self.given["targets"]]

    def remember(self, known: dict[str, haproxy.Server]) -> None:
        """Tell HAProxy's next start which cells are drained."""
        path = Path(self.given["kept_in"])
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        write_whole(
            path, haproxy.kept(known, {cell["name"]: cell["ports"]["serve"] for cell in self.plan["cells"]}), mode
        )

    def keep(self, records: tuple[Record, ...]) -> None:
        """Write what was done for the next start, for ``status``, and for node_exporter."""
        self.records = records
        rows = [{**asdict(record), "reason": record.reason} for record in records]
        write_whole(self.records_file, json.dumps(rows, indent=2) + "\n", 0o644)
        samples = [
            Sample(
                "heteroserve_gpu_fault",
                1,
                {
                    "cell": record.cell,
                    "faulty_host": record.faults[0].host,
                    "gpu": record.faults[0].gpu,
                    "state": record.state,
                    "reason": record.reason,
                },
            )
            for record in records
        ]
        samples += [Sample("heteroserve_gpu_guard_silent", 1, {"faulty_host": host}) for host in sorted(self.silent)]
        write_whole(Path(self.given["textfile"]), render(samples, HELP), 0o644)


def main() -> None:
    """Entry point."""
    given = daemon.configuration()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    daemon.every(given["interval_s"], Guard(given).look, stop)


if __name__ == "__main__":
    main()
