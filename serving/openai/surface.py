"""The OpenAI server of one replica: a FastAPI application around an engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from serving import usage
from serving.engines.protocol import Engine
from serving.openai import answers, errors
from serving.openai.choice import Answer, Job, Piece, sampling_of
from serving.openai.metrics import Metrics
from serving.openai.queue import Queue
from serving.openai.schema import ChatRequest, Common, CompletionRequest, check, limit_name, limit_of

logger = logging.getLogger("ray.serve")

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; the error names the field"},
    404: {"description": "There is no such model"},
    429: {"description": "Too many requests wait; Retry-After says when to come again"},
    500: {"description": "The engine failed in this request"},
}


def json_only(request: Request) -> None:
    """As vLLM's server: a body of another type is not read."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        words = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise errors.Refusal(words, None, 400, HTTPStatus.BAD_REQUEST.phrase)


def messages_of(request: ChatRequest) -> list[dict[str, Any]]:
    """The conversation as templates read it: contents are texts."""
    found = []
    for message in request.messages:
        one = message.model_dump(exclude_none=True)
        if isinstance(message.content, list):
            one["content"] = "\n".join(part.text or "" for part in message.content)
        one.setdefault("content", "")
        found.append(one)
    return found


def chat_prompt(engine: Engine, request: ChatRequest) -> list[int]:
    """The conversation's tokens. Raises ``Refusal``."""
    options: dict[str, Any] = {**(request.chat_template_kwargs or {})}
    options["add_generation_prompt"] = request.add_generation_prompt
    if request.tools and request.tool_choice != "none":
        if not engine.text.has_tools or engine.text.tool_style() is None:
            raise errors.Refusal("`tools` are not supported: the model's chat template has none.", "tools")
        options["tools"] = [tool.model_dump(exclude_none=True) for tool in request.tools]
    try:
        text = engine.text.chat(messages_of(request), options)
        return engine.text.encode(text, request.add_special_tokens)
    except (ValueError, TypeError) as fault:  # UnicodeError is a ValueError
        words = "messages: this is no text that has a UTF-8 form." if isinstance(fault, UnicodeError) else str(fault)
        raise errors.Refusal(words, "messages") from fault


def completion_prompts(engine: Engine, request: CompletionRequest) -> list[list[int]]:
    """Each prompt's tokens. Raises ``Refusal``."""
    given: Any = request.prompt
    one = isinstance(given, str) or isinstance(given[0], int)
    found: list[list[int]] = []
    for prompt in [given] if one else given:
        try:
            ids = engine.text.encode(prompt, request.add_special_tokens) if isinstance(prompt, str) else list(prompt)
        except (ValueError, TypeError) as fault:  # half a surrogate pair
            raise errors.Refusal("prompt: this is no text that has a UTF-8 form.", "prompt") from fault
        if not ids:
            raise errors.Refusal("The prompt has no tokens.", "prompt")
        found.append(ids)
    return found


def known_tokens(engine: Engine, request: Common, prompts: list[list[int]]) -> None:
    """Refuse numbers that are no token of the model. Raises ``Refusal``."""

    def need(name: str, ids: Any) -> None:
        for number in ids:
            if number < 0 or (engine.vocabulary is not None and number >= engine.vocabulary):
                raise errors.Refusal(f"Token id {number} is out of vocabulary", name)

    try:
        need("logit_bias", [int(token) for token in request.logit_bias or {}])
    except ValueError as fault:
        raise errors.Refusal("logit_bias: the keys have to be token ids.", "logit_bias") from fault
    need("stop_token_ids", request.stop_token_ids or ())
    for prompt in prompts:
        need("prompt", prompt)


def jobs_of(engine: Engine, request: Common) -> list[Job]:
    """The answers that a request asks for, in the order of their indices. Raises ``Refusal``.

    Reads and counts the whole prompt: too long for an event loop.
    """
    tools: str | None = None
    if isinstance(request, ChatRequest):
        prompts = [chat_prompt(engine, request)]
        if request.tools and request.tool_choice != "none":
            tools = engine.text.tool_style()
    elif isinstance(request, CompletionRequest):
        prompts = completion_prompts(engine, request)
    else:
        raise TypeError(type(request))
    known_tokens(engine, request, prompts)
    found = []
    for prompt in prompts:
        asked = limit_of(request) or 0
        if asked > engine.max_model_len:
            raise errors.too_much(engine.max_model_len, asked, limit_name(request))
        if len(prompt) + max(asked, 1) > engine.max_model_len:
            raise errors.too_long(engine.max_model_len, len(prompt), asked)
        before = ""
        if isinstance(request, CompletionRequest) and request.echo:
            before = engine.text.decode(prompt, request.skip_special_tokens)
        for number in range(request.n or 1):
            wanted = sampling_of(request, engine, len(prompt), number)
            found.append(
                Job(
                    prompt=tuple(prompt),
                    sampling=wanted,
                    ends=engine.text.eos_ids,
                    stops=tuple(request.stops),
                    include_stop=request.include_stop_str_in_output,
                    skip_special=request.skip_special_tokens,
                    logprobs=wanted.logprobs is not None,
                    tool_style=tools,
                    before=before,
                )
            )
    return found


class Stream(StreamingResponse):
    """A stream that gives its place in the queue back however it ends, even if it never began."""

    def __init__(self, pieces: AsyncGenerator[str, None], place: ExitStack) -> None:
        super().__init__(pieces, media_type="text/event-stream")
        self._pieces, self._place = pieces, place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._place.close()
            # Without this a generator whose client has left would go on until it is collected.
            await self._pieces.aclose()


class Surface:
    """What the routes share."""

    def __init__(self, engine: Engine, model: str, name: str, waiting: int) -> None:
        self.engine, self.model = engine, model
        self.queue = Queue(engine.max_num_seqs, waiting)
        self.metrics = Metrics(model, name, lambda: self.queue.inside)
        self.created = int(time.time())

    async def answer(self, request: Common, raw: Request) -> Response:
        """A request's answer, whole or as a stream."""
        started = time.monotonic()
        if request.model and request.model != self.model:
            raise errors.Refusal(f"The model `{request.model}` does not exist.", "model", 404, "NotFoundError")
        check(request, self.engine.cannot)
        jobs = await asyncio.to_thread(jobs_of, self.engine, request)
        chat = isinstance(request, ChatRequest)
        head = answers.Head(self.model, chat)
        prompt = _prompt_tokens(jobs, request)
        place = ExitStack()
        place.enter_context(self.queue.place(len(jobs)))
        self.metrics.prompt.inc(prompt)
        usage.add(prompt=prompt)
        if request.stream:
            return Stream(self._stream(head, jobs, prompt, request.with_usage, started), place)
        with place:
            whole = asyncio.ensure_future(self._whole(head, jobs, prompt, started))
            return await self._unless_left(raw, whole)

    async def _unless_left(self, raw: Request, whole: asyncio.Future[Response]) -> Response:
        """The answer, unless its client leaves first: then nothing more is computed for it."""
        gone = asyncio.ensure_future(_left(raw))
        both: tuple[asyncio.Future[Any], ...] = (whole, gone)
        try:
            await asyncio.wait([*both], return_when=asyncio.FIRST_COMPLETED)
            if whole.done():
                return whole.result()
            self.metrics.left.inc()
            return Response(status_code=499)  # nobody reads it
        finally:
            for task in both:
                if not task.done():
                    task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _whole(self, head: answers.Head, jobs: list[Job], prompt: int, started: float) -> Response:
        async def one(index: int, job: Job) -> tuple[dict[str, Any], int]:
            texts, chances, answer = [job.before], [], Answer(self.engine, job)
            async with aclosing(self._pieces(answer, job, started)) as pieces:
                async for piece in pieces:
                    texts.append(piece.text)
                    chances += piece.chances
            shown, told = "".join(texts), chances if job.logprobs else None
            reason = answer.reason or "stop"
            if head.chat:
                return answers.chat_choice(index, shown, answer.calls, reason, answer.stop, told), answer.tokens
            return answers.text_choice(index, shown, reason, answer.stop, told), answer.tokens

        # A group ends its other answers when one fails or the client leaves.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(index, job)) for index, job in enumerate(jobs)]
        found = [task.result() for task in tasks]
        total = sum(tokens for _, tokens in found)
        return JSONResponse(head.whole([choice for choice, _ in found], answers.usage(prompt, total)))

    async def _pieces(self, answer: Answer, job: Job, started: float) -> AsyncGenerator[Piece, None]:
        """What each token adds; the engine stops computing when this is closed."""
        async with aclosing(self.engine.generate(job.prompt, job.sampling)) as tokens:
            async for token in tokens:
                if answer.tokens == 0:
                    self.metrics.first.observe(time.monotonic() - started)
                yield answer.add(token)
                self.metrics.generated.inc()
                usage.add(answer=1)
                if answer.reason:
                    break
        if answer.reason is None:
            yield answer.end()
        taken = time.monotonic() - started
        self.queue.took(taken)
        self.metrics.whole.observe(taken)
        self.metrics.ended("tool_calls" if answer.calls else answer.reason or "stop")

    async def _stream(
        self, head: answers.Head, jobs: list[Job], prompt: int, with_usage: bool, started: float
    ) -> AsyncGenerator[str, None]:
        """Server-sent events of all answers as they come."""
        events: asyncio.Queue[str | BaseException | None] = asyncio.Queue(maxsize=64)
        counts = [0] * len(jobs)

        async def one(index: int, job: Job) -> None:
            answer, offset = Answer(self.engine, job), 0
            if head.chat:
                await events.put(head.event([answers.chat_delta(index, {"role": "assistant", "content": ""})]))
            elif job.before:
                await events.put(head.event([answers.text_choice(index, job.before, None, None, None)]))
                offset = len(job.before)
            async with aclosing(self._pieces(answer, job, started)) as pieces:
                async for piece in pieces:
                    counts[index] = answer.tokens
                    told = piece.chances if job.logprobs else None
                    if not (piece.text or told or answer.reason):
                        continue
                    if not head.chat:
                        choice = answers.text_choice(index, piece.text, answer.reason, answer.stop, told, offset)
                        offset += len(piece.text)
                    else:
                        delta: dict[str, Any] = {"content": piece.text} if piece.text or not answer.calls else {}
                        if answer.calls:
                            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(answer.calls)]
                        reason = "tool_calls" if answer.calls else answer.reason
                        choice = answers.chat_delta(index, delta, told, reason, answer.stop)
                    await events.put(head.event([choice]))

        async def all_of_them() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for index, job in enumerate(jobs):
                        group.create_task(one(index, job))
                await events.put(None)
            except BaseExceptionGroup as faults:
                await events.put(faults.exceptions[0])

        running = asyncio.create_task(all_of_them())
        done = False
        try:
            while (item := await events.get()) is not None:
                if isinstance(item, BaseException):
                    # The status was sent long ago: an event has to say it.
                    status, body = self.failed(item)
                    self.metrics.refused(status)
                    yield answers.event(body)
                    break
                yield item
            else:
                if with_usage:
                    yield head.event([], answers.usage(prompt, sum(counts)))
            done = True
            yield answers.DONE
        finally:
            running.cancel()
            self.metrics.left.inc(0 if done else 1)
            await asyncio.gather(running, return_exceptions=True)

    @staticmethod
    def failed(fault: BaseException) -> tuple[int, dict[str, Any]]:
        """Status and body for what went wrong in one request."""
        if isinstance(fault, BaseExceptionGroup):
            return Surface.failed(fault.exceptions[0])
        if isinstance(fault, errors.Refusal):
            return fault.status, errors.body(str(fault), fault.kind, fault.status, fault.param)
        logger.error("A request failed: %r", fault, exc_info=fault)
        return 500, errors.body(f"The engine failed: {type(fault).__name__}", "InternalServerError", 500)


def _prompt_tokens(jobs: list[Job], request: Common) -> int:
    """Tokens of the prompts, each counted once however many answers it has."""
    return sum(len(job.prompt) for job in jobs[:: request.n or 1])


async def _left(raw: Request) -> None:
    """Ends when the client has closed its connection."""
    while (await raw.receive())["type"] != "http.disconnect":
        pass


def build(engine: Engine, model: str, name: str, waiting: int) -> FastAPI:
    """The server of a replica: ``model`` as clients call it, ``name`` of the engine, requests that may wait."""
    surface = Surface(engine, model, name, waiting)
    web = FastAPI(title=f"HeteroServe {name}", version="1", docs_url=None, redoc_url=None)
    web.state.surface = surface

    @web.exception_handler(errors.Refusal)
    async def refused(_: Request, refusal: errors.Refusal) -> Response:
        status, body = surface.failed(refusal)
        surface.metrics.refused(status)
        return JSONResponse(body, status, refusal.headers)

    @web.exception_handler(RequestValidationError)
    async def invalid(_: Request, fault: RequestValidationError) -> Response:
        surface.metrics.refused(400)
        return JSONResponse(errors.of_validation(fault.errors()), 400)

    @web.exception_handler(HTTPException)
    async def http(_: Request, fault: HTTPException) -> Response:
        phrase = HTTPStatus(fault.status_code).phrase
        return JSONResponse(errors.body(str(fault.detail), phrase, fault.status_code), fault.status_code, fault.headers)

    async def guarded(request: Common, raw: Request) -> Response:
        try:
            return await surface.answer(request, raw)
        except errors.Refusal:
            raise
        except Exception as fault:
            status, body = surface.failed(fault)
            surface.metrics.refused(status)
            return JSONResponse(body, status)

    @web.get("/health", responses={503: {"description": "The engine can answer nothing any more"}})
    async def health() -> Response:
        try:
            engine.check()
        except RuntimeError as fault:
            return JSONResponse(errors.body(str(fault), "ServiceUnavailableError", 503), 503)
        return Response()

    @web.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(surface.metrics.text())

    @web.get("/v1/models")
    async def models() -> dict[str, Any]:
        card = {"id": model, "object": "model", "created": surface.created, "owned_by": "heteroserve", "root": model}
        return {"object": "list", "data": [{**card, "parent": None, "max_model_len": engine.max_model_len}]}

    @web.post("/v1/chat/completions", dependencies=[Depends(json_only)], responses=ERRORS)
    async def chat(request: ChatRequest, raw: Request) -> Response:
        return await guarded(request, raw)

    @web.post("/v1/completions", dependencies=[Depends(json_only)], responses=ERRORS)
    async def completion(request: CompletionRequest, raw: Request) -> Response:
        return await guarded(request, raw)

    return web
