"""An engine for tests: it answers with what it was asked, in seconds after its start and without a model.

What updates, drains, losses and faults of cells do to clients does not depend on the engine. This one is a build like
the others (image, environment, plan, Ray Serve), so that a test of those waits for Ray alone. Never planned unless an
inventory asks for ``engine: echo`` and lists the build ``echo``.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve

# What the health check and clients' tests ask of every endpoint; any other prompt is its own answer.
KNOWN = {"capital of france": "The capital of France is Paris.", "one, two, three": " four, five, six"}
# Engine arguments, with what they are if left out. All times are seconds.
ARGUMENTS: dict[str, Any] = {
    "max_model_len": 4096,  # tokens that prompt and answer may have together
    "start_s": 0.0,  # what a replica waits before it is ready
    "answer_s": 0.0,  # before the first token of an answer
    "token_s": 0.0,  # after each token
}
web = FastAPI()


def tokens_of(text: str) -> list[str]:
    """Pieces of four characters at most: about as many as a model's own tokens."""
    return re.findall(r"\s*\S{1,4}", text)


def settings_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The engine's arguments with the defaults. Raises ``ValueError`` for one that it does not know."""
    for name in arguments:
        if name not in ARGUMENTS:
            raise ValueError(f"Unknown engine argument: {name}")
    return {**ARGUMENTS, **arguments}


def prompt_of(body: dict[str, Any], chat: bool) -> str:
    """The text that is answered. Raises ``ValueError`` where the request has none."""
    if not chat:
        if not isinstance(body.get("prompt"), str):
            raise ValueError("prompt: a string is expected")
        return str(body["prompt"])
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1].get("content"), str):
        raise ValueError("messages: a list is expected, whose last content is a string")
    return " ".join(str(message.get("content") or "") for message in messages)


def answer_to(prompt: str) -> list[str]:
    """Tokens of the answer."""
    known = next((text for words, text in KNOWN.items() if words in prompt.lower()), prompt)
    return tokens_of(known)


def error(status: int, message: str, kind: str, code: str | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    body = {"message": message, "type": kind, "param": None, "code": code or status}
    return JSONResponse({"error": body}, status_code=status)


@serve.deployment(name="echo")
@serve.ingress(web)
class Echo:
    """One replica."""

    def __init__(self, model: str, arguments: dict[str, Any]) -> None:
        self.model = model
        self.settings = settings_of(arguments)
        time.sleep(self.settings["start_s"])

    @web.get("/health")
    def health(self) -> Response:
        return Response()

    @web.get("/v1/models")
    def models(self) -> dict[str, Any]:
        one = {"id": self.model, "object": "model", "created": 0, "owned_by": "heteroserve"}
        return {"object": "list", "data": [{**one, "max_model_len": self.settings["max_model_len"]}]}

    @web.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Response:
        return await self._answer(request, chat=True)

    @web.post("/v1/completions")
    async def completion(self, request: Request) -> Response:
        return await self._answer(request, chat=False)

    async def _answer(self, request: Request, chat: bool) -> Response:
        try:
            body = dict(await request.json())
            prompt = prompt_of(body, chat)
        except (TypeError, AttributeError, ValueError) as fault:
            return error(400, str(fault), "BadRequestError")
        if body.get("model") != self.model:
            known = f"The model `{body.get('model')}` does not exist."
            return error(404, known, "NotFoundError", "model_not_found")
        count, limit = len(tokens_of(prompt)), self.settings["max_model_len"]
        if count >= limit:
            text = f"This model's maximum context length is {limit} tokens. Your prompt has {count}."
            return error(400, text, "BadRequestError")
        whole = answer_to(prompt)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or limit - count
        said = whole[: min(most, limit - count)]
        reason = "stop" if len(said) == len(whole) else "length"
        usage = {"prompt_tokens": count, "completion_tokens": len(said), "total_tokens": count + len(said)}
        if body.get("stream"):
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            pieces = self._pieces(said, reason, usage if with_usage else None, chat)
            return StreamingResponse(pieces, media_type="text/event-stream")
        await asyncio.sleep(self.settings["answer_s"] + len(said) * self.settings["token_s"])
        text = "".join(said)
        part: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, **part, "finish_reason": reason}
        return JSONResponse({**self._head(chat, ""), "choices": [choice], "usage": usage})

    async def _pieces(
        self, said: list[str], reason: str, usage: dict[str, int] | None, chat: bool
    ) -> AsyncIterator[str]:
        """Server-sent events, one for each token."""
        head = self._head(chat, ".chunk" if chat else "")

        def event(**fields: Any) -> str:
            return f"data: {json.dumps({**head, **fields})}\n\n"

        def choice(text: str, end: str | None) -> dict[str, Any]:
            part: dict[str, Any] = {"delta": {"content": text} if text else {}} if chat else {"text": text}
            return {"index": 0, **part, "finish_reason": end}

        await asyncio.sleep(self.settings["answer_s"])
        for token in said:
            yield event(choices=[choice(token, None)])
            await asyncio.sleep(self.settings["token_s"])
        yield event(choices=[choice("", reason)])
        if usage is not None:
            yield event(choices=[], usage=usage)
        yield "data: [DONE]\n\n"

    def _head(self, chat: bool, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if chat else "text_completion"
        return {"id": f"echo-{time.time_ns()}", "object": kind, "created": int(time.time()), "model": self.model}


def app(args: dict[str, Any]) -> serve.Application:
    """Builder of the application, as Serve's configuration names it: ``model``, ``engine_kwargs`` and ``deployment``.

    A wrong engine argument fails here, before a replica starts.
    """
    settings_of(args["engine_kwargs"])
    return Echo.options(**args["deployment"]).bind(args["model"], args["engine_kwargs"])  # type: ignore[attr-defined]
