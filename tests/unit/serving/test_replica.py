"""Which requests of a replica's port go to the engine's server, and how a replica ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from serving import replica


def who(name: str) -> Starlette:
    """A server that answers its name on every path."""
    return Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse(name), methods=["GET", "POST"])])


@pytest.fixture
def port() -> Iterator[ASGIApp]:
    """Serve's handler with the middlewares around it, as Serve starts it in a replica."""
    (one,) = replica.middlewares()
    assert isinstance(one, Middleware)
    yield one.cls(who("serve"), *one.args, **one.kwargs)
    replica._servers.clear()
    replica._books.clear()


def ask(port: ASGIApp, method: str, path: str) -> str:
    """The answer of a replica's port."""

    async def once() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(port), base_url="http://replica") as client:
            return (await client.request(method, path)).text

    return asyncio.run(once())


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "answers"),
    [
        ("/v1/chat/completions", "engine"),
        ("/health", "engine"),
        ("/", "engine"),
        ("/nothing/-/healthz", "engine"),
        ("/-/healthz", "serve"),
        ("/-/routes", "serve"),
    ],
)
def test_the_engine_answers_all_but_serves_own_paths(
    port: ASGIApp, method: str, path: str, answers: str, tmp_path: Path
) -> None:
    replica.answer_with(who("engine"), tmp_path / "usage.sqlite3")
    assert ask(port, method, path) == answers


def test_serve_answers_until_the_engine_is_there(port: ASGIApp) -> None:
    """As in Serve's own proxy on the head, which has no engine."""
    assert ask(port, "GET", "/v1/models") == "serve"


@pytest.mark.parametrize("how", ["replica.end('CUDA error')", "replica.EndsReplica().should_exit = True"])
def test_a_replica_ends_at_once_and_says_why(how: str, root: Path) -> None:
    begin = "import logging; logging.basicConfig(); from serving import replica"
    code = f"{begin}\ntry:\n    {how}\nfinally:\n    print('late')"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert "The engine has died, so the replica exits" in done.stderr
    assert "late" not in done.stdout


def test_a_server_that_need_not_exit_goes_on() -> None:
    server = replica.EndsReplica()
    server.should_exit = False
    assert not server.should_exit
