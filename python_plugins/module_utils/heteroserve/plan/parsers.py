"""Which of vLLM's parsers read a model's tool calls and its reasoning, by the family that its name tells.

Only families of the Llama architecture, which is all that is planned for. Names as vLLM 0.29 registers them
(vllm/tool_parsers, vllm/reasoning).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..inventory.models import ModelRequest


@dataclass(frozen=True)
class Family:
    """Models that write calls and reasoning in one form."""

    name: str
    pattern: str  # found in the hub's id, the card, the folder or the name of a model, in lower case
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None


# The first that matches: models that were made from another have its name in theirs.
FAMILIES = (
    Family("DeepSeek R1 distilled into Llama", r"deepseek-r1-distill", None, "deepseek_r1"),
    Family("Hermes 2 Pro and 3", r"hermes-(2-pro|3)", "hermes"),
    Family("xLAM", r"\bxlam\b", "xlam"),
    Family("ToolACE", r"toolace", "pythonic"),
    Family("Llama 3.1 to 3.3", r"llama-3[.-][123]\b", "llama3_json"),
)


@dataclass(frozen=True)
class Parsers:
    """vLLM's parsers for a model, None where it has none or nobody asks for it, and why."""

    tool_call_parser: str | None
    reasoning_parser: str | None
    reason: str

    @property
    def arguments(self) -> dict[str, object]:
        """As vLLM names them."""
        found: dict[str, object] = {}
        if self.tool_call_parser is not None:
            found |= {"enable_auto_tool_choice": True, "tool_call_parser": self.tool_call_parser}
        if self.reasoning_parser is not None:
            found["reasoning_parser"] = self.reasoning_parser
        return found


def parsers_for(request: ModelRequest) -> Parsers:
    """Reasoning is always told apart, tool calls where the model's entry has ``tools``: they cost throughput.

    What ``engine_args`` name wins, and is not asked of here.
    """
    source = request.source
    texts = [source.hub or "", request.card or "", (source.path or "").rstrip("/").rpartition("/")[2], request.name]
    whole = " ".join(texts).lower()
    family = next((one for one in FAMILIES if re.search(one.pattern, whole)), None)
    if not request.chat:
        return Parsers(None, None, "it has no chat template, which tools and reasoning need")
    if family is None:
        return Parsers(None, None, f"its name is of none of {', '.join(one.name for one in FAMILIES)}")
    tools = family.tool_call_parser if request.tools else None
    return Parsers(tools, family.reasoning_parser, f"it is of the family {family.name}")
