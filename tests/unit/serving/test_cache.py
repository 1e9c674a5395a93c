"""What engines keep between their starts: where, for whom, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from serving.engines import cache


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model, and a cache and an environment of the test's own."""
    monkeypatch.setattr(cache, "DRIVERS", (str(tmp_path / "driver"),))
    (tmp_path / "driver").write_text("NVRM version: 580.159.04")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 4096}')
    with mock.patch.dict(os.environ, {cache.CACHE: str(tmp_path / "cache")}):
        for variable in cache.COMPILERS:
            os.environ.pop(variable, None)
        yield folder


def kept(weights: Path) -> Path:
    """Where this start keeps what it compiles."""
    for variable in cache.COMPILERS:
        os.environ.pop(variable, None)
    place = cache.keep_compiled(weights)
    assert place is not None
    assert os.environ["VLLM_CACHE_ROOT"] == str(place / "vllm")
    return place


def test_the_next_start_finds_it(weights: Path) -> None:
    assert kept(weights) == kept(weights)


def test_another_shape_driver_or_version_has_a_folder_of_its_own(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [kept(weights)]
    (tmp_path / "driver").write_text("NVRM version: 590.10.01")
    found.append(kept(weights))
    (weights / "config.json").write_text('{"hidden_size": 5120}')
    found.append(kept(weights))
    monkeypatch.setattr(cache, "_version", lambda package: "0.30.0" if package == "vllm" else "")
    found.append(kept(weights))
    assert len(set(found)) == 4


def test_the_users_own_variables_stay(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    cache.keep_compiled(weights)
    assert os.environ["TRITON_CACHE_DIR"] == "/mine"


def test_what_was_not_used_for_a_month_is_removed(weights: Path) -> None:
    old, young = cache.folder("compiled") / "old", cache.folder("compiled") / "young"
    for place, days in ((old, 31), (young, 29)):
        place.mkdir(parents=True)
        os.utime(place, (then := time.time() - days * 24 * 3600, then))
    kept(weights)
    assert (old.exists(), young.exists()) == (False, True)


def test_an_engine_starts_where_nothing_can_be_kept(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    assert cache.keep_compiled(weights) is None
    assert "VLLM_CACHE_ROOT" not in os.environ
