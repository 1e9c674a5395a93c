"""What a host lacks for temporary files is said before anything is installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from python_plugins.modules.hosts import host_check


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def mounted(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")


@needs_root
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=300m,noexec", "is mounted noexec, and engines load there"),
        ("size=10m", "what is temporary needs 0.2 GB of disk"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(small: Path, options: str, said: str) -> None:
    mounted(small, options)
    try:
        (found,) = host_check.temporary_faults(small / "hs-1234")
        assert "set ray_host_run_dir and TMPDIR to a" in found
        assert said in found
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_of_sockets_with_spaces_is_refused(small: Path) -> None:
    (found,) = host_check.temporary_faults(small / "a b")
    assert "has spaces or special characters: set a path without" in found


def test_a_usable_folder_has_no_fault(small: Path) -> None:
    assert host_check.temporary_faults(small / "hs-1234") == []
