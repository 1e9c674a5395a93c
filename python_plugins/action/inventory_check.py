"""Read the inventory as Ansible has merged it and hand it to the module ``inventory_check``.

Values are Ansible's, wherever they come from: YAML, INI or JSON files, scripts, plugins, several sources. Ansible also
remembers where it read each value, so that a fault can name file and line, and which values are encrypted.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ansible.module_utils
import yaml
from ansible import context
from ansible._internal._datatag._tags import Origin
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.vault import EncryptedString
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars, merge_hash
from ansible.vars.plugins import get_vars_from_inventory_sources

COMMAND_LINE = "command line (-e)"
ROOT = Path(__file__).resolve().parents[2]
# Ansible gives them to each host of a source.
OF_SOURCES = ("inventory_file", "inventory_dir")
NO_KEY = "its vault cannot be opened"
# What templates of roles' options may name although only a later stage knows it; and all that layout.yml sets.
LATER = ("ansible_facts", "state")


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


SECRETS = shared("common.secrets")


def nested(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths of everything in a value, each with the key and value that stand there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}", (key, item)
            yield from nested(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", (None, item)
            yield from nested(item, f"{path}[{index}]")


def texts(value: Any) -> Iterator[Any]:
    """All texts in a value, encrypted ones too."""
    if isinstance(value, (str, EncryptedString)):
        yield value
    for _, (_, item) in nested(value, ""):
        if isinstance(item, (str, EncryptedString)):
            yield item


def origin(*written: Any) -> Origin | None:
    """Where Ansible read the first of these of which it knows that."""
    return next((found for item in written if (found := Origin.get_tag(item))), None)


def in_plain_text(key: str, value: Any) -> bool:
    """Whether a value is a secret by its name, or has one in a URL, and can be read where it stands."""
    if not isinstance(value, str) or not value or "{{" in value:
        return False
    return SECRETS.SECRET.search(key) is not None or SECRETS.CREDENTIALS.search(value) is not None


def role_options(roles: Path) -> dict[str, Any]:
    """What each role says it takes, without the texts: option -> its argument specification."""
    found: dict[str, Any] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text())["argument_specs"]
        found.update(specs.get("main", {}).get("options", {}))
    return found


def masked(value: Any, key: str = "") -> Any:
    """The value without what is secret in it: the verdict needs to know that it is set, not what it is."""
    if isinstance(value, dict):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return "hidden" if value and isinstance(value, str) and SECRETS.SECRET.search(key) else value


def later_names() -> set[str]:
    """Variables that playbooks set themselves."""
    return {*LATER, *yaml.safe_load((ROOT / "playbooks" / "vars" / "layout.yml").read_text())}


class ActionModule(ActionBase):
    """Collects on the controller; the verdict is the module's."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self._variables = variables = task_vars or {}
        self._hostvars = variables["hostvars"]
        self._sources = [str(source) for source in variables.get("ansible_inventory_sources") or []]
        self._options = role_options(ROOT / "roles")
        self._schema, self._later = shared("inventory.schema"), later_names()
        self._known = {*self._options, *self._schema.HOST_VARIABLES}
        self._known |= {item.name for item in dataclasses.fields(self._schema.Settings)}
        self._places: dict[str, str] = {}
        self._lines: dict[str, str] = {}
        self._secrets: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        self._host_keys: dict[str, str] = {}
        written = self._written(self._hostvars._inventory.groups["all"])
        # Ansible gives its own switches (check mode, verbosity, ...) through the same door: those are not the user's.
        typed = dict(load_extra_vars(self._loader)) if context.CLIARGS.get("extra_vars") else {}
        for key, value in written.items():
            if key not in typed:
                self._note(key, value, key, "the inventory", self._places)
        for key, value in typed.items():
            self._note(key, value, str(key), COMMAND_LINE, self._places)
        self._find_secrets("", written)
        owned = self._owned(set(typed))
        values = {key: self._value(key, variables[key], key) for key in self._places if key in variables}
        values |= self._of_groups(set(typed))
        gateways = list(variables.get("groups", {}).get("gateway", []))
        verdict = self._execute_module(
            module_name="inventory_check",
            module_args={
                "values": {key: value for key, value in values.items() if key not in self._faults},
                "owned": owned,
                "places": self._places,
                "groups": {name: list(hosts) for name, hosts in variables.get("groups", {}).items()},
                "plain_secrets": self._secrets,
                "template_faults": self._faults,
                "host_keys": self._host_keys,
                "hosts": self._hosts(),
                "lines": self._lines,
                "role_options": self._options,
                # AWX runs a job in a folder with a copy of the project, and removes it.
                "job_folder": str(ROOT.parent) if "awx_job_id" in typed else "",
                "has_password": any(variables.get(name) for name in ("backup_password", "backup_password_file"))
                or bool(os.environ.get("HETEROSERVE_BACKUP_PASSWORD_FILE")),
                "gateway_is_local": any(self._hostvars[host].get("ansible_connection") == "local" for host in gateways),
            },
            task_vars=variables,
        )
        return merge_hash(result, verdict)

    def _written(self, owner: Any) -> dict[str, Any]:
        """What all sources of the inventory together say of a group or host itself."""
        files = get_vars_from_inventory_sources(self._loader, self._hostvars._inventory._sources, [owner], "all")
        return {key: value for key, value in {**owner.vars, **files}.items() if key not in OF_SOURCES}

    def _owned(self, typed: set[str]) -> dict[str, dict[str, Any]]:
        """What single hosts, and groups with hosts of ours, set for themselves: values as their hosts have them."""
        inventory, groups = self._hostvars._inventory, self._variables.get("groups", {})
        ours = [host for name in self._schema.GROUPS for host in groups.get(name, [])]
        owners: list[tuple[Any, list[str]]] = [
            (group, members)
            for name, group in inventory.groups.items()
            if name not in ("all", "ungrouped") and (members := [host for host in groups.get(name, []) if host in ours])
        ]
        owners += [(host, [name]) for name, host in inventory.hosts.items() if name in ours or not ours]
        owned: dict[str, dict[str, Any]] = {}
        for owner, members in owners:
            written = self._written(owner)
            self._find_secrets(f"{owner.name}: ", written)
            if (place := origin(owner.name)) is not None:
                self._lines[f"hosts.{owner.name}"] = self._shown(place, "")
            for key, value in written.items():
                # A CMDB's script says much of its hosts that is not for us.
                if self._is_foreign(key, value):
                    continue
                path = f"{owner.name}: {key}"
                self._note(key, value, path, "the inventory", self._host_keys)
                if key in typed or key in self._schema.HOST_VARIABLES:
                    continue
                found = self._value(key, value, path, members[0])
                if path not in self._faults:
                    owned.setdefault(owner.name, {})[key] = found
        return owned

    def _of_groups(self, typed: set[str]) -> dict[str, Any]:
        """Settings that only the hosts of one group read: as that group's first host has them."""
        values: dict[str, Any] = {}
        for key, group in self._schema.OF_GROUP.items():
            hosts = self._variables.get("groups", {}).get(group, [])
            if not hosts or key in typed or not all(key in self._hostvars[host] for host in hosts):
                continue
            self._faults.pop(key, None)
            place = next((where for path, where in self._host_keys.items() if path.endswith(f": {key}")), None)
            self._places.setdefault(key, place or "the inventory")
            values[key] = self._value(key, None, key, hosts[0])
        return values

    def _is_foreign(self, key: str, value: Any) -> bool:
        """Whether a script or a plugin says it of a host, and it is no variable of ours."""
        place = origin(key, value)
        return key not in self._known and (place is None or place.path is None)

    def _note(self, key: str, value: Any, path: str, default: str, places: dict[str, str]) -> None:
        """Remember where a variable stands, and what is nested in it."""
        place = origin(key, value)
        places[path] = self._shown(place, default)
        for below, written in nested(value, path):
            if (inner := origin(*written)) is not None and inner.line_num:
                self._lines[below] = self._shown(inner, default)

    def _shown(self, place: Origin | None, default: str) -> str:
        """As "group_vars/all/models.yml:7": seen from the inventory's folder where it is there."""
        if place is None or (not place.path and (default == COMMAND_LINE or not place.description)):
            return default
        name = str(place.path or place.description)
        folders = [source if os.path.isdir(source) else os.path.dirname(source) for source in self._sources]
        around = [folder for folder in map(os.path.abspath, folders) if name.startswith(f"{folder}/")]
        if around:
            name = os.path.relpath(name, max(around, key=len))
        return f"{name}:{place.line_num}" if place.line_num else name

    def _find_secrets(self, owner: str, written: dict[str, Any]) -> None:
        """Secrets in files that can be read. What a script hands over (AWX) is kept where the script has it from."""
        for key, value in written.items():
            for path, (name, item) in [(key, (key, value)), *nested(value, key)]:
                if not in_plain_text(str(name or ""), item):
                    continue
                place = origin(item, name, value, key)
                file = Path(place.path) if place is not None and place.path else None
                if file is not None and not self._is_encrypted(file):
                    self._secrets[f"{owner}{path}"] = self._shown(place, "")

    @staticmethod
    def _is_encrypted(file: Path) -> bool:
        try:
            with file.open("rb") as stream:
                return stream.read(14) == b"$ANSIBLE_VAULT"
        except OSError:
            return True

    def _hosts(self) -> dict[str, dict[str, Any]]:
        """What the planner reads of each host that may carry models. Templates that need facts are left to plan."""
        found: dict[str, dict[str, Any]] = {}
        for host in self._variables.get("groups", {}).get("serving", []):
            own = found[host] = {}
            for name in self._schema.HOST_VARIABLES:
                with suppress(AnsibleUndefinedVariable):
                    if name in self._hostvars[host]:
                        own[name] = self._templar.template(self._hostvars[host][name])
        return found

    def _value(self, key: str, value: Any, path: str, host: str | None = None) -> Any:
        """The effective value, as the controller has it or a host; what cannot be had becomes a fault."""
        if key.startswith("ansible_"):
            self._open(value, path)
            return None
        try:
            found = self._hostvars[host][key] if host is not None else self._templar.template(value)
            return masked(self._open(found, path), key)
        except AnsibleUndefinedVariable as error:
            if not any(re.search(rf"\b{name}\b", str(text)) for text in texts(value) for name in self._later):
                self._faults[path] = str(error).splitlines()[0]
        except AnsibleError as error:
            said = str(error).splitlines()[0]
            self._faults[path] = NO_KEY if "decrypt" in said else said
        return None

    def _open(self, value: Any, path: str) -> Any:
        """The value with what is encrypted in it; a vault that cannot be opened becomes a fault."""
        if isinstance(value, dict):
            return {key: self._open(item, path) for key, item in value.items()}
        if isinstance(value, list):
            return [self._open(item, path) for item in value]
        if not isinstance(value, EncryptedString):
            return value
        try:
            return str(value)
        except AnsibleError:
            self._faults[path] = NO_KEY
            return None
