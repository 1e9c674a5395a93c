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
from pathlib import Path

import pytest

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
