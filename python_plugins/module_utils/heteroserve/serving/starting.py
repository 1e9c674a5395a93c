"""What a starting engine is busy with, by what it has written."""

from __future__ import annotations

import re

# Lines of vLLM in the order of its start, and what it does from then on.
STEPS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Initializing a V\d LLM engine"), "starting the engine"),
    (re.compile(r"Starting to load model"), "loading the weights"),
    (re.compile(r"Loading weights took|Model loading took"), "preparing the engine"),
    (re.compile(r"Compiling a graph|Dynamo bytecode transform"), "compiling"),
    (re.compile(r"torch\.compile took|GPU KV cache size"), "warming up"),
    (re.compile(r"[Cc]apturing CUDA graphs|Graph capturing"), "capturing graphs"),
    (re.compile(r"init engine .* took"), "starting the server"),
)
_SHARDS = re.compile(r"checkpoint shards:\s+(\d+)% Completed")


def step_of(log: str) -> str:
    """The last step that the log shows, such as "loading the weights (40 %)"; "" if it shows none."""
    found = next((said for pattern, said in reversed(STEPS) if pattern.search(log)), "")
    shards = _SHARDS.findall(log)
    if shards and found in ("", "starting the engine", "loading the weights"):
        return f"loading the weights ({shards[-1]} %)"
    return found
