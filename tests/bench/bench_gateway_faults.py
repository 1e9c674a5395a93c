"""What clients see while one of a model's four cells fails, or all: a table, one row for each kind of fault.

python tests/bench/bench_gateway_faults.py [--haproxy PROGRAM] [FAULT ...]

Takes the configuration that bench_gateway_load.py installs, and runs PROGRAM with it. The cells are stand-ins, a
process each, so that they can be killed and frozen. 20 plain requests a second and 4 streams a second are sent,
whatever becomes of them (open loop); the fault lasts from the third to the twelfth second of 22. Needs root for lost
hosts (iptables).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from tests.bench.bench_gateway_load import BODY, GATEWAY, STREAMS, install, processes, request  # noqa: E402

FROM_S, TO_S, END_S = 3, 12, 22
ANSWER_S = 0.1  # of a plain request
PIECES, PAUSE_S = 10, 0.2  # of a stream


# --- a cell: python bench_gateway_faults.py --cell PORT ---

MODE = {"is": "well"}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"(?i)content-length: (\d+)", head)
            body = json.loads(await reader.readexactly(int(length[1]))) if length else {}
            if mode := re.match(rb"GET /become/(\w+)", head):
                MODE["is"] = mode[1].decode()
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif MODE["is"] == "fails":
                text = b'{"error": {"message": "no"}}'
                writer.write(b"HTTP/1.1 500 Error\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
            elif body.get("stream"):
                await _stream(writer)
            else:
                await asyncio.sleep(ANSWER_S if MODE["is"] != "slow" else 3)
                text = b'{"answer": "%s"}' % (b"London" if MODE["is"] == "wrong" else b"Paris")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
            await writer.drain()
            if b" HTTP/1.0" in head:
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(PIECES):
        writer.write(b"c\r\ndata: zzzz\n\n\r\n")
        await writer.drain()
        if MODE["is"] == "resets" and number == 2:
            writer.transport.abort()
            return
        await asyncio.sleep(PAUSE_S if MODE["is"] != "slow" else 3 * PAUSE_S)
    writer.write(b"0\r\n\r\n")


async def _cell(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# --- the load ---


@dataclass
class Seen:
    """What clients saw."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0  # the connection ended before the first byte of an answer
    cut: int = 0  # streams that ended early
    slowest_s: float = 0  # to the first byte
    wrong: int = 0


async def _ask(seen: Seen, stream: bool) -> None:
    began = time.monotonic()
    seen.sent += 1
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", GATEWAY)
        writer.write(request({**BODY, "stream": stream}))
        head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError):
        seen.unanswered += 1
        return
    seen.slowest_s = max(seen.slowest_s, time.monotonic() - began)
    status = head.split()[1].decode()
    seen.statuses[status] += 1
    try:
        rest = await reader.read(-1)
    except OSError:
        rest = b""
    writer.close()
    if status == "200" and stream and rest.count(b"data: ") != PIECES:
        seen.cut += 1
    seen.wrong += b"London" in rest


def _states() -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{GATEWAY + 1}/;csv", timeout=5) as answer:
        rows = csv.DictReader(answer.read().decode().lstrip("# ").splitlines())
        return [row["status"] for row in rows if row["pxname"] == "model-a" and row["svname"] != "BACKEND"]


async def _watch(downs: int, at: dict[str, float], began: float) -> None:
    """Note when the cells were out after the fault, and in again after it ended."""
    while (now := time.monotonic() - began) < END_S:
        up = sum(state.startswith("UP") for state in await asyncio.to_thread(_states))
        if FROM_S < now < TO_S + 1 and up <= 4 - downs:
            at.setdefault("out", now - FROM_S)
        if "out" in at and now > TO_S and up == 4:
            at.setdefault("in", now - TO_S)
        await asyncio.sleep(0.1)


async def measure(begin: Callable[[], None], end: Callable[[], None], downs: int) -> tuple[Seen, dict[str, float]]:
    """Send requests while the fault begins and ends."""
    seen, at, began, tasks = Seen(), dict[str, float](), time.monotonic(), []
    watch = asyncio.create_task(_watch(downs, at, began))
    turns = [(FROM_S, begin), (TO_S, end)]
    for number in range(END_S * 20):
        await asyncio.sleep(max(0, began + number / 20 - time.monotonic()))
        if turns and number / 20 >= turns[0][0]:
            await asyncio.to_thread(turns.pop(0)[1])
        tasks.append(asyncio.create_task(_ask(seen, stream=False)))
        if number % 5 == 0:
            tasks.append(asyncio.create_task(_ask(seen, stream=True)))
    await asyncio.gather(*tasks, watch)
    return seen, at


# --- the faults ---


class Cells:
    """Four processes, and what can happen to them."""

    def __init__(self) -> None:
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.start(*range(4))

    def start(self, *numbers: int) -> None:
        for number in numbers:
            command = [sys.executable, __file__, "--cell", str(STREAMS + number)]
            self.running[number] = subprocess.Popen(command)
        time.sleep(0.5)

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            self.running[number].kill()
            self.running[number].wait()

    def signal(self, number: int, what: signal.Signals) -> None:
        self.running[number].send_signal(what)

    def become(self, mode: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{STREAMS}/become/{mode}", timeout=5).close()

    def drop(self, switch: str) -> None:
        """Lose all packets from and to the first cell, or (-D) no more."""
        for chain, end in (("INPUT", "--dport"), ("INPUT", "--sport")):
            rule = ["-p", "tcp", "-i", "lo", end, str(STREAMS), "-j", "DROP"]
            subprocess.run(["iptables", switch, chain, *rule], check=True)


def faults(cells: Cells) -> dict[str, tuple[Callable[[], None], Callable[[], None], int]]:
    """Name -> how it begins, how it ends, how many cells are to be out."""
    return {
        "none": (lambda: None, lambda: None, 0),
        "killed": (lambda: cells.kill(0), lambda: cells.start(0), 1),
        "frozen": (lambda: cells.signal(0, signal.SIGSTOP), lambda: cells.signal(0, signal.SIGCONT), 1),
        "lost": (lambda: cells.drop("-I"), lambda: cells.drop("-D"), 1),
        "slow": (lambda: cells.become("slow"), lambda: cells.become("well"), 1),
        "fails": (lambda: cells.become("fails"), lambda: cells.become("well"), 1),
        "wrong": (lambda: cells.become("wrong"), lambda: cells.become("well"), 1),
        "resets": (lambda: cells.become("resets"), lambda: cells.become("well"), 1),
        "all-killed": (lambda: cells.kill(*range(4)), lambda: cells.start(*range(4)), 4),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "/usr/sbin/haproxy")
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cell:
        asyncio.run(_cell(asked.cell))
    version = subprocess.run([asked.haproxy, "-v"], capture_output=True, encoding="utf-8", check=True).stdout
    print(version.splitlines()[0])
    cells = Cells()
    with tempfile.TemporaryDirectory(prefix="hs-bench-") as name:
        state = Path(name) / "state"
        gateway: list[subprocess.Popen[bytes]] = []
        try:
            install(state, STREAMS)
            processes.end(processes.INSTALLATION, str(state), grace_s=5)
            for config in ("largest.cfg", "large.cfg", "haproxy.cfg"):
                command = [asked.haproxy, "-W", "-f", str(state / "gateway" / config)]
                gateway.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(3)
            print(f"{'fault':<11}{'sent':>6}{'5xx':>5}{'unanswered':>11}{'cut':>5}{'wrong':>7}", end="")
            print(f"{'slowest s':>11}{'out after s':>13}{'in after s':>12}")
            for fault, (begin, end, downs) in faults(cells).items():
                if asked.faults and fault not in asked.faults:
                    continue
                seen, at = asyncio.run(measure(begin, end, downs))
                out, back = (f"{at[word]:.1f}" if downs and word in at else "-" for word in ("out", "in"))
                failed = sum(count for status, count in seen.statuses.items() if status != "200")
                print(f"{fault:<11}{seen.sent:>6}{failed:>5}{seen.unanswered:>11}{seen.cut:>5}{seen.wrong:>7}", end="")
                print(f"{seen.slowest_s:>11.2f}{out:>13}{back:>12}", flush=True)
        finally:
            for process in gateway:
                process.terminate()
                process.wait()
            processes.end(processes.INSTALLATION, str(state), grace_s=5)
            cells.kill(*range(4))


if __name__ == "__main__":
    main()
