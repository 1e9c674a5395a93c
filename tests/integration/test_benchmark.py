"""The whole benchmark against its own null server: load, figures, files, verdict and exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.bench.null_server import null_server
from tests.helpers.stub_http import StubHandler


def bench(root: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(root), str(root / "python_plugins" / "module_utils")])
    return subprocess.run(
        [sys.executable, "-P", "-m", "serving.bench", *words],
        env={**os.environ, "PYTHONPATH": paths, "HETEROSERVE_STATE": str(folder / "state")},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        cwd="/",
    )


def points(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "result.json").read_text())["points"]
    return found


@pytest.fixture(scope="module")
def paced() -> Iterator[str]:
    """A null server with 10 ms between tokens."""
    with null_server(0.01) as url:
        yield url


def test_closed_loop(root: Path, tmp_path: Path, paced: str) -> None:
    """40 requests of 8 clients, 20 tokens each, 10 ms apart: all figures follow from that."""
    words = ["--url", paced, "--clients", "8", "--requests", "40", "--output-tokens", "20", "--warmup", "4"]
    done = bench(
        root, tmp_path, *words, "--out", str(tmp_path), "--require", "errors<=0", "--require", "tokens_per_s>=100"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = points(tmp_path)
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (40, 0, 800)
    assert found["tokens_per_delta"] == 1
    assert 10 <= found["p50_tpot_ms"] < 30  # type: ignore[operator]
    assert 200 <= found["p50_e2el_ms"] < 600  # type: ignore[operator]
    assert found["max_concurrent_requests"] == 8
    assert found["client_limit_tokens_per_s"] > found["output_throughput"]  # type: ignore[operator]
    assert "errors<=0: 0 at 8 clients, met" in done.stdout
    for name in ("report.html", "8-clients.json", "throughput.png", "latency.png", "percentiles.png"):
        assert (tmp_path / name).stat().st_size > 0
    # Once more, compared, with a bound that cannot be met.
    other = tmp_path / "second"
    more = ["--compare", str(tmp_path / "result.json"), "--require", "ttft_p95_ms<=1", "--no-limit"]
    again = bench(root, tmp_path, *words, "--out", str(other), *more)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "Compared" in again.stdout
    assert re.search(r"ttft_p95_ms<=1: \S+ at 8 clients, NOT MET", again.stdout)


def test_open_loop_keeps_its_rate(root: Path, tmp_path: Path, paced: str) -> None:
    words = ["--url", paced, "--rate", "50", "--seconds", "2", "--output-tokens", "10", "--no-limit", "--warmup", "0"]
    for arrivals in ("even", "poisson", "bursts"):
        folder = tmp_path / arrivals
        done = bench(root, tmp_path, *words, "--arrivals", arrivals, "--out", str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        (found,) = points(folder)
        # Poisson: 100 requests give or take 10; three times that for bursts of 8, of which there are 13.
        assert found["achieved_rate"] == pytest.approx(50, rel={"even": 0.02, "poisson": 0.25, "bursts": 0.7}[arrivals])
        assert found["failed"] == 0
        assert found["p50_lateness_ms"] < 20  # type: ignore[operator]


def test_time_is_a_bound(root: Path, tmp_path: Path, paced: str) -> None:
    """An answer takes ten seconds: what has not ended two seconds after the start is neither answered nor failed."""
    words = ["--url", paced, "--clients", "4", "--output-tokens", "1000", "--seconds", "1", "--drain", "1"]
    done = bench(root, tmp_path, *words, "--warmup", "0", "--no-limit", "--out", str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    (found,) = points(tmp_path)
    assert (found["completed"], found["failed"], found["unfinished"]) == (0, 0, 4)
    assert "4 requests had not ended" in done.stdout


def test_the_clients_own_limit(root: Path, tmp_path: Path) -> None:
    done = bench(root, tmp_path, "--null", "--clients", "16", "--output-tokens", "8", "--requests", "500")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Report: " in done.stdout
    assert (tmp_path / "state" / "benchmarks").is_dir()


class Busy(StubHandler):
    """An endpoint whose cells are down after the first three requests, and that knows a key."""

    seen = 0

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer right":
            self.send_whole(401, b'{"error":{"message":"You did not send a known API key."}}')
        else:
            self.send_whole(200, b'{"data":[{"id":"llama"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Busy.seen += 1
        if Busy.seen > 2:
            self.send_whole(503, b'{"error":{"message":"No cell of llama is up."}}')
            return
        used = b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}'
        told = b'data: {"choices":[{"text":"a"}]}\n\ndata: %b\n\ndata: [DONE]\n\n' % used
        self.send_whole(200, told, "text/event-stream")


def test_errors_are_reported_in_the_endpoints_words(root: Path, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        stranger = bench(root, tmp_path, "--url", url)
        assert stranger.returncode == 2
        assert stranger.stderr == (
            f"heteroserve bench: {url}/v1/models answers 401: You did not send a known API key.;"
            " set API_KEY, or give --key-file\n"
        )
        key = tmp_path / "key"
        key.write_text("right\n")
        words = ["--url", url, "--key-file", str(key), "--warmup", "0", "--requests", "5", "--clients", "1"]
        wrong = bench(root, tmp_path, *words, "--model", "other")
        assert wrong.returncode == 2
        assert wrong.stderr == f"heteroserve bench: --model: {url} has no 'other'; it has llama\n"
        done = bench(root, tmp_path, *words, "--out", str(tmp_path / "out"))
        assert done.returncode == 1, done.stdout + done.stderr
        (found,) = points(tmp_path / "out")
        assert found["errors_by_kind"] == {"HTTP 503": {"count": 5, "first": "No cell of llama is up."}}
        assert "right" not in done.stdout + (tmp_path / "out" / "result.json").read_text()
    finally:
        server.shutdown()
        server.server_close()


def test_nobody_answers(root: Path, tmp_path: Path) -> None:
    done = bench(root, tmp_path, "--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert re.fullmatch(
        r"heteroserve bench: http://127.0.0.1:9 does not answer \(.*\): start it with .*\n", done.stderr
    )
