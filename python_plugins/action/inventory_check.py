"""Read the inventory as its author wrote it and hand it to the module ``inventory_check``.

Ansible merges variables from many places; this remembers where each key stands, so that a fault can name file
and line, and sees which values are templates or encrypted and which are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars, merge_hash

SECRET = re.compile(r"(^|_)(token|password|passwd|secret|api_key|key)$")
COMMAND_LINE = "command line (-e)"


def plain_secrets(node: yaml.Node, path: str = "") -> Iterator[tuple[str, int]]:
    """Key paths (and lines) below ``node`` that are named like a secret and hold plain text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            where = f"{path}.{name}" if path else name
            if isinstance(value, yaml.ScalarNode) and SECRET.search(name):
                text = str(value.value)
                if value.tag == "tag:yaml.org,2002:str" and text and "{{" not in text:
                    yield where, value.start_mark.line + 1
            yield from plain_secrets(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from plain_secrets(value, f"{path}[{index}]")


def nested(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """Paths of all keys below ``node``, with their lines; what a merge key brings stands where it was written."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                yield from nested(value, path)
                continue
            yield f"{path}.{key.value}", key.start_mark.line + 1
            yield from nested(value, f"{path}.{key.value}")
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value.start_mark.line + 1
            yield from nested(value, f"{path}[{index}]")


def host_lines(node: yaml.Node, owner: str = "") -> Iterator[tuple[str, int]]:
    """Lines of hosts ("hosts.HOST") in a host file, and of what hosts and groups set, below "OWNER: key"."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if not isinstance(value, yaml.MappingNode):
            continue
        if key.value == "hosts":
            for host, variables in value.value:
                yield f"hosts.{host.value}", host.start_mark.line + 1
                if isinstance(variables, yaml.MappingNode):
                    for name, content in variables.value:
                        yield f"{host.value}: {name.value}", name.start_mark.line + 1
                        yield from nested(content, f"{host.value}: {name.value}")
        elif key.value == "vars":
            for name, content in value.value:
                yield f"{owner}: {name.value}", name.start_mark.line + 1
                yield from nested(content, f"{owner}: {name.value}")
        elif key.value == "children":
            for group, content in value.value:
                yield from host_lines(content, str(group.value))
        elif not owner:
            yield from host_lines(value, str(key.value))


def host_keys(lines: dict[str, int]) -> dict[str, int]:
    """Of ``host_lines`` the keys that hosts and groups set themselves, as "OWNER: key"."""
    return {path: line for path, line in lines.items() if re.fullmatch(r"[^:]*: [^.\[]*", path)}


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
    return "hidden" if value and isinstance(value, str) and SECRET.search(key) else value


class ActionModule(ActionBase):
    """Collects on the controller; the verdict is the module's."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        source = Path(str((variables.get("ansible_inventory_sources") or ["."])[0]))
        folder = source if source.is_dir() else source.parent
        places: dict[str, str] = {}
        secrets: dict[str, str] = {}
        self._lines: dict[str, str] = {}
        for path in sorted(folder.glob("group_vars/**/*.y*ml")):
            self._read(path, str(path.relative_to(folder)), places, secrets)
        of_hosts: dict[str, str] = {}
        for path in sorted(folder.glob("host_vars/**/*.y*ml")):
            own: dict[str, str] = {}
            host = path.relative_to(folder / "host_vars").parts[0].rpartition(".")[0] or path.parent.name
            self._read(path, str(path.relative_to(folder)), own, secrets, f"{host}: ")
            of_hosts.update({f"{host}: {key}": place for key, place in own.items()})
        for path in sorted(folder.glob("*.y*ml")):
            self._read(path, path.name, {}, secrets)
            root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
            if root is not None:
                lines = dict(host_lines(root))
                of_hosts.update({key: f"{path.name}:{line}" for key, line in host_keys(lines).items()})
                self._lines.update({key: f"{path.name}:{line}" for key, line in lines.items()})
        # Ansible gives its own switches (check mode, verbosity, ...) through the same door: those are not the user's.
        typed = set(load_extra_vars(self._loader)) if context.CLIARGS.get("extra_vars") else set()
        places.update(dict.fromkeys(map(str, typed), COMMAND_LINE))
        self._lines = {key: line for key, line in self._lines.items() if re.split(r"[.\[]", key)[0] not in typed}
        values, faults = self._values(places, variables)
        gateways = list(variables.get("groups", {}).get("gateway", []))
        hostvars = variables.get("hostvars", {})
        verdict = self._execute_module(
            module_name="inventory_check",
            module_args={
                "values": values,
                "places": places,
                "groups": {name: list(hosts) for name, hosts in variables.get("groups", {}).items()},
                "plain_secrets": secrets,
                "template_faults": faults,
                "host_keys": of_hosts,
                "hosts": self._hosts(variables),
                "lines": self._lines,
                "role_options": role_options(Path(__file__).parents[2] / "roles"),
                "gateway_is_local": any(hostvars[host].get("ansible_connection") == "local" for host in gateways),
            },
            task_vars=variables,
        )
        return merge_hash(result, verdict)

    def _read(self, path: Path, name: str, places: dict[str, str], secrets: dict[str, str], owner: str = "") -> None:
        text = path.read_text()
        if text.startswith("$ANSIBLE_VAULT"):
            places.update({str(key): name for key in self._loader.load_from_file(str(path)) or {}})
            return
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(root, yaml.MappingNode):
            for key, value in root.value:
                places[str(key.value)] = f"{name}:{key.start_mark.line + 1}"
                self._lines.update({path: f"{name}:{line}" for path, line in nested(value, f"{owner}{key.value}")})
            secrets.update({key: f"{name}:{line}" for key, line in plain_secrets(root)})

    def _hosts(self, variables: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What the planner reads of each host that may carry models. Templates that need facts are left to plan."""
        hostvars = variables.get("hostvars", {})
        found: dict[str, dict[str, Any]] = {}
        for host in variables.get("groups", {}).get("serving", []):
            own = found[host] = {}
            for name in ("hardware", "rack", "reserved_ports", "serving_limits"):
                with suppress(AnsibleUndefinedVariable):
                    if name in hostvars[host]:
                        own[name] = self._templar.template(hostvars[host][name])
        return found

    def _values(self, places: dict[str, str], variables: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Effective values of the keys that the inventory sets, and what went wrong with their templates."""
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for key in places:
            if key not in variables or key.startswith("ansible_"):
                continue
            try:
                values[key] = masked(self._templar.template(variables[key]), key)
            except AnsibleError as error:
                faults[key] = str(error).splitlines()[0]
        return values, faults
