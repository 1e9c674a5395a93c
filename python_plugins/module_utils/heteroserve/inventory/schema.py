"""What an inventory may say, and every way in which it cannot work, as pure functions.

``Settings`` lists the variables of ``group_vars/all`` that concern HeteroServe as a whole; the others are options of
the roles, which describe them themselves (``meta/argument_specs.yml``). Nothing else is accepted, so that a typing
error is found before it is carried out.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, Literal

from ..common.records import bounded, number, shown, type_faults
from .models import ModelRequest

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}")
# What shells, patterns of file names, lists of paths and configuration files read as something else.
ODD = re.compile(r"""[*?\[\]{}"'`$\\:;,%#<>|&!\n\t]""")
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#]+/?")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Variables of Ansible and of AWX; in a workflow AWX hands a job what the jobs before it have set with set_stats.
FOREIGN = re.compile(r"(ansible|awx|tower|remote_tower|remote_host)_\w+|heteroserve_(plan|health|benchmark|failure)")
# Values that this project's playbooks take on the command line.
PLAYBOOK_VARIABLES = (
    "batch",
    "reset_purge",
    "upgrade_cells",
    "drain_host",
    "drain_state",
    "drain_force",
    "chatbot_state",
    "key_name",
    "key_state",
    "key_expires",
    "key_models",
    "key_requests_per_minute",
    "key_concurrent_requests",
    "key_tokens_per_day",
    "key_priority",
    "usage_days",
    "usage_key",
    "usage_json",
)
# Variables of a single host, or of a group in hosts.yml; those of Settings may stand there too.
HOST_VARIABLES = ("hardware", "rack", "reserved_ports", "serving_limits")
# Groups whose hosts are HeteroServe's.
GROUPS = ("serving", "gateway", "k3s_server", "monitoring", "registry", "retired", "state")
# Settings that only the hosts of one group read, and so may be set for that group. Localhost reads the others too.
OF_GROUP = {
    "gateway_address": "gateway",
    "gateway_port": "gateway",
    "gateway_stats_port": "gateway",
    "gateway_api_keys": "gateway",
    "cell_address": "serving",
    "state_path": "state",
}
# Runtimes that the stages after the plan know.
CARRIED_OUT = ("ray", "k3s")


@dataclass(frozen=True)
class ApiKey:
    """A client's key: its SHA-256, or the key itself from a vault; and what it may do."""

    name: str
    sha256: str | None = None
    key: str | None = None
    expires: Any = None  # last day; YAML makes a date of it where it stands without quotes
    models: list[str] = field(default_factory=list)  # that it may use; all, if there is none
    requests_per_minute: int | None = bounded(None, least=1)
    concurrent_requests: int | None = bounded(None, least=1)


@dataclass(frozen=True)
class HealthCheck:
    """A question that a model is asked before its cells get requests, with its known answer."""

    question: str
    answer: str  # regular expression


@dataclass(frozen=True)
class Proxy:
    """How the site reaches what is elsewhere. The cluster's own networks and hosts are left out by themselves."""

    http: str | None = None
    https: str | None = None  # that of ``http`` where left out
    no_proxy: str | None = None  # names, addresses and networks, with commas between them


@dataclass(frozen=True)
class Settings:
    """Variables that several roles read, or whose items are checked one by one. Those without a default must be set."""

    runtime: Literal["ray", "k3s"]
    state_dir: str
    models: list[ModelRequest]
    cell_address: str
    cell_port_base: int
    gateway_address: str
    gateway_port: int
    gateway_stats_port: int
    gateway_api_keys: list[ApiKey] = field(default_factory=list)
    gateway_cors_origins: list[str] = field(default_factory=list)
    health_checks: dict[str, tuple[HealthCheck, ...]] = field(default_factory=dict)
    engine_python: str | None = None
    engine_torch_index: str | None = None
    airgap_dir: str | None = None
    proxy: Proxy | None = None
    state_path: str | None = None
    verify: Literal["quick", "full"] = "quick"


REQUIRED_GROUPS = {
    "serving": "hosts that models may run on",
    "gateway": "the host of the endpoint",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where it stands, what was found, what to set."""

    where: str
    key: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.found}; {self.fix}"


@dataclass(frozen=True)
class Inventory:
    """What the action plugin read: no file and no host is looked at from here on."""

    values: dict[str, Any]  # effective values, templates resolved
    places: dict[str, str]  # top-level key -> "file:line" or "command line (-e)"
    groups: dict[str, list[str]]
    plain_secrets: dict[str, str]  # key path -> place, values that stand there in plain text
    template_faults: dict[str, str]  # key -> what Ansible said of its template
    # "HOST or GROUP: key" -> "file:line", in hosts and host_vars
    host_keys: dict[str, str] = field(default_factory=dict)
    role_options: dict[str, dict[str, Any]] = field(default_factory=dict)  # option of a role -> its argument spec
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)  # HOST_VARIABLES of each host, templates resolved
    lines: dict[str, str] = field(default_factory=dict)  # path of a nested key ("models[2].context") -> "file:line"
    owned: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # HOST or GROUP -> what it sets for itself, effective
    job_folder: str = ""  # that AWX removes after the job
    has_password: bool = False  # of backups and of what the state host keeps

    def place(self, path: str) -> str:
        """Where a key stands, or the nearest one around it."""
        around = path
        while around not in self.lines and (shorter := re.sub(r"(\.[^.\[\]]*|\[\d+\])$", "", around)) != around:
            around = shorter
        return self.lines.get(around) or self.places.get(re.split(r"[.\[]", path)[0], "group_vars/all")

    def host_place(self, host: str, path: str) -> str:
        """Where a host's variable stands: at the host itself, at a group of it, or for all hosts."""
        owners = [host, *(group for group, members in self.groups.items() if host in members)]
        top = re.split(r"[.\[]", path)[0]
        owner = next((name for name in owners if f"{name}: {top}" in self.host_keys), None)
        if owner is None:
            return self.place(path) if top in self.places else "hosts.yml"
        found = self.place(f"{owner}: {path}")
        return found if found != "group_vars/all" else self.host_keys[f"{owner}: {top}"]

    def known(self) -> list[str]:
        """Every variable that may be set for all hosts."""
        return list(dict.fromkeys([item.name for item in dataclasses.fields(Settings)] + sorted(self.role_options)))


def check(inventory: Inventory, engines: Sequence[str]) -> list[Fault]:
    """Every fault of the inventory; none if it can work. ``engines`` are those that its runtime has builds of."""
    faults = [*_unknown_keys(inventory), *_groups(inventory), *_secrets(inventory), *_templates(inventory)]
    hints = typing.get_type_hints(Settings)
    for item in dataclasses.fields(Settings):
        if item.name in inventory.values:
            faults += [
                Fault(inventory.place(key), key, found, fix)
                for key, found, fix in type_faults(hints[item.name], inventory.values[item.name], item.name)
            ]
        elif item.name in inventory.template_faults:
            continue
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            faults.append(_missing(inventory, item.name))
    for name in sorted(set(inventory.role_options) & set(inventory.values) - set(hints)):
        faults += [
            Fault(inventory.places[name], key, found, fix)
            for key, found, fix in option_faults(inventory.role_options[name], inventory.values[name], name)
        ]
    faults += [*_owned(inventory), *_state_dir(inventory), *_state_host(inventory)]
    faults += _runtime(inventory) + _models(inventory, engines) + _ports(inventory) + _keys(inventory)
    return faults + _origins(inventory)


def _missing(inventory: Inventory, name: str) -> Fault:
    """A setting that must be there, and is not where it is read."""
    owner = next((owner for owner, own in inventory.owned.items() if name in own), None)
    if owner is None:
        return Fault("group_vars/all", name, "missing", "set it as inventory/local/group_vars/all does")
    where = f"{owner}: {name}"
    needed = f"all hosts of {OF_GROUP[name]}" if name in OF_GROUP else "all hosts, localhost too"
    fix = f"set it for {needed} (group_vars/{OF_GROUP.get(name, 'all')})"
    return Fault(inventory.host_keys.get(where, "the inventory"), where, f"{owner} alone has it", fix)


def _owned(inventory: Inventory) -> list[Fault]:
    """What single hosts and groups set for themselves and is of the wrong type."""
    hints = typing.get_type_hints(Settings)
    faults = []
    for owner, own in inventory.owned.items():
        for name, value in own.items():
            if name in hints:
                found = type_faults(hints[name], value, name)
            elif name in inventory.role_options:
                found = option_faults(inventory.role_options[name], value, name)
            else:
                continue
            place = inventory.host_keys.get(f"{owner}: {name}", "the inventory")
            faults += [
                Fault(inventory.lines.get(f"{owner}: {key}", place), f"{owner}: {key}", what, fix)
                for key, what, fix in found
            ]
    return faults


def _templates(inventory: Inventory) -> list[Fault]:
    """Templates that cannot be rendered, and vaults that cannot be opened."""
    faults = []
    for path, found in inventory.template_faults.items():
        closed = found == "its vault cannot be opened"
        fix = "give its password: --ask-vault-pass or --vault-password-file" if closed else "correct the template"
        place = inventory.host_keys.get(path) or inventory.places.get(path, "group_vars/all")
        faults.append(Fault(place, path, found, fix))
    return faults


def _unknown_keys(inventory: Inventory) -> list[Fault]:
    choices = [*HOST_VARIABLES, *inventory.known()]
    found = [(key, key, place) for key, place in inventory.places.items() if key not in PLAYBOOK_VARIABLES]
    found += [(where, where.rpartition(": ")[2], place) for where, place in inventory.host_keys.items()]
    faults = []
    for where, key, place in found:
        if key in choices or FOREIGN.fullmatch(key):
            continue
        near = get_close_matches(key, choices, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]}?" if near else "remove it; docs/inventory.md lists what there is"
        faults.append(Fault(place, where, "unknown key", fix))
    return faults


def _state_dir(inventory: Inventory) -> list[Fault]:
    found = inventory.values.get("state_dir")
    if not isinstance(found, str) or not found:
        return []
    place = inventory.place("state_dir")
    if not found.startswith("/"):
        return [Fault(place, "state_dir", f"{found!r} is not an absolute path", "write it from / on")]
    if odd := sorted(set(ODD.findall(found))):
        return [
            Fault(
                place,
                "state_dir",
                f"{found!r} has {' '.join(odd)} in it",
                "use letters, digits, spaces and . _ - + @ ~",
            )
        ]
    if inventory.job_folder and PurePosixPath(found).is_relative_to(inventory.job_folder):
        lost = f"{found} lies in {inventory.job_folder}, which AWX removes after the job"
        fix = "set it to a folder that lasts, or name a host in the group state, as docs/awx.md says"
        if inventory.values.get("runtime") == "ray":
            # Programs and weights lie in it too, on each host: only plan, secrets and records are copied.
            return [Fault(place, "state_dir", lost, "set it to a folder that lasts, as docs/awx.md says")]
        return [] if inventory.groups.get("state") else [Fault(place, "state_dir", lost, fix)]
    return []


def _state_host(inventory: Inventory) -> list[Fault]:
    """The host that keeps the state for runs whose own folder does not last."""
    if "state" not in inventory.groups:
        return []
    faults, hosts = [], inventory.groups["state"]
    if len(hosts) != 1:
        found = f"{len(hosts)} hosts ({', '.join(hosts)})" if hosts else "the group is empty"
        faults.append(Fault("hosts.yml", "state", found, "leave one host in it, which keeps the state of this site"))
    path = inventory.values.get("state_path")
    if not isinstance(path, str) or not path.startswith("/"):
        found = "missing" if path is None else f"{path!r} is not an absolute path"
        fix = "set it to this site's own folder on the host of the group state, as /srv/heteroserve/dell"
        faults.append(Fault(inventory.place("state_path"), "state_path", found, fix))
    if not inventory.has_password:
        fix = "set it from a credential or a vault: what the host of the group state keeps is encrypted with it"
        faults.append(Fault(inventory.place("backup_password"), "backup_password", "missing", fix))
    return faults


def _runtime(inventory: Inventory) -> list[Fault]:
    found = inventory.values.get("runtime")
    if found in CARRIED_OUT or found not in typing.get_args(typing.get_type_hints(Settings)["runtime"]):
        return []  # the second case is a fault of its type
    place = inventory.places.get("runtime", "group_vars/all")
    fix = f"set runtime: {CARRIED_OUT[0]}, or run playbooks/plan.yml alone"
    return [Fault(place, "runtime", f"{found!r} can be planned but not installed yet", fix)]


def _groups(inventory: Inventory) -> list[Fault]:
    faults = []
    for group, meaning in REQUIRED_GROUPS.items():
        if group not in inventory.groups:
            found = "the group is missing"
        elif not inventory.groups[group]:
            found = "the group is empty"
        else:
            continue
        faults.append(Fault("hosts.yml", group, found, f"name {meaning} in it"))
    if inventory.values.get("runtime") == "k3s":
        faults += _k3s_groups(inventory)
    return faults


def _k3s_groups(inventory: Inventory) -> list[Fault]:
    faults = []
    servers = inventory.groups.get("k3s_server", [])
    if fault := server_count_fault(len(servers)):
        key, _, rest = fault.partition(": ")
        found, _, fix = rest.rpartition("; ")
        faults.append(Fault("hosts.yml", key, found, fix))
    retired = set(inventory.groups.get("retired", []))
    for group in ("serving", "k3s_server", "gateway"):
        for host in sorted(retired & set(inventory.groups.get(group, []))):
            faults.append(Fault("hosts.yml", "retired", f"{host} is also in {group}", "leave it in one of them"))
    return faults


def _secrets(inventory: Inventory) -> list[Fault]:
    return [
        Fault(
            place,
            key,
            "a secret in plain text",
            f"encrypt it (ansible-vault encrypt_string --name {key.split('.')[-1]}) or read it from the environment",
        )
        for key, place in inventory.plain_secrets.items()
    ]


def _models(inventory: Inventory, engines: Sequence[str]) -> list[Fault]:
    models = inventory.values.get("models")
    place = inventory.places.get("models", "group_vars/all")
    if not isinstance(models, list):
        return []
    if not models:
        return [Fault(place, "models", "an empty list", "name at least one model")]
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    names = [str(name) for model in models if isinstance(model, dict) for name in _called(model)]
    for index, model in enumerate(models):
        if not isinstance(model, dict):
            continue
        name = str(model.get("name", ""))
        key = f"models[{index}]"
        own = _model(model, engines, inventory.groups.get("serving", []))
        if name in seen:
            own.append(("name", f"{name!r} is also models[{seen[name]}]", "give each model its own name"))
        seen.setdefault(name, index)
        own += _adapters(model, [name for name in names if name])
        faults += [Fault(inventory.place(f"{key}.{sub}"), f"{key}.{sub}", found, fix) for sub, found, fix in own]
    return faults


def _called(model: dict[str, Any]) -> list[Any]:
    """Every name by which clients call something of an entry."""
    adapters = model.get("lora_adapters")
    own = [one.get("name") for one in adapters if isinstance(one, dict)] if isinstance(adapters, list) else []
    return [model.get("name", ""), *own]


def _adapters(model: dict[str, Any], names: list[str]) -> list[tuple[str, str, str]]:
    """Faults of an entry's adapters and draft. ``names`` are those of all models and adapters."""
    faults = []
    adapters = model.get("lora_adapters")
    for index, one in enumerate(adapters if isinstance(adapters, list) else ()):
        if not isinstance(one, dict):
            continue
        key, name = f"lora_adapters[{index}]", str(one.get("name") or "")
        if name and not MODEL_NAME.fullmatch(name):
            faults.append((f"{key}.name", f"{name!r}", "use letters, digits and . _ - / only, 96 at most"))
        if name and names.count(name) > 1:
            faults.append(
                (f"{key}.name", f"{name!r} is the name of another model or adapter", "give each a name of its own")
            )
        found = _source(one.get("source"), ("path", "hub"))
        faults += [(f"{key}.{sub}", text, fix) for sub, text, fix in found]
    if isinstance(model.get("draft"), dict):
        faults += [(f"draft.{sub}", text, fix) for sub, text, fix in _source(model["draft"].get("source"))]
    return faults


def _model(model: dict[str, Any], engines: Sequence[str], serving: Sequence[str]) -> list[tuple[str, str, str]]:
    """Faults of an entry by itself: (key, what was found, what to set)."""
    faults = _source(model.get("source"))
    name, hosts = str(model.get("name", "")), model.get("hosts")
    if name and not MODEL_NAME.fullmatch(name):
        faults.insert(0, ("name", f"{name!r}", "use letters, digits and . _ - / only, 96 at most"))
    for host in sorted(set(map(str, hosts if isinstance(hosts, list) else ())) - set(serving)):
        faults.append(("hosts", f"{host!r} is not in group serving", "name hosts of that group"))
    if model.get("engine") not in (None, *engines) and engines:
        found = f"{model['engine']!r} is not built for this runtime"
        faults.append(("engine", found, f"remove it, or set {' or '.join(engines)}"))
    return faults


def _source(source: Any, allowed: tuple[str, ...] = ("package", "path", "hub")) -> list[tuple[str, str, str]]:
    choices = "one of package (with version, file and sha256), path, or hub" if len(allowed) > 2 else "path or hub"
    if not isinstance(source, dict):
        return [("source", "missing", f"set {choices}")]
    kinds = [kind for kind in ("package", "path", "hub") if source.get(kind)]
    if len(kinds) == 1 and kinds[0] not in allowed:
        return [("source", f"{kinds[0]} is set", f"set {choices}")]
    if len(kinds) != 1:
        return [("source", " and ".join(kinds) + " are set" if kinds else "none is set", f"set {choices}")]
    if kinds == ["package"]:
        missing = [key for key in ("version", "file", "sha256") if not source.get(key)]
        if missing:
            return [("source", f"package without {', '.join(missing)}", "set them: what is fetched is checked")]
        if not SHA256.fullmatch(str(source["sha256"])):
            return [("source.sha256", f"{source['sha256']!r}", "set the 64 hexadecimal digits of the file's SHA-256")]
    if kinds == ["path"] and not str(source["path"]).startswith("/"):
        return [("source.path", f"{source['path']!r}", "set an absolute path")]
    return []


def _ports(inventory: Inventory) -> list[Fault]:
    names = [name for name in inventory.known() if name.endswith("_port")]
    ports: dict[int, str] = {}
    faults = []
    for name in [*names, "cell_port_base"]:
        port = number(inventory.values.get(name))
        if port is None:
            continue
        place = inventory.places.get(name, "group_vars/all")
        if not 1024 <= port <= 65000:
            faults.append(Fault(place, name, str(port), "set a port from 1024 to 65000"))
        elif port in ports:
            faults.append(Fault(place, name, f"{port} is also {ports[port]}", "give each its own port"))
        ports.setdefault(port, name)
    base = number(inventory.values.get("cell_port_base"))
    for port, name in ports.items():
        if base is not None and base < port < base + 1000:
            place = inventory.places.get(name, "group_vars/all")
            faults.append(
                Fault(place, name, f"{port} lies in the cells' range {base} to {base + 999}", "set a port outside it")
            )
    return faults


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _keys(inventory: Inventory) -> list[Fault]:
    faults, models = [], inventory.values.get("models")
    known = models if isinstance(models, list) else []
    called = [str(name) for model in known if isinstance(model, dict) for name in _called(model)]
    for index, key in enumerate(inventory.values.get("gateway_api_keys") or []):
        place = inventory.places.get("gateway_api_keys", "group_vars/all")
        if not isinstance(key, dict):
            continue
        where = f"gateway_api_keys[{index}]"
        if bool(key.get("sha256")) == bool(key.get("key")):
            faults.append(Fault(place, where, "needs either sha256 or key", "set sha256 to what sha256sum prints"))
        elif key.get("sha256") and not SHA256.fullmatch(str(key["sha256"])):
            faults.append(
                Fault(place, f"{where}.sha256", "not a SHA-256", "set the 64 digits of: printf %s KEY | sha256sum")
            )
        if not str(key.get("name", "")).isprintable():
            faults.append(Fault(place, f"{where}.name", f"{key['name']!r}", "set printable characters"))
        if key.get("expires") is not None and not _is_day(str(key["expires"])):
            faults.append(Fault(place, f"{where}.expires", f"{key['expires']!r}", "set its last day, as 2027-12-31"))
        asked = key.get("models")
        for model in asked if isinstance(asked, list) else []:
            if model not in called:
                fix = f"set any of {', '.join(called)}"
                faults.append(Fault(place, f"{where}.models", f"there is no {model}", fix))
    return faults


def _origins(inventory: Inventory) -> list[Fault]:
    """An origin with a path or without a scheme would be the origin of no page."""
    origins = inventory.values.get("gateway_cors_origins")
    place = inventory.places.get("gateway_cors_origins", "group_vars/all")
    return [
        Fault(
            place,
            f"gateway_cors_origins[{index}]",
            f"{origin!r}",
            'set scheme and host as in https://chat.example, or "*"',
        )
        for index, origin in enumerate(origins if isinstance(origins, list) else [])
        if not ORIGIN.fullmatch(str(origin))
    ]


SPEC_TYPES = {"str": str, "path": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


def option_faults(spec: dict[str, Any], data: Any, key: str) -> list[tuple[str, str, str]]:
    """As type_faults, for a type that is described by an option of a role's argument specification."""
    kind = SPEC_TYPES.get(spec.get("type", "str"))
    if data is None or kind is None or (kind is str and data == ""):  # an empty text takes a default away
        return []
    if "choices" in spec:
        return type_faults(Literal[tuple(spec["choices"])], data, key)
    if kind is list:
        if not isinstance(data, list):
            return [(key, shown(data), "set a list")]
        item = {**spec, "type": spec.get("elements", "raw")}
        return [fault for index, value in enumerate(data) for fault in option_faults(item, value, f"{key}[{index}]")]
    if kind is dict and spec.get("options") and isinstance(data, dict):
        options, faults = spec["options"], []
        for name, value in data.items():
            if name in options:
                faults += option_faults(options[name], value, f"{key}.{name}")
            else:
                faults.append((f"{key}.{name}", "unknown key", f"known are {', '.join(options)}"))
        missing = [name for name, option in options.items() if option.get("required") and name not in data]
        return faults + [(f"{key}.{name}", "missing", "set it") for name in missing]
    return type_faults(kind, data, key)


def server_count_fault(servers: int) -> str | None:
    """Why so many servers make no cluster; None if they do."""
    if servers == 0:
        return "k3s_server: the group is empty; name one host in it, or three for high availability"
    if servers % 2 == 0:
        return (
            f"k3s_server: {servers} servers lose their majority as soon as {servers - 1} would; name {servers - 1} or"
            f" {servers + 1} hosts in it"
        )
    return None
