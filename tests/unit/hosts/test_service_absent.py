"""What a role brought is removed in one call, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from heteroserve.hosts.units import in_use, of_systemctl

from python_plugins.modules.hosts import service_absent

# systemctl show --property=Id,LoadState,ActiveState,UnitFileState of systemd 252
PRINTED = """Id=runs.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Id=enabled.timer
LoadState=loaded
ActiveState=inactive
UnitFileState=enabled

Id=file-gone.service
LoadState=not-found
ActiveState=active
UnitFileState=

Id=failed.service
LoadState=loaded
ActiveState=failed
UnitFileState=static

Id=unknown.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
"""
NAMES = ["runs.service", "enabled.timer", "file-gone.service", "failed.service", "unknown.service"]


def test_units_that_run_or_are_enabled_are_stopped() -> None:
    assert in_use(NAMES, of_systemctl(PRINTED)) == ["runs.service", "enabled.timer", "file-gone.service"]


def test_no_unit_is_read_from_nothing() -> None:
    assert of_systemctl("") == {}
    assert in_use(NAMES, {}) == []


@pytest.mark.parametrize("check", [False, True])
def test_files_links_and_folders_go_and_what_a_link_leads_to_stays(tmp_path: Path, check: bool) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("stays")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/inner/file").write_text("goes")
    removal = service_absent.Removal(check)
    for name in ("link", "dangling", "folder", "never"):
        removal.path(tmp_path / name)
    assert removal.removed == [str(tmp_path / name) for name in ("link", "dangling", "folder")]
    assert (kept / "file").read_text() == "stays"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"kept", "link", "dangling", "folder"} if check else {"kept"})


@pytest.mark.parametrize("check", [False, True])
def test_a_folder_goes_only_when_nothing_is_left_in_it(tmp_path: Path, check: bool) -> None:
    (tmp_path / "shared/was").mkdir(parents=True)
    (tmp_path / "others").mkdir()
    (tmp_path / "others/file").write_text("")
    removal = service_absent.Removal(check)
    for name in ("shared/was", "shared", "others", "never"):
        removal.empty(tmp_path / name)
    assert removal.removed == [str(tmp_path / "shared/was"), str(tmp_path / "shared")]
    assert (tmp_path / "shared").exists() is check
    assert (tmp_path / "others/file").exists()


def test_an_account_that_is_not_there_is_none(tmp_path: Path) -> None:
    removal = service_absent.Removal(check=True)
    removal.account("nobody-has-this-name")
    removal.account("nobody")
    assert removal.removed == ["nobody"]
