"""One benchmark: calibration, warm-up, a measurement for each level, and the client's own limit beside each."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import uvloop

from serving.bench import arrivals
from serving.bench.client import Asker, Endpoint
from serving.bench.null_server import null_server
from serving.bench.prediction import comparable, predict
from serving.bench.records import Record, Tally
from serving.bench.sources import Meter, Shares
from serving.bench.statistics import details, figures
from serving.bench.target import Target, is_here, models
from serving.bench.workers import Load, Outcome, measure
from serving.bench.workload import Calibration, Workload, calibrated, fitted

DEFAULT_REQUESTS = 1000
REQUESTS_PER_CLIENT = 4  # at least, where their number is not given
SHORT_WORDS, LONG_WORDS = 16, 80
LIMIT_S, LIMIT_DRAIN_S = 2.0, 0.5
NEAR = 3.0  # the client's limit is printed where less than this many times what was measured
APART = 10_000_000  # requests between those of one measurement and the next
FORMAT = 1


@dataclass(frozen=True)
class Level:
    """One measurement of a run."""

    clients: int | None = None
    rate: float | None = None

    @property
    def label(self) -> str:
        """As it is printed."""
        if self.clients:
            return f"{self.clients} client{'' if self.clients == 1 else 's'}"
        return f"{self.rate:g} requests/s" if self.rate else "trace"


@dataclass
class Run:
    """What is measured, and what is known before."""

    asked: argparse.Namespace
    target: Target
    endpoint: Endpoint
    workload: Workload
    levels: list[Level]
    notes: list[str] = field(default_factory=list)


Show = Callable[[str, Tally, float], None]


def prepare(asked: argparse.Namespace, target: Target, workload: Workload) -> Run:
    """Choose the model, count the tokens of words, and fit lengths to the context. Raises ``ValueError``."""
    endpoint = Endpoint(target.url, "", asked.chat, target.key, asked.ca_file, asked.insecure)
    notes = []
    known = models(endpoint)
    if not known:
        raise ValueError(f"{target.url} has no model")
    model = asked.model or next(iter(known))
    if model not in known:
        raise ValueError(f"--model: {target.url} has no '{model}'; it has {', '.join(known)}")
    if len(known) > 1 and not asked.model:
        notes.append(f"Of the endpoint's models {', '.join(known)} the first was measured; choose with --model.")
    endpoint = replace(endpoint, model=model)
    planned = {entry["name"]: entry["context"] for entry in target.plan.get("models", [])}
    workload, cut = fitted(workload, known[model] or planned.get(model))
    notes += [cut] if cut else []
    workload = replace(workload, calibration=calibrate(endpoint, workload, asked.timeout))
    if asked.rate:
        levels = [Level(rate=rate) for rate in asked.rate]
    elif workload.trace:
        levels = [Level()]
    else:
        levels = [Level(clients=clients) for clients in asked.clients or workload.clients]
    return Run(asked, target, endpoint, workload, levels, notes)


def calibrate(endpoint: Endpoint, workload: Workload, timeout_s: float) -> Calibration:
    """Ask with few and with many words how many tokens they are. Raises ``ValueError`` with the endpoint's words."""

    async def ask() -> list[Record]:
        asker = Asker(endpoint, 0.0, False)
        found = []
        for number, count in enumerate((SHORT_WORDS, LONG_WORDS)):
            message = asker.message(workload.words(number, count), 1)
            async with asyncio.timeout(timeout_s):
                found.append(await asker.ask(Record(number, 0.0), message))
        asker.close()
        return found

    try:
        short, long = uvloop.run(ask())
    except TimeoutError as fault:
        raise ValueError(f"{endpoint.url} does not answer a first request within {timeout_s:g} s") from fault
    for record in (short, long):
        if record.fault:
            raise ValueError(f"{endpoint.url} does not answer a first request: {record.fault}, {record.said}")
    return calibrated((SHORT_WORDS, short.prompt_tokens), (LONG_WORDS, long.prompt_tokens))


def load_of(asked: argparse.Namespace, workload: Workload, level: Level, first: int) -> Load:
    """The load of one measurement. Raises ``ValueError`` where no request would be sent."""
    usual = max(DEFAULT_REQUESTS, REQUESTS_PER_CLIENT * (level.clients or 0))
    most = asked.requests or (len(workload.trace) if workload.trace else usual)
    common = {"seconds": asked.seconds, "drain_s": asked.drain, "timeout_s": asked.timeout, "first_index": first}
    if level.clients:
        return Load(requests=most, clients=level.clients, **common)
    if level.rate:
        times = arrivals.PROCESSES[asked.arrivals](level.rate, most, asked.burst_size, asked.seed)
    else:
        times = [entry.at for entry in workload.trace[:most]]
    times = arrivals.within(times, asked.seconds)
    if not times:
        raise ValueError(f"--seconds: no request is sent within {asked.seconds:g} s at {level.label}")
    return Load(requests=len(times), times=tuple(times), **common)


def client_limit(workload: Workload, clients: int, processes: int) -> float:
    """Tokens/s of the same load on the null server of this machine."""
    with null_server() as url:
        asked = Load(requests=10**9, seconds=LIMIT_S, drain_s=LIMIT_DRAIN_S, timeout_s=60, clients=clients)
        made = replace(workload, trace=(), calibration=Calibration())
        outcome = measure(Endpoint(url, "null"), made, asked, processes, lambda tally, seconds: None)
    # The null server's deltas are tokens; those of requests that the end cut off count too.
    last = max((record.last for record in outcome.records), default=outcome.began)
    return sum(record.events for record in outcome.records) / max(last - outcome.began, 1e-9)


def point_of(run: Run, level: Level, outcome: Outcome) -> dict[str, Any]:
    """A measurement in the shape of vLLM's results."""
    asked = run.asked
    found = {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai-chat" if asked.chat else "openai",
        "backend": "openai-chat" if asked.chat else "openai",
        "label": level.label,
        "model_id": run.endpoint.model,
        "tokenizer_id": None,
        "num_prompts": len(outcome.records),
        "request_rate": level.rate if level.rate else "inf",
        "burstiness": 1.0,
        "max_concurrency": level.clients,
        **figures(outcome.records, outcome.began, level.clients),
        "clients": level.clients,
        "rate": level.rate,
        "arrivals": asked.arrivals if level.rate else None,
        "client_processes": outcome.processes,
        "client_cpu_s": outcome.cpu_s,
    }
    return found | details(outcome.records) if asked.details else found


def beside(run: Run, point: dict[str, Any], level: Level) -> None:
    """Add what the plan expects, and the client's limit."""
    plan, model = run.target.plan, run.endpoint.model
    point["prediction"] = None
    if plan and level.clients:
        if why := comparable(plan, point["mean_input_tokens"], point["mean_output_tokens"]):
            run.notes += [why] if why not in run.notes else []
        elif expected := predict(plan, model, level.clients):
            point["prediction"] = {
                name: None if math.isnan(value) else value for name, value in asdict(expected).items()
            }
    point["client_limit_tokens_per_s"] = None
    if not run.asked.no_limit and not run.asked.null and point["completed"]:
        limit = client_limit(
            run.workload, level.clients or max(1, point["max_concurrent_requests"]), run.asked.processes
        )
        point["client_limit_tokens_per_s"] = limit
        if point["output_throughput"] * NEAR > limit:
            run.notes.append(
                f"{level.label}: on a server that thinks nothing, this machine's client reaches {limit:,.0f} tokens/s,"
                f" only {limit / point['output_throughput']:.1f} times what was measured: some of the time may be the"
                " client's. Measure from a machine with more cores, or with more --processes."
            )


def warn(run: Run, point: dict[str, Any]) -> None:
    """Notes on a measurement that a reader must know."""
    label = point["label"]
    if point["clients"] and point["sent"] < point["clients"]:
        run.notes.append(f"{label}: only {point['sent']} of them had a request to send; --requests gives more.")
    if point["rate"] and point["p99_lateness_ms"] > 20:
        run.notes.append(
            f"{label}: requests were sent up to {point['p99_lateness_ms']:.0f} ms late (p99): the client was too slow."
        )
    if point["unfinished"]:
        run.notes.append(
            f"{label}: {point['unfinished']} requests had not ended when the time was up, {run.asked.drain:g} s after"
            " the last could be sent. They count neither as answered nor as failed; --drain gives them longer."
        )


def benchmark(run: Run, show: Show, done: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure every level. ``show`` gets running figures, ``done`` each measurement."""
    asked, target = run.asked, run.target
    cells = [cell for cell in target.plan.get("cells", []) if cell["model"] == run.endpoint.model]
    hosts = sorted({host for cell in cells for host in cell["hosts"]})
    shares = Shares(
        asked.statistics or target.statistics or None,
        asked.prometheus or target.prometheus or None,
        [cell["name"] for cell in cells],
    )
    meter = Meter(asked.prometheus or target.prometheus or None, is_here(target.url), hosts)
    if asked.warmup:
        warm = Load(asked.warmup, asked.seconds, asked.drain, asked.timeout, asked.warmup, first_index=APART * 1000)
        measure(run.endpoint, run.workload, warm, 1, partial(show, "warm-up"))
    points: list[dict[str, Any]] = []
    for number, level in enumerate(run.levels):
        load = load_of(asked, run.workload, level, APART * (number + 1) if not run.workload.trace else 0)
        shares.begin()
        meter.begin()
        outcome = measure(run.endpoint, run.workload, load, asked.processes, partial(show, level.label))
        power = meter.end()
        point = point_of(run, level, outcome)
        point["cells"] = shares.end()
        point["power"] = asdict(power) if power else None
        tokens = point["total_output_tokens"]
        point["joules_per_token"] = power.joules / tokens if power and tokens else None
        beside(run, point, level)
        warn(run, point)
        points.append(point)
        done(point)
    if not any(point["cells"] for point in points):
        run.notes.append(f"The share of each cell is left out: {shares.why_not or 'no cell of this model answered'}.")
    if not any(point["power"] for point in points):
        run.notes.append(f"Joules per token are left out: {meter.why_not}.")
    return result(run, points)


def result(run: Run, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that result.json holds."""
    workload = run.workload
    return {
        "heteroserve_bench": FORMAT,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "endpoint": run.target.url,
        "model": run.endpoint.model,
        "chat": run.endpoint.chat,
        "profile": workload.name,
        "workload": {
            "description": workload.description,
            "source": workload.source,
            "prompt_tokens": str(workload.prompt),
            "output_tokens": str(workload.output),
            "temperature": workload.temperature,
            "ignore_eos": workload.ignore_eos,
            "prefixes": workload.prefixes,
            "prefix_tokens": workload.prefix_tokens,
            "seed": workload.seed,
            "tokens_per_word": round(workload.calibration.per_word, 3),
        },
        "machine": {"name": platform.node(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "points": list(points),
        "notes": run.notes,
    }
