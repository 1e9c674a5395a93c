"""The action plugin: what is saved comes back, and what must not be restored is refused with one sentence."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from python_plugins.action.state_backup import ActionModule

PASSWORD = "correct horse battery staple"
KEPT = {"secrets/ray-token": "token", "secrets/health-key": "key", "plan.json": "{}", "registry/ca.key": "PEM"}
RECREATED = ("envs/host/bin/ray", "logs/gateway.log", "run.lock")


def act(state: Path, check: bool = False, **arguments: Any) -> dict[str, Any]:
    task = SimpleNamespace(action="state_backup", args={}, async_val=0, check_mode=check, diff=False, environment=[])
    given = {"state_dir": str(state), "password": PASSWORD, "runtime": "k3s", "hosts": ["a", "b"], "version": "0.1.0"}
    task.args = {
        name: str(value) if isinstance(value, Path) else value for name, value in {**given, **arguments}.items()
    }
    return ActionModule(task, *[SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))] * 5).run(None, {})


def below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    for name in (*KEPT, *RECREATED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(KEPT.get(name, "can be recreated"))
        (folder / name).chmod(0o600)
    (folder / "plan.json").chmod(0o644)
    return folder


@pytest.fixture
def saved(state: Path, tmp_path: Path) -> Path:
    return Path(act(state, folder=tmp_path / "backups")["path"])


def test_what_was_saved_comes_back(saved: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    done = act(empty, restore=saved)
    assert done["changed"]
    assert below(empty) == KEPT
    assert (empty / "secrets" / "ray-token").stat().st_mode & 0o777 == 0o600
    assert (empty / "plan.json").stat().st_mode & 0o777 == 0o644
    assert (empty / "secrets").stat().st_mode & 0o777 == 0o700
    assert not act(empty, restore=saved)["changed"]


def test_the_backup_hides_what_it_holds(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    assert not any(secret in saved.read_text() for secret in ("ray-token", "manifest"))
    subprocess.run(["sha256sum", "--check", "--quiet", f"{saved.name}.sha256"], cwd=saved.parent, check=True)


def test_it_opens_without_heteroserve(saved: Path, tmp_path: Path) -> None:
    password, opened = tmp_path / "password", tmp_path / "opened.tar.gz"
    password.write_text(f"{PASSWORD}\n")
    command = ["ansible-vault", "decrypt", "--vault-password-file", str(password), "--output", str(opened), str(saved)]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(opened) as archive:
        assert archive.getnames()[0] == "manifest.json"
        assert set(archive.getnames()[1:]) == {f"state/{name}" for name in KEPT}


def test_a_password_may_be_in_a_file(state: Path, saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert not act(state, restore=saved, password="", password_file=file)["changed"]


def test_the_snapshot_goes_where_it_is_asked_for(state: Path, tmp_path: Path) -> None:
    (tmp_path / "for-backup-a-1").write_text("etcd")
    saved = act(state, folder=tmp_path / "backups", snapshot=tmp_path / "for-backup-a-1")["path"]
    assert act(tmp_path / "one", restore=saved)["snapshot"] == "for-backup-a-1"
    assert below(tmp_path / "one") == KEPT
    act(tmp_path / "two", restore=saved, snapshot=tmp_path / "out" / "of-backup")
    assert (tmp_path / "out" / "of-backup").read_text() == "etcd"


def test_a_check_run_writes_nothing(state: Path, saved: Path, tmp_path: Path) -> None:
    act(state, check=True, folder=tmp_path / "more")
    assert not (tmp_path / "more").exists()
    assert act(tmp_path / "empty", check=True, restore=saved)["changed"]
    assert not (tmp_path / "empty").exists()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_or_of_another_is_refused(saved: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"

    def refused(**arguments: Any) -> str:
        with pytest.raises(AnsibleActionFail) as fault:
            act(empty, **{"restore": saved, **arguments})
        assert not empty.exists()
        said = str(fault.value)
        assert said.endswith("Nothing was changed")
        assert "\n" not in said
        return said

    assert "the password is not its." in refused(password="another password, as long")
    assert "7 characters" in refused(password="too few")
    assert "no password is given" in refused(password="")
    assert "cannot be read: No such file" in refused(password_file=tmp_path / "none")
    assert "another inventory" in refused(hosts=["c"])
    assert "runtime k3s, and this inventory has ray" in refused(runtime="ray")
    assert "has no snapshot" in refused(snapshot=tmp_path / "out")
    assert "cannot be read: No such file" in refused(restore=tmp_path / "none")
    flipped(saved)
    assert "is damaged: its SHA-256 is not the one in" in refused()
    saved.with_name(f"{saved.name}.sha256").unlink()
    assert "the password is not its, or the file is damaged" in refused()
    saved.write_bytes(saved.read_bytes()[:200])
    assert "the password is not its, or the file is damaged" in refused()
    saved.write_text("something else")
    assert "is no backup" in refused()


def test_what_is_there_and_differs_is_replaced_only_when_asked(saved: Path, state: Path) -> None:
    (state / "secrets" / "ray-token").write_text("a newer one")
    with pytest.raises(AnsibleActionFail, match=r"already has secrets/ray-token, .* restore_overwrite=true"):
        act(state, restore=saved)
    assert (state / "secrets" / "ray-token").read_text() == "a newer one"
    assert act(state, restore=saved, overwrite=True)["files"] == ["secrets/ray-token"]
    assert (state / "secrets" / "ray-token").read_text() == "token"


def test_what_cannot_be_saved_is_refused(state: Path, tmp_path: Path) -> None:
    for folder, said in (
        (state / "backups", "is in the state directory"),
        (Path("/proc/backups"), "cannot be written"),
    ):
        with pytest.raises(AnsibleActionFail, match=said):
            act(state, folder=folder)
    with pytest.raises(AnsibleActionFail, match="has nothing to save"):
        act(tmp_path / "none", folder=tmp_path / "backups")
