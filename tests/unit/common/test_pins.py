"""A file is taken when it is the pinned one, and only then."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.pins import digest_fault, fill, pin_of

from python_plugins.modules.cluster import pinned_file
from tests.helpers.module_runs import run_module

ONE, TWO = "1" * 64, "2" * 64


def test_the_users_word_beats_the_table_and_the_table_beats_the_lock() -> None:
    assert pin_of("a", ONE.upper(), {"a": TWO}, {"a": TWO}).digest == ONE
    assert pin_of("a", "", {"a": ONE}, {"a": TWO}).digest == ONE
    assert pin_of("a", "", {"b": ONE}, {"a": TWO}).digest == TWO
    assert pin_of("a", "", {}, {}).digest == ""


def test_a_wrong_digest_names_both_and_the_setting() -> None:
    fault = digest_fault("/x/helm", ONE, pin_of("helm", TWO, {}, {}), "helm_sha256")
    assert fault is not None
    assert ONE in fault
    assert TWO in fault
    assert "helm_sha256" in fault
    assert digest_fault("/x/helm", ONE, pin_of("helm", ONE, {}, {}), "helm_sha256") is None
    assert digest_fault("/x/helm", ONE, pin_of("helm", "", {}, {}), "helm_sha256") is None


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "x86_64", "helm-linux-amd64"),
        ("Darwin", "arm64", "helm-darwin-arm64"),
        ("Linux", "aarch64", "helm-linux-arm64"),
    ],
)
def test_names_are_filled_with_the_machine(system: str, machine: str, name: str) -> None:
    assert fill("helm-{os}-{arch}", system, machine) == name


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the module in a folder and return its results."""

    def call(**options: Any) -> dict[str, Any]:
        given = {"dest": str(tmp_path / "bin/tool"), "lock": str(tmp_path / "lock.json"), "setting": "tool_sha256"}
        return run_module(pinned_file.main, {**given, **options})

    return call


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_copy_is_made_once_and_again_when_it_was_changed(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"one")
    options = {"paths": [str(tmp_path / "missing"), str(source)], "sha256": digest(b"one"), "mode": "0700"}
    assert run(**options)["changed"]
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o700
    assert not run(**options)["changed"]
    (tmp_path / "bin/tool").write_bytes(b"changed by somebody")
    assert run(**options)["changed"]
    assert (tmp_path / "bin/tool").read_bytes() == b"one"


def test_check_mode_writes_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"one")
    assert run(paths=[str(tmp_path / "tool")], _ansible_check_mode=True)["changed"]
    assert not (tmp_path / "bin").exists()
    assert not (tmp_path / "lock.json").exists()


def test_a_wrong_file_is_refused_and_nothing_is_written(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"other")
    results = run(paths=[str(tmp_path / "tool")], sha256=ONE)
    assert results["failed"]
    assert "pinned by the settings" in results["msg"]
    assert not (tmp_path / "bin").exists()


def test_the_first_file_is_remembered_and_another_one_refused(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"one")
    assert run(paths=[str(source)])["sha256"] == digest(b"one")
    source.write_bytes(b"two")
    results = run(paths=[str(source)])
    assert "pinned by the first time it was fetched" in results["msg"]
    assert (tmp_path / "bin/tool").read_bytes() == b"one"
    # The user's word settles it.
    assert run(paths=[str(source)], sha256=digest(b"two"))["changed"]
    assert json.loads((tmp_path / "lock.json").read_text())["sources"]["tool"] == digest(b"two")


def test_a_program_is_taken_out_of_its_archive(run: Any, tmp_path: Path) -> None:
    archive = tmp_path / "tool.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        entry = tarfile.TarInfo("linux-amd64/tool")
        entry.size = 3
        stream.addfile(entry, io.BytesIO(b"one"))
    options = {"paths": [str(archive)], "sums": {"tool.tar.gz": digest(archive.read_bytes())}}
    assert run(**options, member="linux-amd64/tool")["changed"]
    assert (tmp_path / "bin/tool").read_bytes() == b"one"
    assert not run(**options, member="linux-amd64/tool")["changed"]
    assert "holds no other" in run(**options, member="other", dest=str(tmp_path / "elsewhere"))["msg"]


def test_a_download_that_is_another_file_leaves_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"other")
    results = run(url=(tmp_path / "tool").as_uri(), sha256=ONE)
    assert results["failed"]
    assert list((tmp_path / "bin").iterdir()) == []
    assert "airgap_dir" in run(url=(tmp_path / "missing").as_uri())["msg"]


def test_a_file_that_is_in_place_is_not_downloaded_again(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"one")
    url = (tmp_path / "tool").as_uri()
    assert run(url=url)["changed"]
    (tmp_path / "tool").unlink()
    assert not run(url=url)["changed"]


def test_an_airgap_folder_without_the_file_says_what_to_put_there(run: Any, tmp_path: Path) -> None:
    assert f"put {tmp_path}/a or {tmp_path}/b there" in run(paths=[f"{tmp_path}/a", f"{tmp_path}/b"])["msg"]


def test_without_a_place_a_file_is_checked_only(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "tool"
    source.write_bytes(b"one")
    options = {"paths": [str(source)], "dest": None, "lock": None}
    results = run(**options, sums={"tool": digest(b"one")})
    assert (results["changed"], results["source"]) == (False, str(source))
    assert "pinned by the table of pinned versions" in run(**options, sums={"tool": ONE})["msg"]
    assert run(**options)["msg"] == "tool is not known: set tool_sha256 to its SHA-256"
    assert list(tmp_path.iterdir()) == [source]


def test_a_host_remembers_nothing_of_a_file_whose_digest_is_known(run: Any, tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"one")
    options = {"url": (tmp_path / "tool").as_uri(), "sha256": digest(b"one"), "lock": None, "mode": "0755"}
    assert run(**options)["changed"]
    (tmp_path / "tool").unlink()
    assert not run(**options)["changed"]
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["tool"]
