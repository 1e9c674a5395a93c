"""A cell of the engine for tests without Ray: ``python -m tests.helpers.echo_cell PORT MODEL SECONDS_PER_TOKEN``."""

from __future__ import annotations

import sys

import uvicorn

from serving.engines.echo import Arguments, Echo
from serving.openai.surface import build


def main() -> None:
    """Serve until killed."""
    port, model, token_s = sys.argv[1:]
    web = build(Echo(Arguments(token_s=float(token_s), max_model_len=2000)), model, "echo", 64)
    uvicorn.run(web, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
