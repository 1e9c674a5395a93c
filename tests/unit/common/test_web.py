"""What HeteroServe runs is asked without proxies, whatever the environment says."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from heteroserve.common.web import at, open_own

from tests.helpers.stub_http import StubHandler

# What comes from elsewhere may need the site's proxy.
DOWNLOADS = {"python_plugins/module_utils/heteroserve/common/packages.py", "serving/weights.py"}


class Health(StubHandler):
    """Knows one path."""

    def do_GET(self) -> None:
        """Answer."""
        known = self.path == "/health"
        self.send_whole(200 if known else 404, b"here" if known else b"")


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_ipv6_address_gets_brackets() -> None:
    assert at("10.1.0.2", 8080) == "10.1.0.2:8080"
    assert at("gpu1.rack", 8080) == "gpu1.rack:8080"
    assert at("fd00::2", 8080) == at("[fd00::2]", 8080) == "[fd00::2]:8080"


def test_no_address_is_put_before_a_port_without_them(root: Path) -> None:
    """In Python by at(), in Jinja by ansible.utils.ipwrap."""
    python = re.compile(r"""(https?|rsync)://\{(?!at\()[\w.\['"\]]*(address|host)[\w.\['"\]]*\}:""")
    jinja = re.compile(r"""\b\w*(address|ansible_host)\b\s*(\}\}|~ ')\s*:""")
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder, pattern in (("python_plugins", python), ("serving", python), ("roles", jinja), ("playbooks", jinja))
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".yml", ".j2")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_a_proxy_is_not_used(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match="refused"):
        urllib.request.build_opener().open(f"{address}/health", timeout=2)
    with open_own(f"{address}/health", 2) as answer:
        assert answer.read() == b"here"
    with pytest.raises(urllib.error.HTTPError):
        open_own(f"{address}/nothing", 2)


def test_nothing_else_asks_with_the_environments_proxies(root: Path) -> None:
    found = {
        path.relative_to(root).as_posix()
        for folder in ("python_plugins", "serving")
        for path in (root / folder).rglob("*.py")
        if re.search(r"\burlopen\(", path.read_text(encoding="utf-8"))
    }
    assert found == DOWNLOADS
