"""One model on all engines for processors at once, behind one name: inventory/local-mixed with OpenVINO beside them.

``pytest -s --long tests/integration/test_mixed.py`` prints their shares, and what a client gets from each.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from heteroserve.common import processes

from tests.helpers.endpoint_behaviour import MODEL
from tests.helpers.mutations import ask_its_document
from tests.helpers.mutations import send as send_mutated
from tests.helpers.openai_requests import CONTEXT, requests, send
from tests.helpers.requests_load import Load

from .conftest import Installation, installation

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long("a quarter of an hour: four environments, four engines; units hold the surface to the same table"),
]
ENGINES = ("vllm", "openvino", "onnx", "bigdl")
# Requests that name no model, or none that is served: the gateway refuses them itself, as it cannot route them.
GATEWAYS_OWN = {f"chat: model {what}" for what in ("left out", "unknown", "null", "a number")} | {
    "no JSON",
    "an array",
    "null",
    "no body",
    "half a surrogate pair",
    "half a surrogate pair in a prompt",
}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
# Declared, so that four replicas are planned on any machine. Each binds to what is there.
HARDWARE = {"cpu": "epyc-7763", "sockets": 1, "memory_gib": 64}


class Mixed(Installation):
    """An installation with an inventory of its own."""

    inventory: Path

    def command(self, *words: str) -> list[str]:
        return [*super().command(*words), "-i", str(self.inventory)]

    def cells(self) -> dict[str, dict[str, Any]]:
        """By engine."""
        return {cell["engine"]: cell for cell in self.plan()["cells"]}

    def url(self, engine: str) -> str:
        """Of an engine's cell."""
        return f"http://127.0.0.1:{self.cells()[engine]['ports']['serve']}"

    def answered(self) -> dict[str, int]:
        """Requests that each engine's cell was given, from the gateway's own figures."""
        text = httpx.get(f"http://127.0.0.1:{self.ports['gateway_stats_port']}/;csv", timeout=5).text.lstrip("# ")
        rows = [row for row in csv.DictReader(text.splitlines()) if row["svname"] not in ("FRONTEND", "BACKEND")]
        return {
            engine: sum(int(row["stot"]) for row in rows if row["svname"] == cell["name"])
            for engine, cell in self.cells().items()
        }


@pytest.fixture(scope="module")
def mixed(root: Path, scratch: Path) -> Iterator[Mixed]:
    folder = scratch / "mixed"
    made = installation(root, folder, 26500)
    made = Mixed(made.root, made.state, made.cache, made.ports)
    made.inventory = folder / "inventory"
    shutil.copytree(root / "inventory" / "local-mixed", made.inventory)
    (made.inventory / "host_vars").mkdir()
    (made.inventory / "host_vars" / "local.yml").write_text(yaml.safe_dump({"hardware": HARDWARE}))
    models = made.inventory / "group_vars" / "all" / "models.yml"
    asked = yaml.safe_load(models.read_text())
    asked["models"][0].update(engines=list(ENGINES), max_replicas=4, context=CONTEXT, max_num_seqs=4)
    models.write_text(yaml.safe_dump(asked))
    try:
        made.up()
        yield made
    finally:
        processes.end(processes.INSTALLATION, str(made.state), grace_s=5)


def test_every_engine_has_a_cell(mixed: Mixed) -> None:
    assert set(mixed.cells()) == set(ENGINES)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_table_of_requests(mixed: Mixed, engine: str) -> None:
    found = {one.name: send(mixed.url(engine), MODEL, one) for one in requests()}
    wanted = {one.name: one.expected if engine == "vllm" else one.here for one in requests()}
    other = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
    print(f"{engine}: {len(wanted) - len(other)} of {len(wanted)} as in the table; {other}")
    assert not other


def test_the_table_of_requests_through_the_gateway(mixed: Mixed) -> None:
    """It answers as one of the engines does, or itself where it must know the model."""
    found = {one.name: send(mixed.gateway, MODEL, one) for one in requests()}
    own = {one.name: found[one.name] for one in requests() if found[one.name] not in (one.expected, one.here)}
    print(f"gateway: {len(found) - len(own)} of {len(found)} as an engine, itself: {own}")
    assert own.keys() == GATEWAYS_OWN


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_what_nobody_would_send_is_answered(mixed: Mixed, engine: str) -> None:
    """2,000 mutated requests, and what schemathesis makes of the engine's OpenAPI document: no 5xx, nothing hangs."""
    for answers, faults in (send_mutated(mixed.url(engine), MODEL, 2000), ask_its_document(mixed.url(engine), 60)):
        print(f"{engine}: {dict(answers)}")
        assert not faults


@pytest.mark.parametrize("engine", [*ENGINES, "gateway"])
def test_the_official_client_gets_the_same_answer(mixed: Mixed, engine: str) -> None:
    url = mixed.gateway if engine == "gateway" else mixed.url(engine)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(model=MODEL, messages=[QUESTION], temperature=0, max_tokens=20)  # type: ignore[list-item]
    streamed = client.chat.completions.create(
        model=MODEL,
        messages=[QUESTION],  # type: ignore[list-item]
        temperature=0,
        max_tokens=20,
        stream=True,
    )
    pieces = [event.choices[0].delta.content or "" for event in streamed if event.choices]
    print(f"{engine}: {whole.choices[0].message.content!r}")
    assert "Paris" in (whole.choices[0].message.content or "")
    assert "".join(pieces) == whole.choices[0].message.content


def test_each_engine_has_the_share_that_the_plan_gives_it(mixed: Mixed) -> None:
    before, until = mixed.answered(), time.monotonic() + 60
    failed: list[str] = []

    def ask() -> None:
        body = {"model": MODEL, "messages": [QUESTION], "max_tokens": 16, "temperature": 0}
        while time.monotonic() < until:
            answer = httpx.post(f"{mixed.gateway}/v1/chat/completions", json=body, timeout=120)
            if answer.status_code != 200:
                failed.append(answer.text)

    clients = [threading.Thread(target=ask) for _ in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    counts = {engine: count - before[engine] for engine, count in mixed.answered().items()}
    weights = {engine: cell["weight"] for engine, cell in mixed.cells().items()}
    for engine, count in counts.items():
        share, planned = count / sum(counts.values()), weights[engine] / sum(weights.values())
        print(f"{engine}: {count} requests, {share:.0%} of all, planned {planned:.0%} (weight {weights[engine]})")
    assert not failed
    assert all(counts.values())


@pytest.mark.parametrize("engine", ["openvino", "vllm"])
def test_a_killed_engine_costs_no_request(mixed: Mixed, engine: str) -> None:
    cell, name = mixed.cells()[engine]["name"], "VLLM::Engine" if engine == "vllm" else "ray::ServeRepl"
    victims = [
        pid
        for pid, found in mixed.members().items()
        if found.startswith(name) and cell in Path(f"/proc/{pid}/environ").read_text(errors="replace")
    ]
    with Load(mixed.gateway, MODEL, 0.5) as load:
        time.sleep(4)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        time.sleep(20)
    print(load.report())
    assert victims
    assert load.plain.failed == []
    assert load.streamed.failed == []
