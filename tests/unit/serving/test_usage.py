"""A replica counts what its engine reads and computes for requests of a gateway, and tells it once to each who asks."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving import replica, usage
from serving.engines.echo import Arguments, Echo
from serving.openai.surface import build

GATEWAY = {"heteroserve-key": "%22b%C3%B6b", "heteroserve-model": "b%2Fc", "x-request-id": "r1"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three four"}]}


@pytest.fixture
def port(tmp_path: Path) -> Iterator[replica.Direct]:
    engine = Echo(Arguments(token_s=0.02))
    replica.answer_with(build(engine, "m", "echo", 8), tmp_path / "usage" / "a-0.sqlite3")
    yield replica.Direct(build(engine, "m", "serve", 8))
    replica._servers.clear()
    replica._books.clear()


def client(port: replica.Direct) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(port), base_url="http://replica", timeout=10)


def rows(**asked: object) -> list[dict[str, Any]]:
    page = json.loads(replica._books[0].page("&".join(f"{name}={value}" for name, value in asked.items())))
    names = ["number", *usage.COLUMNS.split(", ")]
    return [{**dict(zip(names, row, strict=True)), "epoch": page["epoch"]} for row in page["rows"]]


async def asked(port: replica.Direct, headers: dict[str, str] | None = None, **more: object) -> dict[str, Any]:
    async with client(port) as session:
        answer = await session.post("/v1/chat/completions", json={**CHAT, **more}, headers=headers or GATEWAY)
        return dict(answer.json()["usage"]) if not more.get("stream") else {}


def test_answers_count_streamed_or_not(port: replica.Direct) -> None:
    whole = asyncio.run(asked(port))
    asyncio.run(asked(port, stream=True))
    first, second = rows()
    for row in (first, second):
        assert (row["request"], row["key"], row["model"], row["ended"]) == ("r1", '"böb', "b/c", 1)
        assert (row["prompt"], row["answer"]) == (whole["prompt_tokens"], whole["completion_tokens"])
    assert [row["number"] for row in rows(epoch=first["epoch"], after=1)] == [2]
    assert len(rows(epoch="another", after=1)) == 2


def test_requests_of_others_and_those_without_tokens_are_no_rows(port: replica.Direct) -> None:
    """The health check asks cells by themselves; a request that is refused costs nothing."""
    asyncio.run(asked(port, headers={"x-request-id": "r2"}))

    async def refused() -> int:
        async with client(port) as session:
            return (await session.post("/v1/chat/completions", json={**CHAT, "n": 0}, headers=GATEWAY)).status_code

    assert asyncio.run(refused()) == 400
    assert rows() == []


def test_the_page_is_answered_on_the_replicas_port(port: replica.Direct) -> None:
    async def get() -> httpx.Response:
        async with client(port) as session:
            return await session.get("/usage?epoch=x&after=3")

    assert asyncio.run(get()).json()["rows"] == []


def test_an_answer_that_goes_on_is_told_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PROGRESS_S", 0.0)
    book = usage.Book(tmp_path / "a.sqlite3")
    with book.counted([(name.encode(), value.encode()) for name, value in GATEWAY.items()]):
        usage.add(prompt=3, answer=2)
        time.sleep(0.01)
        book.write()
        usage.add(answer=5)
    found = [row[5:] for row in json.loads(book.page(""))["rows"]]
    assert found == [[3, 2, 3, 2, 0], [0, 5, 3, 7, 1]]


def _write(path: Path, number: int) -> None:
    book = usage.Book(path)
    for _ in range(50):
        with book.counted([(b"heteroserve-key", str(number).encode())]):
            usage.add(prompt=1)
        book.write()


def test_replicas_share_a_book_which_outlives_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.sqlite3"
    writers = [multiprocessing.Process(target=_write, args=(path, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    page = json.loads(usage.Book(path).page(""))
    assert [row[0] for row in page["rows"]] == list(range(1, 151))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_book_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    book = usage.Book(tmp_path / "file" / "a.sqlite3")
    with book.counted([(b"heteroserve-key", b"x")]):
        usage.add(prompt=1)
    book.write()
    (tmp_path / "file").unlink()
    book.write()
    assert len(json.loads(book.page(""))["rows"]) == 1


@pytest.mark.parametrize("kind", ["DELTA", "CUMULATIVE", "FINAL_ONLY"])
def test_vllms_outputs_count_once(kind: str, tmp_path: Path) -> None:
    """Two answers to a prompt of three tokens; a stream has what is new, others all that there is."""

    async def generate(prompt: object, sampling_params: object, request_id: str) -> AsyncGenerator[Any, None]:
        for step in range(1, 4) if kind != "FINAL_ONLY" else (3,):
            ids = [7] if kind == "DELTA" else [7] * step
            outputs = [SimpleNamespace(index=index, token_ids=ids) for index in (0, 1)]
            yield SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=outputs)

    engine = SimpleNamespace(generate=generate)
    usage.count_outputs(engine)
    book = usage.Book(tmp_path / "a.sqlite3")

    async def ask() -> None:
        with book.counted([(b"heteroserve-key", b"x")]):
            params = SimpleNamespace(output_kind=SimpleNamespace(name=kind))
            assert [one async for one in engine.generate("p", params, "r")]

    asyncio.run(ask())
    assert [row[5:7] for row in json.loads(book.page(""))["rows"]] == [[3, 6]]
