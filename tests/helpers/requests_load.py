"""A constant load of plain and streamed requests on an endpoint, and what became of each of them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field

import httpx

# Pauses between requests. The cells, what disturbs them and the load may have two cores together.
PLAIN_EVERY_S = 1.0
STREAM_EVERY_S = 1.0
HANG_S = 60.0  # an answer that pauses for longer hangs


@dataclass
class Tally:
    """Requests of one kind."""

    sent: int = 0
    failed: list[str] = field(default_factory=list)  # refused, or wrong, before the first byte of an answer
    cut: list[str] = field(default_factory=list)  # streams that ended with an error after they had begun
    hung: int = 0
    slowest_s: float = 0.0


@dataclass
class Load:
    """Runs as long as the context lasts; ``plain`` and ``streamed`` are the tallies.

    Pauses are ``pace`` times as long: a real engine takes all cores, and needs them for what is tested.
    """

    endpoint: str
    model: str
    pace: float = 1.0
    plain: Tally = field(default_factory=Tally)
    streamed: Tally = field(default_factory=Tally)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [
            threading.Thread(target=self._run, args=(self._ask, self.plain, PLAIN_EVERY_S)),
            threading.Thread(target=self._run, args=(self._stream, self.streamed, STREAM_EVERY_S)),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def report(self) -> str:
        """One line for each kind."""
        lines = []
        for name, tally in (("plain", self.plain), ("streamed", self.streamed)):
            lines.append(
                f"{name}: {tally.sent} sent, {len(tally.failed)} failed, {len(tally.cut)} cut, {tally.hung} hung,"
                f" slowest {tally.slowest_s:.1f} s"
            )
        return "; ".join(lines)

    def _run(self, ask: object, tally: Tally, pause_s: float) -> None:
        assert callable(ask)
        # A connection of its own for each request, as many clients would have.
        while not self._stop.wait(self.pace * pause_s):
            began = time.monotonic()
            tally.sent += 1
            try:
                with httpx.Client(timeout=HANG_S) as client:
                    ask(client, tally)
            except httpx.TimeoutException as late:
                tally.hung += 1
                tally.failed.append(repr(late))
            except httpx.HTTPError as fault:
                tally.failed.append(repr(fault))
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)

    def _body(self, tokens: int, stream: bool) -> dict[str, object]:
        question = {"role": "user", "content": "Tell me about Paris."}
        return {"model": self.model, "messages": [question], "temperature": 0, "max_tokens": tokens, "stream": stream}

    def _ask(self, client: httpx.Client, tally: Tally) -> None:
        answer = client.post(f"{self.endpoint}/v1/chat/completions", json=self._body(2, False))
        if answer.status_code != 200 or not answer.json()["choices"][0]["message"]["content"]:
            tally.failed.append(f"{answer.status_code}: {answer.text[:300]}")

    def _stream(self, client: httpx.Client, tally: Tally) -> None:
        url, body = f"{self.endpoint}/v1/chat/completions", self._body(8, True)
        began = whole = False
        try:
            with client.stream("POST", url, json=body) as answer:
                if answer.status_code != 200:
                    tally.failed.append(f"{answer.status_code}: {answer.read().decode()[:300]}")
                    return
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        whole = True
                    elif line.startswith("data: "):
                        began = True
                        if "error" in json.loads(line.removeprefix("data: ")):
                            tally.cut.append(line[:300])
                            return
        except httpx.TimeoutException:
            raise
        except httpx.HTTPError as fault:
            (tally.cut if began else tally.failed).append(repr(fault))
            return
        if not whole:
            (tally.cut if began else tally.failed).append("ended without [DONE]")
