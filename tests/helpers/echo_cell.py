"""A cell of the engine for tests without Ray: ``python -m tests.helpers.echo_cell PORT MODEL TOKEN_S [BOOK]``.

TOKEN_S are seconds after each token. With BOOK, a file, it counts tokens for the ledger as a replica does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

from serving import replica
from serving.engines.echo import Arguments, Echo
from serving.openai.surface import build


def main() -> None:
    """Serve until killed."""
    port, model, token_s, *book = sys.argv[1:]
    web = build(Echo(Arguments(token_s=float(token_s), max_model_len=2000)), model, "echo", 64)
    if book:
        replica.answer_with(web, Path(book[0]))
    uvicorn.run(replica.Direct(web) if book else web, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
