"""Copying from a real rsync server on this machine; skipped where there is no rsync."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.progress import Progress
from heteroserve.models.weights import checksums, contents

from tests.helpers.samples import checkpoint

model_copy = importlib.import_module("python_plugins.modules.models.model_copy")
pytestmark = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store that offers a checkpoint; its address."""
    checkpoint(tmp_path / "store", 300_000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"address = 127.0.0.1\nport = {port}\nuse chroot = no\n[m]\npath = {tmp_path}/store\n"
    (tmp_path / "rsyncd.conf").write_text(settings)
    process = subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={tmp_path}/rsyncd.conf"])
    for _ in range(50):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"rsync://127.0.0.1:{port}/m/"
    process.terminate()
    process.wait()


def copy(tmp_path: Path, store: str, **changes: Any) -> Any:
    folder = tmp_path / "store"
    found = checksums(contents(folder), lambda done, total: None)
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": digest} for path, digest in found.items()
    }
    parameters = {"name": "m", "path": str(tmp_path / "host" / "m"), "files": files, "url": store}
    return model_copy.Copy({**parameters, "limit_mb": 0, "verify": False, **changes}, Progress(None))


def bring(job: Any) -> list[str]:
    wrong: list[str] = job.wrong()
    if wrong:
        job.fetch(wrong)
    job.place(wrong)
    return wrong


def same(tmp_path: Path) -> bool:
    return all(
        (tmp_path / "host/m" / path.name).read_bytes() == path.read_bytes() for path in (tmp_path / "store").iterdir()
    )


def test_a_folder_arrives_whole_and_a_second_look_reads_nothing(tmp_path: Path, store: str) -> None:
    assert len(bring(copy(tmp_path, store))) == 4
    assert same(tmp_path)
    again = copy(tmp_path, store)
    again.check = lambda folder, names: names  # would call everything wrong that it is asked to read
    assert again.wrong() == []


def test_what_is_there_of_a_file_is_kept(tmp_path: Path, store: str) -> None:
    job = copy(tmp_path, store)
    job.partial.mkdir(parents=True)
    (job.partial / FIRST).write_bytes((tmp_path / "store" / FIRST).read_bytes()[:100_000])
    (job.partial / FIRST).chmod(0o600)  # as rsync leaves it
    inode = (job.partial / FIRST).stat().st_ino
    bring(job)
    assert same(tmp_path)
    assert (tmp_path / "host/m" / FIRST).stat().st_ino == inode
    assert (tmp_path / "host/m" / FIRST).stat().st_mode & 0o777 == 0o644


def test_a_wrong_beginning_is_thrown_away(tmp_path: Path, store: str) -> None:
    job = copy(tmp_path, store)
    job.partial.mkdir(parents=True)
    (job.partial / FIRST).write_bytes(b"x" * 100_000)
    (job.partial / SECOND).write_bytes(b"x" * 900_000)
    bring(job)
    assert same(tmp_path)


def test_one_bad_file_is_replaced_and_what_the_store_has_not_goes(tmp_path: Path, store: str) -> None:
    bring(copy(tmp_path, store))
    (tmp_path / "host/m" / FIRST).write_bytes(b"x")
    (tmp_path / "host/m/old.safetensors").write_bytes(b"x")
    assert bring(copy(tmp_path, store)) == [FIRST]
    assert same(tmp_path)
    assert not (tmp_path / "host/m/old.safetensors").exists()


def test_a_store_that_changed_behind_its_notes_is_a_fault(tmp_path: Path, store: str) -> None:
    job = copy(tmp_path, store)
    data = bytearray((tmp_path / "store" / FIRST).read_bytes())
    data[-1] ^= 1
    (tmp_path / "store" / FIRST).write_bytes(data)
    with pytest.raises(model_copy.CopyError, match=f"{FIRST} came twice with another SHA-256"):
        bring(job)
    assert not (tmp_path / "host/m").exists()


def test_a_store_that_is_not_there_is_named(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_copy, "ATTEMPTS", 1)
    with pytest.raises(model_copy.CopyError, match=r"rsync://127\.0\.0\.1:1/m/ cannot be copied: .*refused"):
        bring(copy(tmp_path, store, url="rsync://127.0.0.1:1/m/"))
