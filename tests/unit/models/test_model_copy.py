"""Copying from a real rsync server on this machine; skipped where there is no rsync."""

from __future__ import annotations

import contextlib
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

from tests.helpers.module_runs import run_module
from tests.helpers.samples import checkpoint

model_copy = importlib.import_module("python_plugins.modules.models.model_copy")
pytestmark = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))


@contextlib.contextmanager
def offered(folder: Path) -> Iterator[str]:
    """A daemon that offers a folder; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder.with_name(f"{folder.name}.conf")
    config.write_text(f"address = 127.0.0.1\nport = {port}\nuse chroot = no\n[m]\npath = {folder}\n")
    process = subprocess.Popen(["rsync", "--daemon", "--no-detach", f"--config={config}"])
    for _ in range(50):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"rsync://127.0.0.1:{port}/m/"
    process.terminate()
    process.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """A store that offers a checkpoint; its address."""
    checkpoint(tmp_path / "store", 300_000)
    with offered(tmp_path / "store") as url:
        yield url


@pytest.fixture
def relay(tmp_path: Path, store: str) -> Iterator[str]:
    """Another host that has copied it; its address."""
    shutil.copytree(tmp_path / "store", tmp_path / "relay")
    with offered(tmp_path / "relay") as url:
        yield url


def files_of(folder: Path) -> dict[str, Any]:
    found = checksums(contents(folder), lambda done, total: None)
    return {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": digest} for path, digest in found.items()
    }


def copy(tmp_path: Path, store: str, **changes: Any) -> Any:
    parameters = {
        "name": "m", "path": str(tmp_path / "host" / "m"), "files": files_of(tmp_path / "store"), "url": store,
        "relay": None, "limit_mb": 0, "verify": False,
    }  # fmt: skip
    return model_copy.Copy({**parameters, **changes}, Progress(None))


def look(tmp_path: Path, store: str) -> dict[str, Any]:
    """What the module says of the host's weights without fetching any."""
    asked = {"name": "m", "path": str(tmp_path / "host/m"), "files": files_of(tmp_path / "store"), "url": store}
    return run_module(model_copy.main, {**asked, "store": "store", "fetch": False})


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


def test_a_relay_gives_all_and_the_store_is_not_asked(tmp_path: Path, relay: str) -> None:
    job = copy(tmp_path, "rsync://127.0.0.1:1/m/", relay=relay)
    bring(job)
    assert same(tmp_path)
    assert job.left == ""


def test_a_relay_that_is_down_is_left_for_the_store(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_copy, "RELAY_ATTEMPTS", 1)
    job = copy(tmp_path, store, relay="rsync://127.0.0.1:1/m/")
    bring(job)
    assert same(tmp_path)
    assert "refused" in job.left


def test_a_wrong_file_of_a_relay_comes_from_the_store(tmp_path: Path, store: str, relay: str) -> None:
    data = bytearray((tmp_path / "relay" / FIRST).read_bytes())
    data[-1] ^= 1
    (tmp_path / "relay" / FIRST).write_bytes(data)
    (tmp_path / "relay" / SECOND).unlink()
    job = copy(tmp_path, store, relay=relay)
    bring(job)
    assert same(tmp_path)
    assert job.left  # rsync says that it lacks a file


def test_what_a_relay_began_wrongly_is_begun_again(tmp_path: Path, store: str, relay: str) -> None:
    (tmp_path / "relay" / FIRST).write_bytes(b"x" * 100_000)
    job = copy(tmp_path, store, relay=relay)
    bring(job)
    assert same(tmp_path)


def test_a_slow_relay_is_left_and_the_store_goes_on(
    tmp_path: Path, store: str, relay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rsync's own limit makes it slow. What it has brought is kept."""
    checkpoint(tmp_path / "store", 2_000_000)
    shutil.copytree(tmp_path / "store", tmp_path / "relay", dirs_exist_ok=True)
    monkeypatch.setattr(model_copy, "SLOW_S", 2.0)
    job = copy(tmp_path, store, relay=relay)
    run = job.run

    def slowed(command: list[str], names: list[str], relayed: bool) -> tuple[int, str]:
        if not relayed and not job.before:
            job.before = sum(path.stat().st_size for path in job.partial.rglob("*") if path.is_file())
        extra = ["--bwlimit=400k"] if relayed else []
        status: tuple[int, str] = run([*command[:-2], *extra, *command[-2:]], names, relayed)
        return status

    job.run, job.before = slowed, 0
    bring(job)
    assert same(tmp_path)
    assert job.left.startswith("it gives 0.")
    assert job.before > 300_000


def test_a_look_says_what_is_lacking_and_leaves_the_rest(tmp_path: Path, store: str) -> None:
    assert {"changed": False, "lacks": True, "whole": False}.items() <= look(tmp_path, store).items()
    assert not (tmp_path / "host/m").exists()
    bring(copy(tmp_path, store))
    assert {"changed": False, "lacks": False, "whole": True}.items() <= look(tmp_path, store).items()
    (tmp_path / "host/m/old.safetensors").write_bytes(b"x")
    assert {"changed": True, "lacks": False, "whole": True}.items() <= look(tmp_path, store).items()
    assert not (tmp_path / "host/m/old.safetensors").exists()
    (tmp_path / "host/m" / FIRST).write_bytes(b"x")
    assert {"changed": False, "lacks": True, "whole": False}.items() <= look(tmp_path, store).items()
    assert (tmp_path / "host/m" / FIRST).read_bytes() == b"x"


def test_half_a_copy_is_not_whole(tmp_path: Path, store: str) -> None:
    job = copy(tmp_path, store)
    job.partial.mkdir(parents=True)
    (job.partial / FIRST).write_bytes((tmp_path / "store" / FIRST).read_bytes())
    assert look(tmp_path, store)["whole"] is False
