"""Memory of an engine's server over many short requests of which some are given up: ``soak_engine.py --engine NAME``.

    python tests/bench/soak_engine.py --engine openvino --python PYTHON --weights FOLDER --requests 20000

Starts the server as bench_engines.py does, warms it up, and prints its resident memory as the requests go on. A request
has 1 to 8 tokens; every third is a stream whose client leaves after its first piece.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
from pathlib import Path

import httpx
from bench_engines import SERVER, environment, wait_for

WARM_UP = 500


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def one(client: httpx.AsyncClient, number: int) -> str:
    """Send a request; what became of it."""
    chance = random.Random(number)
    body = {"prompt": "word " * chance.randint(1, 12), "max_tokens": chance.randint(1, 8), "stream": number % 3 == 0}
    if not body["stream"]:
        answer = await client.post("/v1/completions", json=body)
        return str(answer.status_code)
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_lines():
            return "left"
    return str(answer.status_code)


async def run(base: str, pid: int, total: int, clients: int) -> None:
    """Send all, ``clients`` at once."""
    found: dict[str, int] = {}
    numbers = iter(range(total))

    async def work(client: httpx.AsyncClient) -> None:
        for number in numbers:
            said = await one(client, number)
            found[said] = found.get(said, 0) + 1
            done = sum(found.values())
            if done in (WARM_UP, total) or done % (total // 10) == 0:
                print(f"{done:>6} requests: {resident_mib(pid):7.1f} MiB", flush=True)

    async with httpx.AsyncClient(base_url=base, timeout=120, limits=httpx.Limits(max_connections=clients)) as client:
        await asyncio.gather(*(work(client) for _ in range(clients)))
        text = (await client.get("/metrics")).text
    running = [line for line in text.splitlines() if "_num_requests{" in line and not line.startswith("#")]
    print(json.dumps(found), *running)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--port", type=int, default=19590)
    asked = parser.parse_args()
    arguments = json.dumps({"max_model_len": 512, "max_num_seqs": 8})
    command = [asked.python, "-c", SERVER, asked.engine, asked.weights, str(asked.port), arguments]
    with subprocess.Popen(command, env=environment(os.cpu_count() or 1), stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(asked.port, process)
            asyncio.run(run(f"http://127.0.0.1:{asked.port}", process.pid, asked.requests, asked.clients))
        finally:
            process.kill()


if __name__ == "__main__":
    main()
