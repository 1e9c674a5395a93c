"""Many files in two calls: what differs is sent, and nothing else is touched."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule

from python_plugins.modules.hosts import file_set
from tests.helpers.module_runs import run_module
from tests.helpers.playbook_runs import run_locally

FILES = {"a.py": b"a\xff", "room/b.py": b"b", "room/c.sh": b"c"}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Copy once, and again
      file_set:
        path: "{{ target }}"
        files: {a.py: "{{ source }}/a.py", room/b.sh: "{{ source }}/b.sh"}
        folders: [empty]
        mode: "0600"
      loop: [first, again]
      register: found
    - name: Write texts, and remove a file
      file_set:
        folders: [{path: "{{ target }}/closed", mode: "0700"}]
        texts:
          - {path: "{{ target }}/closed/a.conf", content: "a\\n"}
          - {path: "{{ target }}/b.conf", template: "{{ source }}/b.j2", mode: "0640"}
        absent: ["{{ target }}/empty/old"]
        mode: "0600"
      loop: [first, again]
      diff: true
      register: written
    - name: Show
      ansible.builtin.copy:
        content: "{{ (found.results + written.results) | to_json }}"
        dest: "{{ shown }}"
        mode: "0600"
"""


def ensure(
    path: Path, files: dict[str, bytes], *, send: bool = True, mode: str = "0600", **more: Any
) -> dict[str, Any]:
    """One call of the module, as the action plugin makes it."""
    sums = {
        place: {"sha256": hashlib.sha256(content).hexdigest(), "executable": place.endswith(".sh"), "text": False}
        for place, content in files.items()
    }
    contents = {place: base64.b64encode(content).decode() for place, content in files.items()} if send else {}
    return run_module(file_set.main, {"path": str(path), "files": sums, "mode": mode, "contents": contents, **more})


def modes(folder: Path, *places: str) -> list[str]:
    return [f"{(folder / place).stat().st_mode & 0o777:o}" for place in places]


def test_files_come_with_their_modes_and_then_nothing_changes(tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert ensure(target, FILES, _ansible_check_mode=True)["changed"]
    assert not target.exists()
    assert ensure(target, FILES, send=False)["missing"] == sorted(FILES)
    assert ensure(target, FILES)["changed"]
    assert {place: (target / place).read_bytes() for place in FILES} == FILES
    assert modes(target, "", "a.py", "room", "room/c.sh") == ["700", "600", "700", "700"]
    assert not ensure(target, FILES, send=False)["changed"]
    assert ensure(target, FILES, send=False, mode="0644")["changed"]
    assert modes(target, "", "a.py", "room", "room/c.sh") == ["755", "644", "755", "755"]


def test_what_somebody_changed_comes_back_and_what_is_theirs_stays(tmp_path: Path) -> None:
    ensure(tmp_path, FILES)
    (tmp_path / "theirs").touch()
    (tmp_path / "a.py").write_text("somebody else's")
    (tmp_path / "room/b.py").unlink()
    said = ensure(tmp_path, FILES, _ansible_check_mode=True)
    assert said["missing"] == ["a.py", "room/b.py"]
    assert said["diff"] == [{"prepared": f"{tmp_path}/a.py\n"}, {"prepared": f"{tmp_path}/room/b.py\n"}]
    assert ensure(tmp_path, FILES)["changed"]
    assert (tmp_path / "a.py").read_bytes() == FILES["a.py"]
    assert (tmp_path / "theirs").exists()


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    assert "mode: u=rw is not an octal number such as 0600" in ensure(tmp_path, FILES, mode="u=rw")["msg"]
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file" in ensure(tmp_path / "file", FILES)["msg"]


@pytest.mark.parametrize("readable", [True, False])
def test_a_task_sends_what_differs(tmp_path: Path, *, readable: bool) -> None:
    values = {name: str(tmp_path / name) for name in ("source", "target", "shown")}
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.py").write_text("a")
    (tmp_path / "source/b.j2").write_text("a = {{ 40 + 2 }}\n")
    (tmp_path / "target/empty").mkdir(parents=True)
    (tmp_path / "target/empty/old").touch()
    if readable:
        (tmp_path / "source/b.sh").touch(mode=0o755)
    done = run_locally(PLAY, tmp_path, values)
    if not readable:
        assert "a file to copy cannot be read" in done.stdout + done.stderr
        assert not (tmp_path / "target/a.py").exists()
        return
    first, again, written, unwritten = json.loads((tmp_path / "shown").read_text())
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["digest"] == again["digest"]
    assert modes(tmp_path / "target", "a.py", "room/b.sh", "empty") == ["600", "700", "700"]
    assert (written["changed"], unwritten["changed"]) == (True, False)
    assert modes(tmp_path / "target", "closed", "closed/a.conf", "b.conf") == ["700", "600", "640"]
    assert (tmp_path / "target/b.conf").read_text() == "a = 42\n"
    assert not (tmp_path / "target/empty/old").exists()
    assert [(one.get("before"), one.get("after")) for one in written["diff"]] == [
        ("", "a = 42\n"),
        ("", "a\n"),
        (f"{tmp_path}/target/empty/old\n", ""),
    ]


def test_a_file_is_never_readable_by_others_before_it_has_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    kept = AnsibleModule.set_mode_if_different

    def noted(self: AnsibleModule, path: str, mode: int, changed: bool) -> bool:
        seen.append(Path(path).stat().st_mode & 0o077)
        return bool(kept(self, path, mode, changed))

    monkeypatch.setattr(AnsibleModule, "set_mode_if_different", noted)
    (tmp_path / "a").mkdir(mode=0o700)
    ensure(tmp_path / "a", {"secret": b"s"})
    assert seen == [0, 0]
