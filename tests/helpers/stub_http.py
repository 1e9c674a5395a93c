"""What the stand-in HTTP servers of the tests share."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


class StubHandler(BaseHTTPRequestHandler):
    """Sends whole answers and writes no log."""

    protocol_version = "HTTP/1.1"

    def send_whole(self, status: int, data: bytes, kind: str = "application/json") -> None:
        """An answer with its length."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""
