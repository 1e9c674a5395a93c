"""The chatbot as a program."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

# Before Gradio is imported: nothing is reported to anyone, and nothing is asked of the web.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
KEY_VARIABLE = "HETEROSERVE_API_KEY"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.chatbot",
        description="A page on which people talk to an OpenAI endpoint.",
        epilog=f"An API key comes from --key-file or the variable {KEY_VARIABLE}; without one, people enter their own.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="the endpoint, with or without /v1 (%(default)s)"
    )
    parser.add_argument("--key-file", type=Path, help="file with the API key that the endpoint is sent")
    parser.add_argument(
        "--ca", help="file with the authority of the endpoint's certificate, if the system has not got it"
    )
    parser.add_argument("--certificate", help="file with a certificate (PEM): the page is then served by https")
    parser.add_argument("--certificate-key", help="file with the certificate's key, if it is not in the same file")
    parser.add_argument("--root-path", default="", help="path under which a proxy shows the page, such as /chat")
    return parser.parse_args(given)


def key_of(path: Path | None) -> str:
    """The endpoint's key: from a file, or from the environment. Raises ``OSError``."""
    return path.read_text(encoding="utf-8").strip() if path else os.environ.pop(KEY_VARIABLE, "").strip()


def main() -> None:
    """Entry point."""
    asked = arguments()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.update(QUIET)
    from serving.chatbot import server
    from serving.chatbot.endpoint import Endpoint

    try:
        endpoint = Endpoint(asked.url, key_of(asked.key_file), asked.ca)
        server.run(endpoint, asked.host, asked.port, asked.certificate, asked.certificate_key, asked.root_path)
    except (OSError, ValueError) as fault:
        sys.exit(f"chatbot: {fault}")


if __name__ == "__main__":
    main()
