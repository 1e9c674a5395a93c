"""A checkpoint's tokenizer and chat template, without the engine's framework.

transformers would do, but each engine's environment has another release of it: BigDL's is older than templates with
tools. The tokenizer library and the sandbox of jinja2 are what transformers itself uses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON; {} where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def template_of(folder: Path) -> str | None:
    """The model's own chat template: a file beside the weights, or a key of the tokenizer's configuration."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = read_json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((one["template"] for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def tool_style_of(template: str | None) -> str | None:
    """How a model writes calls, told by its template; None where the template has no tools or an unknown style."""
    if template is None or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return "hermes"
    return "llama3_json" if "parameters" in template else None


def environment() -> ImmutableSandboxedEnvironment:
    """What chat templates are written for (transformers, utils/chat_template_utils.py)."""

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **more)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return made


class CheckpointText:
    """The tokenizer, the template and what generation_config.json says, of a folder of weights."""

    def __init__(self, folder: Path, tokenizer_file: Path | None = None) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file or folder / "tokenizer.json"))
        # A tokenizer may come with a limit of its own; the context is checked before.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        source = template_of(folder)
        self._template = environment().from_string(source) if source else None
        self._style = tool_style_of(source)
        self.has_tools = source is not None and "tools" in source
        settings = read_json(folder / "tokenizer_config.json")
        self._special = {name: _content(settings.get(name)) for name in ("bos_token", "eos_token", "pad_token")}
        generation, config = read_json(folder / "generation_config.json"), read_json(folder / "config.json")
        ends = generation.get("eos_token_id", config.get("eos_token_id"))
        self.eos_ids = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        # As vLLM does (--generation-config auto): what the publisher recommends is for requests that say nothing.
        self.defaults: Mapping[str, float] = {
            name: generation[name] for name in SAMPLING if isinstance(generation.get(name), int | float)
        }

    def encode(self, text: str, special: bool) -> list[int]:
        """Tokens of a text. Raises ``UnicodeError`` if it has no UTF-8 form."""
        text.encode()  # tokenizers of BigDL's environment replace half a surrogate pair, later ones raise TypeError
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def chat(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
        """A conversation as the model's own template writes it. Raises ``ValueError`` if the template refuses it."""
        if self._template is None:
            raise ValueError("This model has no chat template: ask it through /v1/completions.")
        try:
            return self._template.render(
                **{**{key: value for key, value in self._special.items() if value}, **options, "messages": messages}
            )
        except (TemplateError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError) as fault:
            # The template's own code, run over what the client sent.
            raise ValueError(f"The chat template does not take this conversation: {fault}") from fault

    def tool_style(self) -> str | None:
        """How the model writes a call of a tool."""
        return self._style


def _content(token: Any) -> str:
    """A special token's text, which may be an object with flags."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
