"""The gateway under load beside its cells asked directly, and beside another router: they take turns in one run.

python tests/bench/bench_gateway_load.py [--clients 1 64 512] [--bytes 200 20000 200000] [--streams 64 512 2000]
    [--seconds 5] [--router PROGRAM] [--other CHECKOUT] [--without-log]

Installs a gateway for a plan with a context of 128k into a folder of its own (ports 24000 to 24029), over four
stand-ins: plain answers come from a HAProxy that returns a fixed text, streams from an asyncio server with 40 pieces,
0.25 s apart.
Plain load is made by wrk (apt-get install wrk), with bodies of each size. --router is a vllm-router (PyPI), and
--other another checkout, whose gateway is measured beside this one's; --without-log measures this one's without access
log as well. The key has a limit of each kind. Ends with large bodies among small ones, and with
the memory of all that the gateway reads at once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins" / "module_utils")]

from heteroserve.common import processes  # noqa: E402

KEY = "sk-bench"
GATEWAY, ROUTER, OTHER, WITHOUT_LOG, PLAIN, STREAMS = 24000, 24002, 24004, 24006, 24010, 24020
CONTEXT = 131072
PLAIN_TEXT = CONTEXT * 8  # bytes of a body that fills it
LONGEST = 16 * 2**20  # bytes of a body, by default
AT_ONCE = {PLAIN_TEXT: 32, LONGEST - 1000: 8}  # bodies that the gateway reads at once, by default
PIECES, PAUSE_S = 40, 0.25
BODY = {"model": "a", "messages": [{"role": "user", "content": "x" * 200}]}
NO_ROWS = '{"epoch":"x","rows":[]}'  # what a cell tells a ledger
ANSWER = json.dumps({"choices": [{"message": {"content": "y" * 500}}]})


def plan(first_port: int) -> dict[str, object]:
    """Four cells of one model."""
    cell = {"model": "a", "hosts": ["local"], "address": "127.0.0.1", "weight": 128, "replicas": [{}]}
    return {
        "models": [{"name": "a", "context": CONTEXT, "chat": True, "backend": "model-a"}],
        "cells": [
            {**cell, "name": f"a-{i}", "ports": {"serve": first_port + i}, "limits": {"max_num_seqs": 1024}}
            for i in range(4)
        ],
        "gateway": {"hosts": ["local"], "body_bytes": PLAIN_TEXT + 16384},
    }


def install(folder: Path, first_port: int, port: int = GATEWAY, root: Path = ROOT, log: bool = True) -> None:
    """A gateway of a checkout, which runs when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan(first_port)))
    limits = {"requests_per_minute": 10**9, "concurrent_requests": 10**6}
    if "tokens_per_day" in (root / "roles" / "gateway" / "meta" / "argument_specs.yml").read_text():
        limits["tokens_per_day"] = 10**12
    keys = [{"name": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), **limits}]
    given = {"gateway_api_keys": keys, "gateway_port": port, "gateway_stats_port": port + 1, "gateway_access_log": log}
    subprocess.run(
        [str(root / "heteroserve"), "run", "playbooks/gateway.yml", "-e", json.dumps(given)],
        env={**os.environ, "HETEROSERVE_STATE": str(folder), "ANSIBLE_CACHE_PLUGIN_CONNECTION": f"{folder}-facts"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(3)


@contextmanager
def plain_cells(folder: Path, haproxy: str, size: int) -> Iterator[None]:
    """Cells that answer a fixed text as soon as they have a body of about this size."""
    (folder / "answer.json").write_text(ANSWER)
    binds = "\n".join(f"    bind 127.0.0.1:{PLAIN + i}" for i in range(4))
    (folder / "cells.cfg").write_text(
        f"global\n    maxconn 8000\n    tune.bufsize {size + 32768}\ndefaults\n    mode http\n    timeout client 60s\n"
        f"    timeout connect 1s\n    timeout server 60s\nfrontend cells\n{binds}\n"
        f"    http-request return status 200 content-type application/json string '{NO_ROWS}' if {{ path /usage }}\n"
        "    http-request wait-for-body time 10s\n"
        f"    http-request return status 200 content-type application/json file {folder}/answer.json\n"
    )
    with subprocess.Popen([haproxy, "-db", "-f", str(folder / "cells.cfg")], stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(4)  # until the gateways have seen that they are well
            yield
        finally:
            process.terminate()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A stream for every POST, an empty answer for every GET; a body of any length is read."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length:
            await reader.readexactly(int(length[1]))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        if head.startswith(b"GET"):
            writer.write(b"Content-Length: 0\r\n\r\n")
        else:
            writer.write(b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(PIECES):
                writer.write(b"1c\r\ndata: " + b"z" * 20 + b"\n\n\r\n")
                await writer.drain()
                await asyncio.sleep(PAUSE_S)
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _serve_streams() -> None:
    async def serve() -> None:
        servers = [await asyncio.start_server(_answer, "127.0.0.1", STREAMS + i, backlog=4096) for i in range(4)]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    asyncio.run(serve())


def request(body: dict[str, object]) -> bytes:
    """As a client sends it."""
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: close"
    return f"{head}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def stream(port: int, text: bytes) -> tuple[float, bool]:
    """Seconds to the first piece, and whether all pieces came."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        await reader.readuntil(b"data: ")
        first = time.monotonic() - began
        rest = await reader.read(-1)
        writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return time.monotonic() - began, False
    return first, rest.count(b"data: ") == PIECES - 1


async def streams(port: int, count: int, state: Path) -> tuple[float, int, float]:
    """Streams that begin within two seconds.

    Returns the 95th percentile of the time to their first piece, how many failed, and MiB of the gateway meanwhile.
    """

    async def late(number: int) -> tuple[float, bool]:
        await asyncio.sleep(2 * number / count)
        return await stream(port, request({**BODY, "stream": True}))

    running = asyncio.gather(*(late(number) for number in range(count)))
    held = 0.0
    while not running.done():
        held = max(held, memory(state))
        await asyncio.sleep(1)
    found = running.result()
    return statistics.quantiles([first for first, _ in found], n=20)[-1], sum(not whole for _, whole in found), held


def plain(port: int, clients: int, seconds: int, script: Path) -> tuple[float, int, int]:
    """Requests a second, how many there were, and how many failed."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    ((sent, rate),) = re.findall(r"(\d+) requests in .*?Requests/sec: +([\d.]+)", printed, re.DOTALL)
    return float(rate), int(sent), int(failed[1]) if failed else 0


def running(state: Path, only: str = "") -> list[Path]:
    """Folders below /proc of a gateway's processes, or of those whose name begins so."""
    found = processes.members(processes.INSTALLATION, str(state))
    return [Path(f"/proc/{pid}") for pid, name in found.items() if name.startswith(only)]


def memory(state: Path) -> float:
    """MiB that HAProxy's processes hold, shared pages counted once."""
    rollups = [(process / "smaps_rollup").read_text() for process in running(state, "haproxy")]
    return sum(int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1]) for text in rollups) / 1024  # type: ignore[index]


def computed(state: Path) -> float:
    """Seconds of processor time that all of the gateway's processes have used: HAProxy, the ledger, supervisord."""
    times = [(process / "stat").read_text().rpartition(")")[2].split()[11:13] for process in running(state)]
    return sum(int(tick) for each in times for tick in each) / os.sysconf("SC_CLK_TCK")


async def large_among_small() -> str:
    """Latency of small requests (40 streams one after another) alone and beside eight large ones of each size."""
    small = request({**BODY, "stream": True})
    sizes = (100_000, 500_000, PLAIN_TEXT - 1000, LONGEST - 1000)

    async def firsts() -> list[float]:
        return [(await stream(GATEWAY, small))[0] for _ in range(3)]

    async def many() -> float:
        found = await asyncio.gather(*(firsts() for _ in range(20)))
        return statistics.median([first for each in found for first in each])

    alone = await many()
    bodies = {size: request({**BODY, "stream": True, "pad": "x" * size}) for size in sizes}
    beside = [asyncio.create_task(stream(GATEWAY, bodies[size])) for size in sizes for _ in range(8)]
    together = await many()
    found = await asyncio.gather(*beside)
    per_size = {size: statistics.median(first for first, _ in found[8 * i : 8 * i + 8]) for i, size in enumerate(sizes)}
    rows = "\n".join(f"  large, {size:>9,} bytes: {first * 1000:7.1f} ms" for size, first in per_size.items())
    failed = sum(not whole for _, whole in found)
    return (
        f"first piece of small requests: {alone * 1000:.1f} ms alone, {together * 1000:.1f} ms beside large ones;"
        f" of those {failed} of {len(found)} failed\n{rows}"
    )


async def all_at_once(count: int, state: Path) -> str:
    """Memory under as many streams, and as many large bodies beside them as are read at once."""
    texts = [
        request({**BODY, "stream": True, "pad": "x" * size}) for size, many in AT_ONCE.items() for _ in range(many)
    ]
    streaming = asyncio.create_task(streams(GATEWAY, count, state))
    await asyncio.sleep(3)
    found = await asyncio.gather(*(stream(GATEWAY, text) for text in texts))
    _, failed, held = await streaming
    failed += sum(not whole for _, whole in found)
    return f"{count} streams and {len(texts)} large bodies: {held:.0f} MiB, {failed} failed"


@contextmanager
def routes(router: str | None, more: dict[str, int], first_port: int) -> Iterator[dict[str, int]]:
    """Ports of what is compared: the gateway, a cell asked directly and, if there are, other gateways."""
    ports = {"gateway": GATEWAY, "direct": first_port} | more
    if not router:
        yield ports
        return
    urls = [f"http://127.0.0.1:{first_port + i}" for i in range(4)]
    command = [router, "--host", "127.0.0.1", "--port", str(ROUTER), "--policy", "round_robin", "--worker-urls", *urls]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            time.sleep(5)
            yield {**ports, "router": ROUTER}
        finally:
            process.terminate()


def compare(folder: Path, size: int, ways: dict[str, int], asked: argparse.Namespace) -> None:
    """Print requests/s of each way with bodies of one size, and gateways' processor time. The ways take turns."""
    script = folder / "post.lua"
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "x" * size}]})
    script.write_text(
        f"wrk.method='POST' wrk.path='/v1/chat/completions' wrk.body='{body}'"
        f" wrk.headers['Authorization']='Bearer {KEY}' wrk.headers['Content-Type']='application/json'"
    )
    states = {way: folder / way for way in ("gateway", "other", "no log")}
    print(
        f"{f'{size} bytes, clients':<24}" + "".join(f"{way + ' req/s':>16}" for way in ways) + "   failed  us/request"
    )
    for clients in asked.clients:
        rates: dict[str, list[float]] = {way: [] for way in ways}
        times: dict[str, list[float]] = {way: [] for way in ways if way in states}
        failed = 0
        for _ in range(asked.rounds):
            for way, port in ways.items():
                before = computed(states[way]) if way in times else 0
                rate, sent, lost = plain(port, clients, asked.seconds, script)
                rates[way].append(rate)
                if way in times:
                    times[way].append((computed(states[way]) - before) / sent * 1e6)
                    failed += lost
        shown = "".join(f"{statistics.median(each):>16,.0f}" for each in rates.values())
        used = ", ".join(f"{way} {min(each):.0f}" for way, each in times.items())
        print(f"{clients:<24}{shown}   {failed:>6}  {used}", flush=True)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--streams", type=int, nargs="*", default=[64, 512, 2000])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bytes", type=int, nargs="+", default=[200])
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    parser.add_argument("--router")
    parser.add_argument("--other", type=Path)
    parser.add_argument("--without-log", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hs-bench-") as name:
        folder, state, more = Path(name), Path(name) / "gateway", dict[str, int]()
        try:
            install(state, PLAIN)
            if asked.other:
                more["other"] = OTHER
                install(folder / "other", PLAIN, OTHER, asked.other)
            if asked.without_log:
                more["no log"] = WITHOUT_LOG
                install(folder / "no log", PLAIN, WITHOUT_LOG, log=False)
            for size in asked.bytes:
                with plain_cells(folder, asked.haproxy, size), routes(asked.router, more, PLAIN) as ways:
                    compare(folder, size, ways, asked)
            if not asked.streams:
                return
            server = multiprocessing.Process(target=_serve_streams, daemon=True)
            server.start()
            install(state, STREAMS)
            with routes(asked.router, {}, STREAMS) as ways:
                print(f"{'streams':<16}" + "".join(f"{way + ' p95 ms':>16}" for way in ways) + "   failed  MiB")
                for count in asked.streams:
                    results = {way: asyncio.run(streams(port, count, state)) for way, port in ways.items()}
                    row = "".join(f"{first * 1000:>16,.0f}" for first, _, _ in results.values())
                    _, failed, held = results["gateway"]
                    print(f"{count:<16}{row}   {failed:>6}  {held:.0f}", flush=True)
            print(asyncio.run(large_among_small()))
            print(asyncio.run(all_at_once(max(asked.streams), state)))
            server.terminate()
        finally:
            for way in ("gateway", *more):
                processes.end(processes.INSTALLATION, str(folder / way), grace_s=5)


if __name__ == "__main__":
    main()
