"""The callback that sends bytecode with modules: Ansible uses it, and so does Python, if it is of its version."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zipimport
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader

from python_plugins.callback import bytecode
from python_plugins.callback.bytecode import Payload

ROOT = Path(__file__).parents[3]


def payload(folder: Path) -> zipfile.ZipFile:
    """What Ansible sends for a module, as it lies on the host."""
    play = folder / "play.yml"
    play.write_text(
        "- {hosts: localhost, connection: local, gather_facts: false, tasks: [{ansible.builtin.ping: {}}],"
        f" vars: {{ansible_python_interpreter: {sys.executable}, ansible_remote_tmp: {folder}}}}}\n"
    )
    program = shutil.which("ansible-playbook")
    assert program
    subprocess.run(
        [program, "-i", "localhost,", str(play)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True,
        capture_output=True,
    )
    (sent,) = folder.rglob("AnsiballZ_ping.py")
    zipped = max(re.findall(r"[A-Za-z0-9+/=]{1000,}", sent.read_text()), key=len)
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(zipped)))


def test_ansible_sends_the_bytecode_of_every_file(tmp_path: Path) -> None:
    names = set(payload(tmp_path).namelist())
    sources = {name for name in names if name.endswith(".py")}
    assert "ansible/module_utils/basic.py" in sources
    assert names == sources | {f"{name}c" for name in sources}


@pytest.mark.parametrize(("of_another_version", "used"), [(False, "part.py"), (True, "made.zip/part.py")])
def test_python_uses_bytecode_of_its_own_version_alone(tmp_path: Path, of_another_version: bool, used: str) -> None:
    made = tmp_path / "made.zip"
    with Payload(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("part.py", (2026, 1, 1, 0, 0, 0)), "answer = 42\n")
    if of_another_version:
        with zipfile.ZipFile(made) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        files["part.pyc"] = b"\0\0\r\n" + files["part.pyc"][4:]
        with zipfile.ZipFile(made, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    code = zipimport.zipimporter(str(made)).get_code("part")
    assert code.co_filename.endswith(used)
    found: dict[str, int] = {}
    exec(code, found)
    assert found["answer"] == 42


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of what is kept between runs, empty, and Ansible as the callback leaves it."""
    monkeypatch.setattr(bytecode, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(module_common, "_compile_module_ast", bytecode.Source)
    monkeypatch.setattr(module_common.ModuleDepFinder, "__init__", bytecode.found_imports)
    bytecode.kept.cache_clear()
    yield tmp_path / "cache" / "modules"
    bytecode.kept.cache_clear()


def imports(text: str) -> set[tuple[str, ...]]:
    tree = module_common._compile_module_ast("m", text)
    return set(module_common.ModuleDepFinder("ansible.modules.m", tree).submodules)


def test_what_a_file_imports_is_kept_by_its_text(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = "from ansible.module_utils.basic import AnsibleModule\n"
    found = imports(first)
    assert found == {("ansible", "module_utils", "basic", "AnsibleModule")}
    assert len(list(kept.glob("*.json"))) == 1
    assert imports(first.replace("basic", "urls")) == {("ansible", "module_utils", "urls", "AnsibleModule")}
    monkeypatch.setattr(bytecode, "parse", None)  # nobody may ask for it
    assert imports(first) == found


def test_half_a_file_is_not_kept_and_a_wrong_one_is_said(kept: Path) -> None:
    with pytest.raises(Exception, match="Unable to compile"):
        imports("from ansible import (\n")
    assert list(kept.iterdir()) == []


def test_bytecode_is_kept_by_text_and_name(kept: Path) -> None:
    made = {bytecode.compiled("a = 1\n", "a.py"), bytecode.compiled(b"a = 2\n", "a.py")}
    made |= {bytecode.compiled("a = 1\n", "b.py"), bytecode.compiled("a = 1\n", "a.py")}
    assert len(made) == len(list(kept.iterdir())) == 3
    assert {path.read_bytes() for path in kept.iterdir()} == made


def test_a_folder_that_others_may_write_to_is_not_used(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.mkdir(parents=True)
    kept.chmod(0o777)
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    assert bytecode.kept() == tmp_path / "run" / "modules"


def test_vars_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    file, loader = tmp_path / "vars.yml", DataLoader()
    options: dict[str, Any] = {"cache": "vaulted", "unsafe": True, "trusted_as_template": True}

    def loaded() -> Any:
        return bytecode.load_once(loader, str(file), **options)

    file.write_text("a: 1\n")
    assert loaded() == {"a": 1}
    assert loaded() is loaded()
    file.write_text("a: 22\n")
    assert loaded() == {"a": 22}
