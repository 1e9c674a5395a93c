"""Weights that were cut short, lost a file or changed are found, and only what may have changed is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from heteroserve.models.weights import (
    checksums,
    contents,
    cut_short,
    differing,
    fault_of_files,
    note,
    read_manifest,
    unchanged,
    unreadable,
)
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.model_shape import config_of

from tests.helpers.lora_adapter import make_adapter
from tests.helpers.samples import checkpoint, safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint(tmp_path / "model", 1000)
    return tmp_path / "model"


def noted(folder: Path) -> dict[str, Any]:
    found = checksums(contents(folder), lambda done, total: None)
    return {str(path.relative_to(folder)): note(path, digest) for path, digest in found.items()}


def first(folder: Path) -> Path:
    return folder / "model-00001-of-00002.safetensors"


def test_a_whole_checkpoint_has_no_fault(folder: Path) -> None:
    assert fault_of_files("m", folder) is None


def test_an_adapter_is_known_by_its_own_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    make_adapter(config_of(card_named("smollm2-135m")), folder, rank=1)
    assert fault_of_files("m", folder, "adapter_config.json") is None
    assert "has no config.json: name the folder of a safetensors checkpoint" in str(fault_of_files("m", folder))
    (folder / "adapter_config.json").unlink()
    said = str(fault_of_files("m", folder, "adapter_config.json"))
    assert said.endswith("has no adapter_config.json: name the folder of an adapter in peft's format")


def test_a_file_that_was_cut_short_is_named(folder: Path) -> None:
    whole = first(folder).read_bytes()
    first(folder).write_bytes(whole[:-1])
    assert f"{first(folder)} has {len(whole) - 1} bytes and its header says {len(whole)}" in str(
        fault_of_files("m", folder)
    )
    for broken in (b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0nojsn"):
        first(folder).write_bytes(broken)
        assert "copy it again" in str(cut_short(first(folder)))


def test_a_file_that_the_index_names_must_be_there(folder: Path) -> None:
    first(folder).unlink()
    assert "is missing, which model.safetensors.index.json names" in str(fault_of_files("m", folder))


def test_a_file_that_the_engine_s_user_cannot_read_is_named(folder: Path) -> None:
    assert unreadable("m", folder, 1000) is None
    first(folder).chmod(0o640)
    assert f"user 1000, who runs the engines, cannot read {first(folder)}" in str(unreadable("m", folder, 1000))
    assert f"run chmod -R a+rX {folder} on this host" in str(unreadable("m", folder, 1000))
    assert unreadable("m", folder, folder.stat().st_uid) is None
    first(folder).chmod(0o644)
    folder.chmod(0o700)
    assert f"cannot read {folder}:" in str(unreadable("m", folder, 1000))


def test_a_header_without_tensors_is_whole(tmp_path: Path) -> None:
    safetensors(tmp_path / "x.safetensors", 0)
    assert cut_short(tmp_path / "x.safetensors") is None


def test_nothing_is_read_where_size_and_time_are_as_noted(folder: Path) -> None:
    notes = noted(folder)
    assert differing(folder, notes, notes, verify=False) == ([], [])
    assert differing(folder, notes, notes, verify=True) == ([], list(notes))


def test_what_changed_is_read_and_what_has_another_size_is_wrong(folder: Path) -> None:
    notes = noted(folder)
    os.utime(first(folder))
    assert differing(folder, notes, notes, verify=False) == ([], [first(folder).name])
    first(folder).write_bytes(b"short")
    assert differing(folder, notes, notes, verify=False) == ([first(folder).name], [])
    first(folder).unlink()
    assert differing(folder, notes, notes, verify=False) == ([first(folder).name], [])


def test_a_new_revision_of_the_same_size_is_read(folder: Path) -> None:
    notes = noted(folder)
    wanted = {**notes, first(folder).name: {**notes[first(folder).name], "sha256": "another"}}
    assert differing(folder, wanted, notes, verify=False) == ([], [first(folder).name])


def test_without_notes_everything_is_read(folder: Path) -> None:
    assert differing(folder, noted(folder), {}, verify=False) == ([], list(noted(folder)))


def test_notes_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "none")["files"] == {}
    for text in ("{", "[]", "null", '{"files": 1}'):
        (tmp_path / "notes").write_text(text)
        assert read_manifest(tmp_path / "notes")["files"] == {}


def test_hidden_files_and_the_notes_do_not_count(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("")
    (folder / "heteroserve-weights.json").write_text("{}")
    assert len(contents(folder)) == 4
    assert unchanged(folder / "nowhere", {"size": 0, "mtime_ns": 0}) is False
