"""An engine for tests: it answers with what it was asked, in seconds after its start and without a model.

What updates, drains, losses and faults of cells do to clients does not depend on the engine. This one is a build like
the others (image, environment, plan, Ray Serve), so that a test of those waits for Ray alone. Never planned unless an
inventory asks for ``engine: echo`` and lists the build ``echo``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serving.engines.protocol import Sampling, Token

# What the health check and clients' tests ask of every endpoint; any other prompt is its own answer.
KNOWN = {"capital of france": "The capital of France is Paris.", "one, two, three": " four, five, six"}
END = 0  # the token that ends an answer
SECONDS = Field(default=0.0, ge=0)


class Arguments(BaseModel):
    """Engine arguments. All times are seconds."""

    model_config = ConfigDict(extra="forbid")

    max_model_len: int = Field(default=4096, gt=0, description="tokens that prompt and answer may have together")
    max_num_seqs: int = Field(default=256, gt=0, description="answers at once")
    start_s: float = SECONDS  # what a replica waits before it is ready
    answer_s: float = SECONDS  # before the first token of an answer
    token_s: float = SECONDS  # after each token


def tokens_of(text: str) -> list[str]:
    """Pieces of four characters at most: about as many as a model's own tokens."""
    return re.findall(r"\s*\S{1,4}", text)


class EchoText:
    """A vocabulary of all texts: a token's number is its text's bytes."""

    has_tools = False
    eos_ids = frozenset([END])
    defaults: Mapping[str, float] = {}

    def encode(self, text: str, special: bool) -> list[int]:
        """Tokens of a text."""
        return [int.from_bytes(b"\x01" + piece.encode(), "big") for piece in tokens_of(text)]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of tokens."""
        return "".join(
            number.to_bytes((number.bit_length() + 7) // 8, "big")[1:].decode(errors="replace") for number in ids
        )

    def chat(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        """The contents of all messages."""
        return " ".join(str(message.get("content") or "") for message in messages)

    def tool_style(self) -> str | None:
        """It calls no tools."""
        return None


class Echo:
    """The engine. Its answer is certain: whatever a request says of sampling is honoured by it."""

    text = EchoText()
    vocabulary = None
    cannot = frozenset(["logit_bias", "min_tokens", "ignore_eos"])

    def __init__(self, settings: Arguments) -> None:
        self._settings = settings
        self.max_model_len, self.max_num_seqs = settings.max_model_len, settings.max_num_seqs

    async def generate(self, prompt: Sequence[int], wanted: Sampling) -> AsyncGenerator[Token, None]:
        """What was asked, token by token."""
        asked = self.text.decode(prompt)
        said = next((text for words, text in KNOWN.items() if words in asked.lower()), asked)
        await asyncio.sleep(self._settings.answer_s)
        for token in [*self.text.encode(said, special=False), END][: wanted.max_tokens]:
            yield Token(token, 0.0, ((token, 0.0),) if wanted.logprobs else ())
            if token != END:
                await asyncio.sleep(self._settings.token_s)

    def check(self) -> None:
        """It cannot fail."""

    def close(self) -> None:
        """There is nothing to end."""


def load(path: str, settings: Arguments) -> Echo:
    """The engine; it reads no weights."""
    time.sleep(settings.start_s)
    return Echo(settings)
