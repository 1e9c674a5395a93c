"""Requests: which fields there are, which values they may have, and which of vLLM's fields are refused by name.

Fields that nobody knows are ignored, as vLLM's server and OpenAI's clients expect. A field that vLLM's server honours
and an engine here does not is an error that names it: a client never gets an answer to another request than its own.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from serving.openai.errors import Refusal

INT64 = 2**63 - 1
Seed = Annotated[int, Field(ge=-INT64 - 1, le=INT64)]
Count = Annotated[int, Field(le=INT64)]

# Fields of vLLM 0.29's protocol that no engine here has, with the values that ask for nothing.
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": (None,),
    "audio": (None,),
    "bad_words": (None, []),
    "best_of": (None, 1),
    "cache_salt": (None,),
    "chat_template": (None,),
    "continue_final_message": (False,),
    "documents": (None, []),
    "ec_transfer_params": (None,),
    "function_call": (None, "none"),
    "functions": (None, []),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "kv_transfer_params": (None,),
    "length_penalty": (1, 1.0, None),
    "logprob_token_ids": (None, []),
    "modalities": (None, ["text"]),
    "priority": (0, None),
    "prompt_embeds": (None, []),
    "prompt_logprobs": (None,),
    "repetition_detection": (None,),
    "response_format": (None, {"type": "text"}),
    "return_prompt_text": (None, False),
    "return_token_ids": (None, False),
    "return_token_offsets": (None, False),
    "return_tokens_as_token_ids": (None, False),
    "structured_outputs": (None,),
    "suffix": (None, ""),
    "thinking_token_budget": (None,),
    "truncate_prompt_tokens": (None,),
    "truncation_side": (None,),
    "use_beam_search": (False, None),
}


class Part(BaseModel):
    """One part of a message's content."""

    model_config = ConfigDict(extra="allow")

    type: str = "text"
    text: str | None = None


class Message(BaseModel):
    """One message of a conversation; other keys are handed to the chat template."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Function(BaseModel):
    """What a tool is called and takes."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool that the model may call."""

    model_config = ConfigDict(extra="allow")

    type: str = "function"
    function: Function


class StreamOptions(BaseModel):
    """What a stream has beside the text."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Common(BaseModel):
    """What chats and completions share."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = None
    frequency_penalty: float | None = None
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    logit_bias: dict[str, float] | None = None
    max_tokens: Count | None = None
    min_p: float | None = None
    min_tokens: Count = 0
    n: int | None = 1
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Seed | None = None
    skip_special_tokens: bool = True
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    user: str | None = None

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    echo: bool = False
    logprobs: bool | None = False
    max_completion_tokens: Count | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: str | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[Tool] | None = None
    top_logprobs: int | None = None


class CompletionRequest(Common):
    """POST /v1/completions."""

    prompt: str | list[str] | list[Annotated[int, Field(ge=0)]] | list[list[Annotated[int, Field(ge=0)]]] | None = None
    add_special_tokens: bool = True
    echo: bool | None = False
    logprobs: int | None = None


MOST_PROMPTS = 1024  # of one completion request
MOST_CHOICES = 128
MOST_LOGPROBS = 20  # vLLM's default max_logprobs


def check(request: Common, cannot: frozenset[str]) -> None:
    """Refuse what the engine would have to ignore, and values out of range. Raises ``Refusal``."""
    for name, value in {**(request.model_extra or {})}.items():
        if name in NOT_HERE and value not in NOT_HERE[name]:
            raise Refusal(f"`{name}` is not supported by this engine.", name)
    for name in sorted(request.model_fields_set & cannot):
        if getattr(request, name) not in (None, False, {}, []):
            raise Refusal(f"`{name}` is not supported by this engine.", name)
    if request.stream_options and not request.stream:
        raise Refusal("Stream options can only be defined when `stream=True`.", "stream_options")
    if request.stream_options and request.stream_options.continuous_usage_stats:
        raise Refusal(
            "`stream_options.continuous_usage_stats` is not supported by this engine.",
            "stream_options.continuous_usage_stats",
        )
    _in_range(request)
    if isinstance(request, ChatRequest):
        _check_chat(request)
    elif isinstance(request, CompletionRequest):
        _check_completion(request)


def _in_range(request: Common) -> None:
    def need(good: bool, name: str, words: str) -> None:
        if not good:
            raise Refusal(f"{name} must be {words}, got {getattr(request, name)}.", name)

    count = 1 if request.n is None else request.n
    need(1 <= count <= MOST_CHOICES, "n", f"at least 1 and at most {MOST_CHOICES}")
    for name in ("presence_penalty", "frequency_penalty"):
        need(-2 <= (getattr(request, name) or 0) <= 2, name, "in [-2, 2]")
    if request.repetition_penalty is not None:
        need(request.repetition_penalty > 0, "repetition_penalty", "greater than zero")
    if request.temperature is not None:
        need(request.temperature >= 0, "temperature", "non-negative")
        if count > 1 and request.temperature < 1e-5:
            raise Refusal(f"n must be 1 when using greedy sampling, got {count}.", "n")
    if request.top_p is not None:
        need(0 < request.top_p <= 1, "top_p", "in (0, 1]")
    if request.top_k is not None:
        need(request.top_k >= -1, "top_k", "0 (disable), or at least 1")
    if request.min_p is not None:
        need(0 <= request.min_p <= 1, "min_p", "in [0, 1]")
    if request.max_tokens is not None:
        need(request.max_tokens >= 1, "max_tokens", "at least 1")
    need(request.min_tokens >= 0, "min_tokens", "greater than or equal to 0")
    most = limit_of(request)
    if most is not None and request.min_tokens > most:
        need(False, "min_tokens", f"less than or equal to max_tokens={most}")
    if "" in request.stops:
        raise Refusal("stop cannot contain an empty string.", "stop")


def _check_chat(request: ChatRequest) -> None:
    if request.max_completion_tokens is not None and request.max_completion_tokens < 1:
        raise Refusal(
            f"max_completion_tokens must be at least 1, got {request.max_completion_tokens}.", "max_completion_tokens"
        )
    top = request.top_logprobs or 0
    if top < 0:
        raise Refusal("`top_logprobs` must be a positive value or -1.", "top_logprobs")
    if top and not request.logprobs:
        raise Refusal("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    if top > MOST_LOGPROBS:
        raise Refusal(
            f"Requested sample logprobs of {top}, which is greater than max allowed: {MOST_LOGPROBS}", "top_logprobs"
        )
    if request.echo:
        raise Refusal("`echo` is not supported by this engine.", "echo")
    if request.reasoning_effort not in (None, "none"):
        raise Refusal("`reasoning_effort` is not supported by this engine.", "reasoning_effort")
    for message in request.messages:
        for part in message.content if isinstance(message.content, list) else []:
            if part.type not in ("text", "input_text", "output_text", "refusal") or part.text is None:
                raise Refusal(f"This model takes text only, found a part of type {part.type!r}.", "messages")
    _check_tools(request)


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    if request.tools == []:
        raise Refusal(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    if choice in (None, "none"):
        return
    if request.tools is None:
        raise Refusal("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice != "auto":
        # To force a call the engine would have to constrain what is sampled.
        raise Refusal('`tool_choice` can be "auto" or "none" with this engine.', "tool_choice")


def _check_completion(request: CompletionRequest) -> None:
    if request.prompt is None or request.prompt == "" or request.prompt == []:
        raise Refusal("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(request.prompt, list) and not isinstance(request.prompt[0], int):
        if len(request.prompt) > MOST_PROMPTS:
            raise Refusal(f"prompt: at most {MOST_PROMPTS} prompts are taken, found {len(request.prompt)}.", "prompt")
        if any(not prompt for prompt in request.prompt):
            raise Refusal("prompt: a prompt must not be empty.", "prompt")
    wanted = request.logprobs
    if wanted is not None and wanted < 0:
        raise Refusal("`logprobs` must be a positive value or -1.", "logprobs")
    if wanted is not None and wanted > MOST_LOGPROBS:
        raise Refusal(
            f"Requested sample logprobs of {wanted}, which is greater than max allowed: {MOST_LOGPROBS}", "logprobs"
        )
    if request.echo and wanted is not None:
        raise Refusal("`logprobs` of the prompt, which `echo` asks for, are not supported by this engine.", "logprobs")


def limit_of(request: Common) -> int | None:
    """Tokens that the client lets an answer have; None where it does not say."""
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        return request.max_completion_tokens
    if isinstance(request, CompletionRequest) and request.max_tokens is None:
        return 16  # OpenAI's default, and vLLM's
    return request.max_tokens


def limit_name(request: Common) -> str:
    """The field that says so."""
    chat = isinstance(request, ChatRequest) and request.max_completion_tokens is not None
    return "max_completion_tokens" if chat else "max_tokens"
