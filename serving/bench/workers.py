"""The client's processes: each has its own loop and connections, and all of them share one count of requests."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import uvloop

from serving.bench.client import Asker, Endpoint, now
from serving.bench.records import UNFINISHED, Record, Tally
from serving.bench.workload import Workload

TELL_EVERY_S = 0.5
BEGIN_S = 0.2  # from "all are ready" to the first request
STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Load:
    """One measurement: a closed loop of ``clients``, or an open loop whose requests are sent at ``times``."""

    requests: int
    seconds: float  # no request is sent later
    drain_s: float  # those that run then may take this much longer
    timeout_s: float  # of one request
    clients: int = 0
    times: tuple[float, ...] = ()
    first_index: int = 0  # of the workload's requests, so that no two measurements send the same
    spread_s: float = 0.0  # clients of a closed loop begin within this time


@dataclass
class Outcome:
    """What the processes brought back."""

    records: list[Record]
    began: float
    cpu_s: float  # of all processes
    processes: int


class WorkerError(Exception):
    """A process of the client ended."""


class Worker:
    """Runs in a process of its own."""

    def __init__(self, pipe: Connection, endpoint: Endpoint, workload: Workload, load: Load, part: int, parts: int):
        self._pipe, self._workload, self._load, self._part, self._parts = pipe, workload, load, part, parts
        self._asker = Asker(endpoint, workload.temperature, workload.ignore_eos)
        self._records: list[Record] = []
        self._tally = Tally()
        self._began = 0.0

    async def run(self, taken: Any) -> None:
        """Wait for the signal, send what is to be sent, and hand over the records."""
        self._pipe.send("ready")
        self._began = await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        cpu = time.process_time()
        watch = asyncio.create_task(self._watch())
        # Times are fractions of a millisecond late: libuv counts in milliseconds.
        await asyncio.sleep(self._began - now())
        if self._load.times:
            await self._open_loop()
        else:
            await self._closed_loop(taken)
        watch.cancel()
        self._asker.close()
        self._pipe.send((self._records, time.process_time() - cpu))

    async def _one(self, index: int, due: float) -> None:
        prompt, tokens = self._workload.request(self._load.first_index + index)
        record = Record(index, due)
        self._tally.open += 1
        await self._asker.ask(record, self._asker.message(prompt, tokens))
        self._tally.open -= 1
        self._tally.done += record.answered
        self._tally.failed += not record.answered and record.fault != UNFINISHED
        self._tally.tokens += record.output_tokens
        self._tally.events += record.events
        self._records.append(record)

    async def _closed_loop(self, taken: Any) -> None:
        clients = range(self._part, self._load.clients, self._parts)
        until = self._began + self._load.seconds

        async def client(number: int) -> None:
            if self._load.spread_s:
                await asyncio.sleep(self._load.spread_s * number / self._load.clients)
            while True:
                with taken.get_lock():
                    index = taken.value
                    taken.value += 1
                due = now()
                if index >= self._load.requests or due >= until:
                    return
                failed = self._tally.failed
                await self._one(index, due)
                if self._tally.failed > failed and now() - due < 0.1:
                    await asyncio.sleep(0.1)  # an endpoint that refuses is not flooded

        await asyncio.gather(*(client(number) for number in clients))

    async def _open_loop(self) -> None:
        running = set()
        for index in range(self._part, len(self._load.times), self._parts):
            due = self._began + self._load.times[index]
            if (pause := due - now()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self._one(index, due))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.gather(*running)

    async def _watch(self) -> None:
        """Tell the running figures; end requests that take too long, and all when the time is up."""
        last = self._began + self._load.seconds + self._load.drain_s
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            under_way = sum(stream.events for stream in self._asker.open)
            try:
                self._pipe.send(replace(self._tally, events=self._tally.events + under_way))
            except BrokenPipeError:
                os._exit(1)  # its parent was killed: nobody wants to know any more
            time_now = now()
            for stream in list(self._asker.open):
                if time_now >= last:
                    stream.end(UNFINISHED, "")
                elif time_now - stream.sent_at >= self._load.timeout_s:
                    stream.end("time-out", f"no whole answer within {self._load.timeout_s:g} s")


def _work(pipe: Connection, taken: Any, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    worker = Worker(pipe, *arguments)
    uvloop.run(worker.run(taken))


def raise_limit(streams: int, all_at_once: bool = True) -> None:
    """Allow as many open files as the streams need, also for processes that are started later.

    Raises ``ValueError`` where the system does not, if they are open ``all_at_once``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = streams + 256
    if hard != resource.RLIM_INFINITY and needed > hard:
        if not all_at_once:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return
        raise ValueError(
            f"{streams} requests at once need {needed} open files, and this machine allows {hard}: raise it with"
            " ulimit -Hn, or ask for fewer"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def measure(
    endpoint: Endpoint, workload: Workload, load: Load, processes: int, show: Callable[[Tally, float], None]
) -> Outcome:
    """Run a load and return what became of each request. ``show`` gets the running figures twice a second."""
    context = multiprocessing.get_context("spawn")
    taken = context.Value("q", 0)
    parts = max(1, min(processes, load.clients or len(load.times)))
    children, pipes = [], []
    for part in range(parts):
        here, there = context.Pipe()
        child = context.Process(target=_work, args=(there, taken, endpoint, workload, load, part, parts), daemon=True)
        child.start()
        there.close()
        children.append(child)
        pipes.append(here)
    try:
        for pipe in pipes:
            if not pipe.poll(STARTS_WITHIN_S):
                raise WorkerError(f"a process of the client did not start within {STARTS_WITHIN_S:g} s")
            _received(pipe)
        began = now() + BEGIN_S
        for pipe in pipes:
            pipe.send(began)
        outcome = _collect(pipes, began, show)
        for child in children:
            child.join(5)
        return outcome
    finally:
        for child in children:
            child.terminate()


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError as fault:
        raise WorkerError("a process of the client ended before it was done; see above") from fault


def _collect(pipes: list[Connection], began: float, show: Callable[[Tally, float], None]) -> Outcome:
    tallies = {pipe: Tally() for pipe in pipes}
    left, records, cpu = set(pipes), [], 0.0
    while left:
        for pipe in wait(left, TELL_EVERY_S):
            assert isinstance(pipe, Connection)
            message = _received(pipe)
            if isinstance(message, Tally):
                tallies[pipe] = message
            else:
                records += message[0]
                cpu += message[1]
                left.discard(pipe)
        show(sum(tallies.values(), Tally()), now() - began)
    records.sort(key=lambda record: record.sent)
    return Outcome(records, began, cpu, len(pipes))
