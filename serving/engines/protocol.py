"""What an engine is to the OpenAI surface: text on one side, tokens one at a time on the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen, and when the engine ends it."""

    max_tokens: int
    min_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()  # each ends the answer; it is still yielded
    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None  # how many of the likeliest tokens to tell beside the chosen one; None: nothing


@dataclass(frozen=True)
class Token:
    """One generated token. Log-probabilities are those of the model, before temperature and penalties, as vLLM's."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()  # the likeliest, best first


class Text(Protocol):
    """The model's tokenizer and chat template."""

    has_tools: bool  # the template can show tools to the model
    eos_ids: frozenset[int]
    defaults: Mapping[str, float]  # what the model's publisher recommends for requests that leave it out

    def encode(self, text: str, special: bool) -> list[int]:
        """Tokens of a text; ``special`` adds those that the model expects around a prompt."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of tokens."""

    def chat(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        """A conversation as the model's own template writes it. Raises ``ValueError`` if the template refuses it."""

    def tool_style(self) -> str | None:
        """How the model writes a call of a tool: "hermes", "llama3_json", or None."""


class Engine(Protocol):
    """One replica's engine."""

    text: Text
    max_model_len: int  # tokens of prompt and answer together
    max_num_seqs: int  # answers that are computed at once
    vocabulary: int | None  # number of tokens; None where any number is one
    cannot: frozenset[str]  # fields of a request that this engine has no way to honour

    def generate(self, prompt: Sequence[int], wanted: Sampling) -> AsyncGenerator[Token, None]:
        """The answer, until ``max_tokens`` or one of ``stop_ids``; when closed, no further token is computed."""

    def check(self) -> None:
        """Raises ``RuntimeError`` if the engine can answer nothing any more."""

    def close(self) -> None:
        """End the engine."""
