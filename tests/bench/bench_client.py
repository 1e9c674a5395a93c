"""What the benchmark's client can do on this machine, beside general clients: streams/s on the null server.

    PYTHONPATH=.:python_plugins/module_utils python tests/bench/bench_client.py [--clients 1 64 512 2000] [--tokens 8]

Short streams: 8 tokens, each an event of its own that the server sends by itself. The server runs on the same cores.
Long streams: 256 tokens, 50 ms apart, all open at once. aiohttp and httpx take turns with ours, in one process each.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
import httpx
import orjson
import uvloop

from serving.bench.client import Endpoint
from serving.bench.null_server import null_server
from serving.bench.statistics import figures
from serving.bench.workers import Load, measure, raise_limit
from serving.bench.workload import GUIDE, Lengths, Workload

Ask = Callable[[bytes], Awaitable[None]]


def body(workload: Workload, index: int) -> bytes:
    """A request as our client writes it."""
    prompt, tokens = workload.request(index)
    asked = {"model": "null", "prompt": prompt, "max_tokens": tokens, "stream": True}
    return orjson.dumps({**asked, "stream_options": {"include_usage": True}})


def read_line(line: bytes) -> None:
    """What every client has to do with a line of a stream."""
    if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
        orjson.loads(line[6:])


async def closed_loop(ask: Ask, workload: Workload, clients: int, seconds: float) -> float:
    """Streams/s of a general client."""
    done, began = 0, time.monotonic()

    async def client(number: int) -> None:
        nonlocal done
        index = number
        while time.monotonic() - began < seconds:
            await ask(body(workload, index))
            done += 1
            index += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.monotonic() - began)


async def with_aiohttp(url: str, workload: Workload, clients: int, seconds: float) -> float:
    """Streams/s of aiohttp."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(data: bytes) -> None:
            async with session.post(f"{url}/v1/completions", data=data) as answer:
                async for line in answer.content:
                    read_line(line)

        return await closed_loop(ask, workload, clients, seconds)


async def with_httpx(url: str, workload: Workload, clients: int, seconds: float) -> float:
    """Streams/s of httpx."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as session:

        async def ask(data: bytes) -> None:
            async with session.stream("POST", f"{url}/v1/completions", content=data) as answer:
                async for line in answer.aiter_lines():
                    read_line(line.encode())

        return await closed_loop(ask, workload, clients, seconds)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 512, 2000])
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--open", type=int, default=1000, help="long streams at once")
    asked = parser.parse_args()
    workload = replace(GUIDE, output=Lengths(asked.tokens, asked.tokens))
    raise_limit(max(*asked.clients, asked.open))
    print(f"{'clients':>8}{'streams/s':>12}{'tokens/s':>12}{'failed':>8}{'cores':>7}{'aiohttp':>10}{'httpx':>10}")
    for clients in asked.clients:
        load = Load(10**9, asked.seconds, 10, 60, clients=clients)
        with null_server() as url:
            outcome = measure(Endpoint(url, "null"), workload, load, asked.processes, lambda tally, seconds: None)
            found = figures(outcome.records, outcome.began, clients)
            others = [
                uvloop.run(other(url, workload, clients, asked.seconds)) if clients <= 512 else None
                for other in (with_aiohttp, with_httpx)
            ]
        rest = "".join(f"{other:>10,.0f}" if other else f"{'-':>10}" for other in others)
        cores = outcome.cpu_s / found["duration"]
        print(
            f"{clients:>8}{found['request_throughput']:>12,.0f}{found['output_throughput']:>12,.0f}"
            f"{found['failed']:>8}{cores:>7.2f}{rest}",
            flush=True,
        )
    with null_server(0.05) as url:
        load = Load(asked.open, 30, 60, 120, clients=asked.open)
        long = replace(GUIDE, output=Lengths(256, 256))
        outcome = measure(Endpoint(url, "null"), long, load, asked.processes, lambda tally, seconds: None)
    found = figures(outcome.records, outcome.began, asked.open)
    print(
        f"{found['max_concurrent_requests']} long streams at once: {found['completed']} answered,"
        f" {found['failed']} failed, {found['output_throughput']:,.0f} tokens/s, gap p50 {found['p50_itl_ms']:.1f} ms,"
        f" p99 {found['p99_itl_ms']:.1f} ms (50 asked), {outcome.cpu_s / found['duration']:.2f} cores"
    )


if __name__ == "__main__":
    main()
