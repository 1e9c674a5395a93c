"""One answer on its way from the engine's tokens to the client's text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serving.engines.protocol import Engine, Sampling, Token
from serving.openai.answers import Chance
from serving.openai.pieces import Decoder, Stops, ToolCalls
from serving.openai.schema import ChatRequest, Common, CompletionRequest, limit_of


@dataclass(frozen=True)
class Job:
    """What one answer is to be: the prompt's tokens, how it is sampled, and how its text is shown."""

    prompt: tuple[int, ...]
    sampling: Sampling
    ends: frozenset[int] = frozenset()  # the model's own tokens of the end
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special: bool = True
    logprobs: bool = False
    tool_style: str | None = None
    before: str = ""  # text that is shown before the answer


def sampling_of(request: Common, engine: Engine, prompt: int, number: int = 0) -> Sampling:
    """How an answer is sampled: the request's fields, then the model's own defaults, then OpenAI's."""
    defaults = engine.text.defaults
    room = engine.max_model_len - prompt
    wanted = limit_of(request)

    def value(name: str, neutral: float) -> float:
        given = getattr(request, name)
        return float(given if given is not None else defaults.get(name, neutral))

    ends = frozenset() if request.ignore_eos else engine.text.eos_ids
    bias = {int(token): float(by) for token, by in (request.logit_bias or {}).items()}
    if isinstance(request, ChatRequest):
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
    else:
        logprobs = request.logprobs if isinstance(request, CompletionRequest) else None
    return Sampling(
        max_tokens=min(wanted or room, room),
        min_tokens=request.min_tokens,
        stop_ids=ends | frozenset(request.stop_token_ids or ()),
        temperature=value("temperature", 1.0),
        top_p=value("top_p", 1.0),
        top_k=max(0, int(value("top_k", 0))),
        min_p=value("min_p", 0.0),
        # Answers of one request differ, and are the same again with the same seed.
        seed=None if request.seed is None else request.seed + number,
        presence_penalty=value("presence_penalty", 0.0),
        frequency_penalty=value("frequency_penalty", 0.0),
        repetition_penalty=value("repetition_penalty", 1.0),
        logit_bias=bias,
        logprobs=logprobs,
    )


@dataclass
class Piece:
    """What a token adds to an answer."""

    text: str = ""
    chances: list[Chance] = field(default_factory=list)


class Answer:
    """The state of one answer."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self._engine, self._job = engine, job
        self._decoder = Decoder(engine.text, job.skip_special)
        self._stops = Stops(job.stops, job.include_stop)
        self._tools = ToolCalls(job.tool_style) if job.tool_style else None
        self.tokens = 0
        self.reason: str | None = None  # set when the answer has ended
        self.stop: int | str | None = None  # the client's own stop that ended it
        self.calls: list[dict[str, Any]] = []

    def add(self, token: Token) -> Piece:
        """Take a token; ``reason`` is set if it is the last."""
        self.tokens += 1
        wanted = self._job.sampling
        chances = [self._chance(token)] if self._job.logprobs else []
        if token.id in wanted.stop_ids and self.tokens > wanted.min_tokens:
            own = token.id not in self._job.ends
            self.reason, self.stop = "stop", token.id if own else None
            shown = self._decoder.add(token.id) if self._job.include_stop and own else ""
            return Piece(self._finish(self._stops.add(self._decoder.rest() + shown)), chances)
        text = self._decoder.add(token.id)
        # As vLLM does: in what has to be said at least no stop is looked for.
        text = self._stops.add(text) if self.tokens > wanted.min_tokens else text
        if self._stops.found is not None:
            self.reason, self.stop = "stop", self._stops.found
            return Piece(self._finish(text), chances)
        if self.tokens >= wanted.max_tokens:
            self.reason = "length"
            return Piece(self._finish(text + self._stops.add(self._decoder.rest())), chances)
        return Piece(self._tools.add(text) if self._tools else text, chances)

    def end(self) -> Piece:
        """The engine has no more tokens, though nothing that ends an answer was among them."""
        self.reason = self.reason or "stop"
        return Piece(self._finish(self._stops.add(self._decoder.rest())))

    def _finish(self, text: str) -> str:
        text += self._stops.rest()
        if self._tools is None:
            return text
        text = self._tools.add(text)
        rest, self.calls = self._tools.end()
        return text + rest

    def _chance(self, token: Token) -> Chance:
        def text_of(number: int) -> str:
            return self._engine.text.decode([number], skip_special=False)

        top = tuple((text_of(number), logprob) for number, logprob in token.top)
        return Chance(text_of(token.id), token.logprob, top)
