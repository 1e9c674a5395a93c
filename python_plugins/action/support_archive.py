"""Write what was collected into one archive, without secrets. Documented in modules/support/support_archive.py.

Here and not in a module: what a module is given goes into the system's log, and secrets are in it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible.module_utils
import yaml
from ansible import context
from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

ROOT = Path(__file__).resolve().parents[2]
# What a kubeconfig and a site's own files call a secret, beside the names that variables have.
OF_FILES = ("client-key-data", "token", "password")


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


def encrypted(value: Any) -> Iterator[EncryptedString]:
    """Everything in a value that a vault encrypts."""
    if isinstance(value, EncryptedString):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from encrypted(item)
    elif isinstance(value, list):
        for item in value:
            yield from encrypted(item)


def kept(folder: Path) -> Iterator[str]:
    """Secrets of the state directory: each file of ``secrets``, and what the kubeconfig holds."""
    for path in sorted((folder / "secrets").glob("**/*")):
        if path.is_file():
            yield path.read_text(errors="replace")
    with suppress(OSError, yaml.YAMLError, AttributeError, TypeError):
        for user in yaml.safe_load((folder / "kubeconfig").read_text()).get("users") or ():
            yield from (str(user["user"][name]) for name in OF_FILES if user["user"].get(name))


class ActionModule(ActionBase):
    """Runs on the controller only."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            argument_spec={
                "folder": {"type": "path", "required": True},
                "state_dir": {"type": "path", "required": True},
                "about": {"type": "dict", "required": True},
                "parts": {"type": "list", "elements": "dict", "required": True},
                "cluster": {"type": "dict", "default": {}},
                "facts": {"type": "dict", "default": {}},
                "status": {"type": "dict", "default": {}},
                "commands": {"type": "dict", "default": {}},
                "total_kib": {"type": "int", "default": 32768},
            }
        )
        self._variables = task_vars or {}
        self._secrets, self._archive = shared("common.secrets"), shared("support.archive")
        made = datetime.now(UTC)
        state = Path(asked["state_dir"])
        files, chapters, cut = self._collected(asked, state)
        inventory = self._inventory()
        files["inventory.json"] = json.dumps(self._secrets.masked(inventory), indent=1, default=self._shown)
        files, shortened = self._archive.bounded(files, asked["total_kib"] * 1024)
        files = {"findings.md": self._archive.findings(chapters), **files}
        spelled = self._secrets.spellings(self._values(state, inventory))
        count = 0
        for name in files:
            files[name], places = self._secrets.removed(files[name], spelled)
            count += places
        about = {"made": made.strftime("%Y-%m-%d %H:%M:%S UTC"), **asked["about"]}
        files = {"README.md": self._archive.index(about, files, [*cut, *shortened], count), **files}
        path = Path(asked["folder"], f"heteroserve-support-{made:%Y%m%d-%H%M%S}.tar.gz")
        if not self._task.check_mode:
            try:
                write(path, files, made.timestamp())
            except OSError as fault:
                return {"failed": True, "msg": f"support_dir: {path} cannot be written: {fault.strerror}"}
        found = self._secrets.removed(files["findings.md"], [])[0].strip()
        return {
            "changed": False,
            "path": str(path),
            "report": f"{found}\n\nsupport archive  {path}\nLook through it before you send it.",
        }

    def _collected(self, asked: dict[str, Any], state: Path) -> tuple[dict[str, str], dict[str, list[str]], list[str]]:
        """Files by name, findings by chapter, and which files were cut."""
        files = {"status.txt": str(asked["status"].get("report", ""))}
        for name in ("plan.json", "health.json", "images.json", "engine-images.json", "charts.lock.json", "cis.json"):
            with suppress(OSError):
                files[name] = (state / name).read_text(errors="replace")
        files["facts.json"] = json.dumps(asked["facts"], indent=1, default=str)
        files |= {name: str(text) for name, text in asked["commands"].items()}
        files |= {f"cluster/{name}": str(text) for name, text in (asked["cluster"].get("files") or {}).items()}
        parts, cut = [], []
        for one in asked["parts"]:
            part = self._archive.Part(
                one["host"], one.get("files") or {}, tuple(one.get("findings") or ()), one.get("fault") or ""
            )
            parts.append(part)
            files |= {f"hosts/{part.host}/{name}": str(text) for name, text in part.files.items()}
            cut += [f"hosts/{part.host}/{name}" for name in one.get("cut") or ()]
        health: dict[str, Any] = {}
        with suppress(ValueError):
            health = json.loads(files.get("health.json", "{}"))
        chapters = {
            "Hosts": self._archive.of_hosts(parts, asked["facts"]),
            "Cells": [*(asked["cluster"].get("findings") or ()), *(text for part in parts for text in part.findings)],
            "Gateway and status": self._archive.of_status(asked["status"]),
            "Last known-answer check": self._archive.of_health(health),
        }
        return files, chapters, cut

    def _inventory(self) -> dict[str, Any]:
        """What the inventory says of groups and hosts, as it is written, and what was typed on the command line."""
        inventory = self._variables["hostvars"]._inventory
        owners = {**inventory.groups, **inventory.hosts}
        found: dict[str, Any] = {}
        for name, owner in owners.items():
            files = get_vars_from_inventory_sources(self._loader, inventory._sources, [owner], "all")
            found[name] = {**owner.vars, **files}
        typed = dict(load_extra_vars(self._loader)) if context.CLIARGS.get("extra_vars") else {}
        return {"groups": self._variables.get("groups", {}), "variables": found, "command line": typed}

    def _values(self, state: Path, inventory: dict[str, Any]) -> Iterator[str]:
        """All secrets that this installation keeps, or that inventory and environment give it."""
        yield from kept(state)
        yield from (value for name, value in os.environ.items() if self._secrets.SECRET.search(name.lower()))
        for value in [*self._secrets.named(inventory), *encrypted(inventory)]:
            with suppress(AnsibleError):
                yield str(self._templar.template(value))

    @staticmethod
    def _shown(value: Any) -> str:
        """What JSON has no form for, an encrypted value before all: its plain text is nobody's business here."""
        return "[removed]" if isinstance(value, EncryptedString) else str(value)


def write(path: Path, files: dict[str, str], made: float) -> None:
    """Pack the files below one folder; the archive is whole or absent, and only its owner reads it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(made), 0o600
            archive.addfile(entry, io.BytesIO(data))
    os.replace(fresh, path)
