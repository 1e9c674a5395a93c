#!/usr/bin/env python3
"""A stand-in for a cell: GET /health, and an answer that says who gave it. Usage: stub_cell.py PORT NAME [ADDRESS]

A request may say how long its answer takes (``seconds``) and how many pieces a stream has (``pieces``, 0.1 s apart).
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "The capital of France is Paris."


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a whole answer is sent at once, so that it has begun only when it is complete

    def log_message(self, *arguments: object) -> None:
        """Keep the journal clean."""

    def whole(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def piece(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
        self.wfile.flush()

    def do_GET(self) -> None:
        self.whole({"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        served_by = {"served_by": sys.argv[2], "model": asked["model"]}
        if not asked.get("stream"):
            time.sleep(asked.get("seconds", 0))
            self.whole({**served_by, "choices": [{"message": {"content": ANSWER}}], "usage": {"completion_tokens": 7}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        words = ANSWER.split(" ")
        pieces = asked.get("pieces", 0)
        for text in ["." for _ in range(pieces)] or [words[0], *(f" {word}" for word in words[1:])]:
            self.piece(f"data: {json.dumps({**served_by, 'choices': [{'delta': {'content': text}}]})}\n\n")
            time.sleep(0.1 if pieces else 0)
        self.piece("data: [DONE]\n\n")
        self.piece("")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Server((sys.argv[3] if len(sys.argv) > 3 else "", int(sys.argv[1])), Handler).serve_forever()
