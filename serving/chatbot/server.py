"""Serves the page, and lets a browser go nowhere else."""

from __future__ import annotations

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.chatbot import page
from serving.chatbot.endpoint import Endpoint

# Whatever a model writes, a picture from elsewhere included, the browser asks nobody but this page's own server.
# Gradio's page has scripts and styles in line.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none';"
    " base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Ends within this time when it is told to, also while answers are streamed.
END_S = 3
LOOK_S = 0.02


def with_headers(app: ASGIApp) -> ASGIApp:
    """The same application, with ``HEADERS`` on each response. No body is touched, so streams stay streams."""
    extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await app(scope, receive, sent)

    return wrapped


def build(endpoint: Endpoint, root_path: str = "") -> ASGIApp:
    """The application."""
    blocks = page.build(endpoint)
    blocks.queue(default_concurrency_limit=None)
    # Gradio looks for new questions a thousand times a second, which costs 2 % of a core while nobody asks.
    blocks._queue.sleep_when_free = LOOK_S
    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    web.add_api_route("/health", lambda: "ok", response_class=PlainTextResponse)
    app = gr.mount_gradio_app(
        web,
        blocks,
        path="/",
        theme=page.THEME,
        css=page.CSS,
        root_path=root_path or None,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        show_error=False,
        max_file_size=1,
    )
    return with_headers(app)


def run(
    endpoint: Endpoint, host: str, port: int, certificate: str | None, certificate_key: str | None, root_path: str
) -> None:
    """Serve until told to end."""
    uvicorn.run(
        build(endpoint, root_path),
        host=host,
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=certificate_key,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=END_S,
    )
