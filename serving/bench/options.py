"""The command line. Every wrong value ends with one sentence that says what was found and what to give."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from serving.bench.arrivals import PROCESSES
from serving.bench.trace import read_trace
from serving.bench.verdict import Requirement, requirement
from serving.bench.workload import PROFILES, Lengths, Workload

MOST_CLIENTS = 20_000


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without repeating its usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def whole(least: int, most: int = 10**9) -> Any:
    """A whole number of a range."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number from {least} to {most}")
        return int(text)

    return read


def number(least: float, above: bool = False) -> Any:
    """A number of at least ``least``, or above it."""

    def read(text: str) -> float:
        expected = f"a number {'above' if above else 'of at least'} {least:g}"
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"found '{text}', expected {expected}") from None
        if not (value > least or (value == least and not above)) or value == float("inf"):
            raise argparse.ArgumentTypeError(f"found '{text}', expected {expected}")
        return value

    return read


def numbers(read: Any) -> Any:
    """Several of them, separated by commas, each once and in order."""

    def read_all(text: str) -> list[Any]:
        return sorted({read(part.strip()) for part in text.split(",")})

    return read_all


def lengths(text: str) -> Lengths:
    """ "256" or "14-40"."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not found or not 1 <= int(found[1]) <= int(found[2] or found[1]):
        raise argparse.ArgumentTypeError(f"found '{text}', expected tokens such as 256, or 14-40 for a range")
    return Lengths(int(found[1]), int(found[2] or found[1]))


def address(text: str) -> str:
    """An HTTP address, without /v1."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"found '{text}', expected an address such as http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix("/v1")


def required(text: str) -> Requirement:
    """A requirement."""
    try:
        return requirement(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault).removeprefix("--require: ")) from None


def parser() -> Parser:
    """All options."""
    made = Parser(
        prog="heteroserve bench",
        description="Measure how fast an OpenAI endpoint answers, and write a report. Without options: the load of the"
        " guide on the endpoint of inventory/local.",
        epilog="Ends with 0; with 1 where a requirement is not met or nothing was answered; with 2 where it could not"
        " measure. docs/benchmark.md explains the figures.",
    )
    what = made.add_argument_group("what is measured")
    what.add_argument("-i", "--inventory", action="append", default=[], help="inventory whose endpoint is measured")
    what.add_argument("-e", "--extra-vars", action="append", default=[], help="further variables for Ansible")
    what.add_argument("--url", type=address, help="any OpenAI endpoint, instead of an inventory's")
    what.add_argument("--target", type=Path, help=argparse.SUPPRESS)
    what.add_argument(
        "--null", action="store_true", help="a built-in server that thinks nothing: the client's own limit"
    )
    what.add_argument("--null-token-s", type=number(0), default=0.0, help="seconds between its tokens (0: none)")
    what.add_argument("--model", help="which of the endpoint's models (default: the first)")
    what.add_argument("--chat", action="store_true", help="chats instead of completions")
    what.add_argument("--key-file", default="", help="file with the API key (or set API_KEY)")
    what.add_argument("--ca-file", default="", help="certificates that the endpoint's is signed by")
    what.add_argument("--insecure", action="store_true", help="do not check the endpoint's certificate")

    load = made.add_argument_group("load")
    load.add_argument("--profile", choices=sorted(PROFILES), default="guide", help="lengths (default: guide)")
    load.add_argument("--trace", type=Path, help="requests of a file (JSON lines, Azure's CSV or Mooncake's lines)")
    load.add_argument("--speed", type=number(0, above=True), default=1.0, help="play a trace faster or slower")
    load.add_argument("--clients", type=numbers(whole(1, MOST_CLIENTS)), help="closed loop: clients, such as 1,32,256")
    load.add_argument(
        "--rate", type=numbers(number(0, above=True)), help="open loop: requests a second, such as 1,5,20"
    )
    load.add_argument("--arrivals", choices=sorted(PROCESSES), default="poisson", help="of an open loop")
    load.add_argument("--burst-size", type=whole(1), default=8, help="requests of a burst (--arrivals bursts)")
    load.add_argument("--requests", type=whole(1), help="most of a measurement (1000, at least 4 a client)")
    load.add_argument("--seconds", type=number(0, above=True), default=60.0, help="no request is sent later (60)")
    load.add_argument("--drain", type=number(0), default=120.0, help="seconds for those that run then (120)")
    load.add_argument("--timeout", type=number(0, above=True), default=600.0, help="seconds of one request (600)")
    load.add_argument("--warmup", type=whole(0), default=8, help="requests before the first measurement (8)")
    load.add_argument("--prompt-tokens", type=lengths, help="instead of the profile's, such as 14-40")
    load.add_argument("--output-tokens", type=lengths, help="instead of the profile's, such as 256")
    load.add_argument("--prefixes", type=whole(1), help="number of shared beginnings of prompts")
    load.add_argument("--prefix-tokens", type=whole(1), help="tokens of a shared beginning")
    load.add_argument("--temperature", type=number(0), help="instead of the profile's")
    load.add_argument("--stop-at-eos", action="store_true", help="answers may end before their length")
    load.add_argument("--seed", type=whole(0), default=1, help="the same seed asks the same (1)")
    load.add_argument("--processes", type=whole(1, 256), help="processes of the client (default: half of the cores)")

    report = made.add_argument_group("report")
    report.add_argument("--out", type=Path, help="folder of the report (default: state_dir/benchmarks/TIME)")
    report.add_argument("--compare", type=Path, help="result.json of another run, or a file of vLLM's own benchmark")
    report.add_argument(
        "--require",
        type=required,
        action="append",
        default=[],
        help="such as tokens_per_s>=1000 or ttft_p95_ms@256<=500",
    )
    report.add_argument("--statistics", type=address, help="HAProxy's figures, for the share of each cell")
    report.add_argument("--prometheus", type=address, help="for power, and the share of each cell")
    report.add_argument("--details", action="store_true", help="also vLLM's lists with every request's times")
    report.add_argument("--no-limit", action="store_true", help="do not measure the client's own limit")
    return made


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; ends the process with 2 and one sentence where it is wrong."""
    made = parser()
    asked = made.parse_args(arguments)
    sources = [name for name in ("url", "null", "target") if getattr(asked, name)]
    if len(sources) > 1 or (sources and asked.inventory):
        made.error("give one of --inventory, --url and --null: only one endpoint is measured")
    if asked.clients and asked.rate:
        made.error("give --clients (closed loop) or --rate (open loop), not both")
    if asked.trace and (asked.clients or asked.rate):
        made.error("a trace has its own times: leave --clients and --rate out (--speed plays it faster)")
    if asked.processes is None:
        asked.processes = max(2, min(16, (os.cpu_count() or 2) // 2))
    return asked


def workload_of(asked: argparse.Namespace) -> Workload:
    """The load that is asked for. Raises ``ValueError`` with one sentence."""
    made = PROFILES[asked.profile]
    changes: dict[str, Any] = {"seed": asked.seed, "ignore_eos": not asked.stop_at_eos}
    said = [made.description]
    if asked.trace:
        entries = read_trace(asked.trace, asked.speed)
        changes |= {"name": "trace", "trace": entries, "prefixes": 0, "source": str(asked.trace)}
        said = [f"{len(entries)} requests of {asked.trace.name} over {entries[-1].at:.0f} s"]
    for name, words in (("prompt", "asked"), ("output", "answered")):
        if given := getattr(asked, f"{name}_tokens"):
            changes[name] = given
            said.append(f"{given} tokens {words} instead")
    if asked.temperature is not None:
        changes["temperature"] = asked.temperature
        said.append(f"temperature {asked.temperature:g} instead")
    if asked.prefixes or asked.prefix_tokens:
        changes["prefixes"] = asked.prefixes or made.prefixes or 1
        changes["prefix_tokens"] = asked.prefix_tokens or made.prefix_tokens or 256
        said.append(f"{changes['prefixes']} shared beginnings of {changes['prefix_tokens']} tokens")
    made = replace(made, **changes, description=", ".join(said))
    if made.prefixes and not made.trace and made.prefix_tokens >= made.prompt.least:
        raise ValueError(
            f"--prefix-tokens: a beginning of {made.prefix_tokens} tokens needs longer prompts than"
            f" {made.prompt.least} tokens: give --prompt-tokens, such as {made.prefix_tokens + 32}"
        )
    return made
