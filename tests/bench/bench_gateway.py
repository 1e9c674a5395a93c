"""Throughput through the gateway against the same engine called directly: a ratio for each number of clients.

Run while ./heteroserve up has been done: python tests/bench/bench_gateway.py [--state .state] [--clients 1 4 16].
The paths take turns in one run, so that the machine's noise meets all of them alike. Bounded: clients x rounds
requests for each path, each of --tokens tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

import httpx

PROMPT = "Tell a story about a lighthouse, a storm and a letter that arrives too late."


async def one(client: httpx.AsyncClient, url: str, model: str, tokens: int) -> int:
    """Stream one answer of exactly ``tokens`` tokens; returns how many came."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    usage = 0
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                usage = ((json.loads(line[6:]).get("usage")) or {}).get("completion_tokens", usage)
    return usage


async def rate(url: str, model: str, clients: int, tokens: int) -> float:
    """Tokens a second of ``clients`` streams at once."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        started = time.monotonic()
        counts = await asyncio.gather(*(one(client, url, model, tokens) for _ in range(clients)))
        return sum(counts) / (time.monotonic() - started)


def engine_url(ports: dict[str, int], address: str) -> str:
    """The engine's own port: the one of the replica ports that answers for vLLM."""
    for port in range(ports["replica_min"], ports["replica_max"] + 1):
        try:
            found = httpx.get(f"http://{address}:{port}/v1/models", timeout=5)
        except httpx.TransportError:
            continue
        if found.status_code == 200:
            return f"http://{address}:{port}"
    raise SystemExit("no replica port answers: is the cell up?")


async def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".state"))
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    plan = json.loads((asked.state / "plan.json").read_text())
    cell = plan["cells"][0]
    paths = {
        "engine": engine_url(cell["ports"], asked.address),
        "cell": f"http://{asked.address}:{cell['ports']['serve']}",
        "gateway": asked.gateway,
    }
    print(f"{'clients':>7}  {'engine tok/s':>12}  {'cell tok/s':>10}  {'gateway tok/s':>13}  {'gateway/engine':>14}")
    for clients in asked.clients:
        rates: dict[str, list[float]] = {name: [] for name in paths}
        for _ in range(asked.rounds):
            for name, url in paths.items():
                rates[name].append(await rate(url, cell["model"], clients, asked.tokens))
        ratios = [through / direct for through, direct in zip(rates["gateway"], rates["engine"], strict=True)]
        middle = {name: statistics.median(values) for name, values in rates.items()}
        print(
            f"{clients:>7}  {middle['engine']:>12.1f}  {middle['cell']:>10.1f}  {middle['gateway']:>13.1f}"
            f"  {statistics.median(ratios):>14.3f}"
        )


if __name__ == "__main__":
    asyncio.run(main())
