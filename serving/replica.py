"""What all replicas have in common: which server answers on their port, that tokens are counted, and how they exit when
the engine has died.

Serve starts an HTTP server in each replica and lets middlewares be put around its handler
(``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``, ray/serve/_private/http_util.py). Serve's handler makes two tasks, a
context, a record of metrics and a log record for each request, which costs about 1 ms of the process that also sends
every token. What it is there for is done elsewhere: the gateway bounds and counts requests, the engine's server notices
clients that leave. Serve's own paths, such as the health check of its HAProxy, still reach Serve.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import NoReturn

from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import usage

logger = logging.getLogger("ray.serve")
_servers: list[ASGIApp] = []  # of this process, which is one replica; none before the engine is there
_books: list[usage.Book] = []


def answer_with(server: ASGIApp, book: Path) -> ASGIApp:
    """Let ``server`` answer this replica's requests, and count their tokens in ``book``; returns it."""
    _servers[:], _books[:] = [server], [usage.Book(book)]
    return server


def middlewares() -> list[Middleware]:
    """What Serve puts around its handler."""
    return [Middleware(Direct)]


class Direct:
    """Gives a request to the engine's server; to Serve if there is none or the path is one of Serve's own."""

    def __init__(self, app: ASGIApp) -> None:
        self.of_ray_serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if not _servers or scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self.of_ray_serve(scope, receive, send)
        elif scope["path"] == usage.PATH:
            rows = await asyncio.to_thread(_books[0].page, scope["query_string"].decode())
            await Response(rows, media_type="application/json")(scope, receive, send)
        else:
            with _books[0].counted(scope["headers"]):
                await _servers[0](scope, receive, send)


def end(why: object) -> NoReturn:
    """End this process, so that Serve starts another replica at once.

    A replica whose health check fails is asked twice more and then given time to answer what it is doing, all of which
    fails. Requests that it was answering get no answer this way, and the gateway asks another cell.
    """
    logger.error("The engine has died, so the replica exits: %s", why)
    for book in _books:
        book.write()
    logging.shutdown()
    os._exit(1)


class EndsReplica:
    """What vLLM's error handlers take for the server of the process: told to exit when the engine has died."""

    @property
    def should_exit(self) -> bool:
        """Never, while it can be asked."""
        return False

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            end("it failed a request")
