"""The registry's certificates are made once, and again when they are no longer what they have to be."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.helpers.playbook_runs import run_locally

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars: {machine_dir: "{{ state_dir }}", registry_user: a, registry_password: b, registry_port: 5000}
  tasks:
    - name: Sign
      ansible.builtin.include_role: {name: registry, tasks_from: certificates}
      vars: {registry_address: "{{ address }}"}
"""
ADDRESS = "192.0.2.7"


def sign(folder: Path, address: str = ADDRESS) -> dict[str, str]:
    """Run the tasks; the digest of each file afterwards."""
    values = {"state_dir": str(folder), "address": address, "ansible_python_interpreter": sys.executable}
    done = run_locally(PLAY, folder, values)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "registry").iterdir()
        if path.suffix != ".csr"
    }


def test_certificates_are_signed_again_only_where_they_have_to_be(tmp_path: Path) -> None:
    first = sign(tmp_path)
    assert sorted(first) == ["ca.crt", "ca.key", "server.crt", "server.key"]
    assert sign(tmp_path) == first
    # Another address, and a key that is not the certificate's.
    moved = sign(tmp_path, "192.0.2.8")
    assert {name for name in first if moved[name] != first[name]} == {"server.crt"}
    (tmp_path / "registry/server.key").unlink()
    keyed = sign(tmp_path, "192.0.2.8")
    assert {name for name in moved if keyed[name] != moved[name]} == {"server.key", "server.crt"}
    assert sign(tmp_path, "192.0.2.8") == keyed
