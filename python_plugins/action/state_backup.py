"""Save the state directory to an encrypted archive, and restore it. Documented in modules/backup/state_backup.py.

Here and not in a module: it is the controller's files, and its Ansible encrypts them.
"""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
NOTHING = "Nothing was changed"


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


class ActionModule(ActionBase):
    """Runs on the controller only."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            argument_spec={
                "state_dir": {"type": "path", "required": True},
                "folder": {"type": "path"},
                "restore": {"type": "path"},
                "password": {"type": "str", "default": "", "no_log": True},
                "password_file": {"type": "path"},
                "runtime": {"type": "str", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "version": {"type": "str", "default": ""},
                "snapshot": {"type": "path"},
                "overwrite": {"type": "bool", "default": False},
            },
            mutually_exclusive=[("folder", "restore")],
            required_one_of=[("folder", "restore")],
        )
        self._backup, self._archive = shared("backup.manifest"), shared("backup.archive")
        state = Path(asked["state_dir"])
        password = self._password(asked)
        if asked["folder"]:
            return self._save(state, Path(asked["folder"]).absolute(), password, asked)
        return self._restore(state, Path(asked["restore"]).absolute(), password, asked)

    def _password(self, asked: dict[str, Any]) -> str:
        password = str(asked["password"])
        if asked["password_file"]:
            try:
                password = Path(asked["password_file"]).read_text().strip()
            except OSError as error:
                text = f"backup_password_file: {asked['password_file']} cannot be read: {error.strerror}. {NOTHING}"
                raise AnsibleActionFail(text) from None
        if fault := self._backup.password_fault(password):
            raise AnsibleActionFail(f"backup_password_file: {fault}. {NOTHING}")
        return password

    def _save(self, state: Path, folder: Path, password: str, asked: dict[str, Any]) -> dict[str, Any]:
        if folder.resolve().is_relative_to(state.resolve()):
            raise AnsibleActionFail(f"backup_dir: {folder} is in the state directory: set one that is not lost with it")
        found = self._archive.files_below(state)
        if not found:
            raise AnsibleActionFail(f"state_dir: {state} has nothing to save: is it the inventory's? {NOTHING}")
        contents = {f"{self._backup.STATE}{name}": path for name, path in found.items()}
        if asked["snapshot"]:
            contents[f"{self._backup.DATABASE}{Path(asked['snapshot']).name}"] = Path(asked["snapshot"])
        made = datetime.now(UTC)
        of = {name: asked[name] for name in ("version", "runtime")} | {"hosts": tuple(sorted(asked["hosts"]))}
        manifest, data = self._archive.described(contents, made, **of)
        sealed = VaultLib().encrypt(self._archive.packed(manifest, data), VaultSecret(password.encode()))
        path = folder / f"heteroserve-{made:%Y%m%d-%H%M%S}.vault"
        if not self._task.check_mode:
            try:
                self._archive.put(path, sealed, 0o600)
                line = f"{self._backup.digest(sealed)}  {path.name}\n"
                self._archive.put(path.with_name(f"{path.name}.sha256"), line.encode(), 0o600)
            except OSError as error:
                raise AnsibleActionFail(f"backup_dir: {folder} cannot be written: {error.strerror}") from None
            self._opened(path, password)
        what = "state directory and the cluster's database" if manifest.snapshot else "state directory"
        done = "not written in a check run" if self._task.check_mode else "opened again"
        report = f"backup  {path}\n        {len(data)} files of the {what}, {len(sealed):,} bytes, {done}"
        return {"changed": True, "path": str(path), "report": report}

    def _restore(self, state: Path, path: Path, password: str, asked: dict[str, Any]) -> dict[str, Any]:
        manifest, contents = self._opened(path, password)
        if fault := self._backup.other_inventory(manifest, asked["runtime"], asked["hosts"]):
            raise AnsibleActionFail(f"backup: {path}: {fault}. {NOTHING}")
        present = self._archive.present(state)
        other = self._backup.differing(manifest, present)
        if other and not asked["overwrite"]:
            raise AnsibleActionFail(
                f"backup: {state} already has {self._backup.listed(other)}, and not as in the backup: name an empty"
                f" state_dir, or say -e restore_overwrite=true. {NOTHING}"
            )
        if asked["snapshot"] and not manifest.snapshot:
            raise AnsibleActionFail(f"backup: {path} has no snapshot of the cluster's database. {NOTHING}")
        missing = self._backup.missing(manifest, present)
        if not self._task.check_mode:
            self._archive.write(manifest, contents, state)
            if asked["snapshot"]:
                self._archive.put(
                    Path(asked["snapshot"]), contents[f"{self._backup.DATABASE}{manifest.snapshot}"], 0o600
                )
        report = f"restored  {len(missing)} of {len(manifest.files)} files to {state}, saved at {manifest.made} UTC"
        return {"changed": bool(missing), "files": missing, "snapshot": manifest.snapshot, "report": report}

    def _opened(self, path: Path, password: str) -> tuple[Any, dict[str, bytes]]:
        """Manifest and files of a backup. Fails with one sentence if it is not whole, or not of this password."""
        try:
            sealed = path.read_bytes()
        except OSError as error:
            raise AnsibleActionFail(f"backup: {path} cannot be read: {error.strerror}. {NOTHING}") from None
        beside = path.with_name(f"{path.name}.sha256")
        noted = beside.read_text().split()[:1] if beside.is_file() else []
        if noted and noted != [self._backup.digest(sealed)]:
            raise AnsibleActionFail(
                f"backup: {path} is damaged: its SHA-256 is not the one in {beside.name}; take another copy. {NOTHING}"
            )
        if not is_encrypted(sealed):
            raise AnsibleActionFail(
                f"backup: {path} is no backup: it does not begin as Ansible Vault's files do. {NOTHING}"
            )
        try:
            data = VaultLib([("default", VaultSecret(password.encode()))]).decrypt(sealed)
            manifest, contents = self._archive.unpacked(data)
        except (AnsibleError, *self._archive.BROKEN):
            why = "the password is not its" if noted else "the password is not its, or the file is damaged"
            raise AnsibleActionFail(f"backup: {path} cannot be opened: {why}. {NOTHING}") from None
        if fault := self._backup.content_fault(manifest, contents):
            raise AnsibleActionFail(f"backup: {path}: {fault}. {NOTHING}")
        return manifest, contents
