"""The status table shows the chatbot's page where there is one."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

from python_plugins.modules.health.endpoint_status import any_certificate, chatbot_of, state_of


def test_the_page_is_where_the_role_wrote_it(tmp_path: Path) -> None:
    written = tmp_path / "chatbot.json"
    assert chatbot_of(None) is None
    assert chatbot_of(str(written)) is None
    written.write_text('{"url": "http://127.0.0.1:7860"}')
    assert chatbot_of(str(written)) == "http://127.0.0.1:7860"


def test_a_page_that_does_not_answer_is_down() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert state_of(url, any_certificate()) == "HTTP 501"
    assert state_of(url, any_certificate()) == "down"
