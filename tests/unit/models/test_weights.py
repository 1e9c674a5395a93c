"""Weights arrive whole, go on after a break, and are not taken if they are not what was asked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from heteroserve.models.weights import fault_of_folder

from serving.weights import WeightsError, download
from tests.helpers.stub_http import StubHandler

CONTENT = bytes(range(256)) * 20_000  # 5 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(StubHandler):
    """Serves CONTENT with ranges; the first answer of /breaks stops in the middle."""

    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range", "")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        part = CONTENT[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.path == "/breaks" and not asked:
            self.wfile.write(part[: len(part) // 2])
            self.connection.close()
            return
        self.wfile.write(part)


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Files.ranges.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_file_is_fetched_and_checked(url: str, tmp_path: Path) -> None:
    download(f"{url}/file", tmp_path / "file", SHA256, "m")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_broken_connection_goes_on_where_it_stopped(url: str, tmp_path: Path) -> None:
    download(f"{url}/breaks", tmp_path / "file", SHA256, "m")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Files.ranges[0] == ""
    assert Files.ranges[1].startswith("bytes=")


def test_what_a_killed_run_left_is_not_fetched_again(url: str, tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_bytes(CONTENT[:4_000_000])
    download(f"{url}/file", tmp_path / "file", SHA256, "m")
    assert Files.ranges == ["bytes=4000000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_thrown_away(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"has sha256 {SHA256}, expected 00"):
        download(f"{url}/file", tmp_path / "file", "00", "m")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="answers 404"):
        download(f"{url}/missing", tmp_path / "file", SHA256, "m")


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    assert "is not a folder" in str(fault_of_folder("m", tmp_path / "nowhere"))
    assert "has no config.json" in str(fault_of_folder("m", tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "has no *.safetensors" in str(fault_of_folder("m", tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert fault_of_folder("m", tmp_path) is None
