"""A stand-in of AWX's REST API, for what the modules of awx.awx ask of it: written from the API's documentation.

It has no AWX behind it. It checks what AWX's serializers check and more: fields that AWX does not know, types, choices,
references, names that must be unique, survey questions; it pages its lists, filters them, cascades removals, and never
shows a secret. https://ansible.readthedocs.io/projects/awx/en/latest/rest_api/
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

TOKEN = "a-token-for-tests"
PAGE, MOST = 25, 200
ENCRYPTED = "$encrypted$"
SECRET = {"password", "ssh_key_data", "token"}


@dataclass(frozen=True)
class Kind:
    """An endpoint: the fields that may be written, of which type, and which objects they refer to."""

    type: str
    fields: Mapping[str, Any]  # a type, or the choices
    references: dict[str, str] = field(default_factory=dict)  # field -> endpoint
    required: tuple[str, ...] = ("name",)
    unique: tuple[str, ...] = ("name", "organization")
    associations: dict[str, str] = field(default_factory=dict)  # name -> endpoint of what it holds
    owner: str = "organization"  # with which it goes


TOLD = {f"notification_templates_{when}": "notification_templates" for when in ("started", "success", "error")}
TEXTS = dict.fromkeys(("name", "description"), str)
KINDS = {
    "organizations": Kind("organization", {**TEXTS, "max_hosts": int}, unique=("name",), associations=TOLD),
    "execution_environments": Kind(
        "execution_environment",
        {**TEXTS, "image": str, "pull": ("", "always", "missing", "never")},
        {"organization": "organizations", "credential": "credentials"},
        ("name", "image"),
        ("name",),
    ),
    "credential_types": Kind(
        "credential_type",
        {**TEXTS, "kind": ("cloud", "net"), "managed": bool, "inputs": dict, "injectors": dict},
        required=("name", "kind"),
        unique=("name",),
    ),
    "credentials": Kind(
        "credential",
        {**TEXTS, "inputs": dict},
        {"organization": "organizations", "credential_type": "credential_types"},
        ("name", "credential_type"),
        ("name", "organization", "credential_type"),
    ),
    "projects": Kind(
        "project",
        {
            **TEXTS,
            "scm_type": ("", "git", "svn", "archive"),
            "scm_url": str,
            "scm_branch": str,
            "scm_refspec": str,
            "scm_clean": bool,
            "scm_delete_on_update": bool,
            "scm_track_submodules": bool,
            "scm_update_on_launch": bool,
            "scm_update_cache_timeout": int,
            "allow_override": bool,
            "timeout": int,
            "local_path": str,
        },
        {"organization": "organizations", "default_environment": "execution_environments", "credential": "credentials"},
        associations=TOLD,
    ),
    "inventories": Kind(
        "inventory",
        {**TEXTS, "variables": str, "kind": ("", "smart", "constructed"), "host_filter": str},
        {"organization": "organizations"},
        ("name", "organization"),
    ),
    "inventory_sources": Kind(
        "inventory_source",
        {
            **TEXTS,
            "source": ("file", "scm", "ec2", "constructed"),
            "source_path": str,
            "source_vars": str,
            "overwrite": bool,
            "overwrite_vars": bool,
            "update_on_launch": bool,
            "update_cache_timeout": int,
            "timeout": int,
            "verbosity": int,
            "limit": str,
            "enabled_var": str,
            "enabled_value": str,
            "host_filter": str,
        },
        {
            "inventory": "inventories",
            "source_project": "projects",
            "execution_environment": "execution_environments",
            "credential": "credentials",
        },
        ("name", "inventory"),
        ("name", "inventory"),
        TOLD,
        "inventory",
    ),
    "notification_templates": Kind(
        "notification_template",
        {
            **TEXTS,
            "notification_type": ("email", "slack", "webhook"),
            "notification_configuration": dict,
            "messages": dict,
        },
        {"organization": "organizations"},
        ("name", "organization", "notification_type"),
    ),
    "job_templates": Kind(
        "job_template",
        {
            **TEXTS,
            **dict.fromkeys(("playbook", "scm_branch", "limit", "job_tags", "skip_tags", "extra_vars"), str),
            **dict.fromkeys(("forks", "timeout", "job_slice_count"), int),
            "job_type": ("run", "check"),
            "verbosity": int,
            **dict.fromkeys(("survey_enabled", "allow_simultaneous", "become_enabled", "diff_mode"), bool),
            **{
                f"ask_{what}_on_launch": bool
                for what in ("variables", "limit", "tags", "inventory", "credential", "verbosity", "job_type")
            },
        },
        {
            "organization": "organizations",
            "project": "projects",
            "inventory": "inventories",
            "execution_environment": "execution_environments",
        },
        ("name", "project", "playbook"),
        ("name", "organization"),
        {"credentials": "credentials", **TOLD},
    ),
    "workflow_job_templates": Kind(
        "workflow_job_template",
        {
            **TEXTS,
            **dict.fromkeys(("limit", "extra_vars", "scm_branch", "job_tags", "skip_tags"), str),
            **dict.fromkeys(("survey_enabled", "allow_simultaneous", "ask_variables_on_launch"), bool),
        },
        {"organization": "organizations", "inventory": "inventories"},
        associations={**TOLD, "notification_templates_approvals": "notification_templates"},
    ),
    "workflow_job_template_nodes": Kind(
        "workflow_job_template_node",
        {"identifier": str, "all_parents_must_converge": bool, "extra_data": dict, "limit": str},
        {"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        ("identifier", "workflow_job_template"),
        ("identifier", "workflow_job_template"),
        {f"{when}_nodes": "workflow_job_template_nodes" for when in ("success", "failure", "always")}
        | {"credentials": "credentials"},
        "workflow_job_template",
    ),
    "workflow_approval_templates": Kind("workflow_approval_template", {**TEXTS, "timeout": int}, unique=()),
    "schedules": Kind(
        "schedule",
        {**TEXTS, "rrule": str, "enabled": bool, "extra_data": dict},
        {"unified_job_template": "unified_job_templates"},
        ("name", "rrule", "unified_job_template"),
        ("name", "unified_job_template"),
        owner="unified_job_template",
    ),
    "labels": Kind("label", {"name": str}, {"organization": "organizations"}),
}
UNIFIED = ("job_templates", "projects", "inventory_sources", "workflow_job_templates", "workflow_approval_templates")
QUESTION = {"question_name", "variable", "type", "required"}
QUESTION_MORE = {"question_description", "default", "choices", "min", "max", "new_question"}
QUESTION_TYPES = {"text", "textarea", "password", "multiplechoice", "multiselect", "integer", "float"}


# Messages are rendered once with fields that any job has; one that names another field is refused.
ANY_JOB = {"id": 42, "name": "a job", "status": "running", "job_explanation": "", "artifacts": {}}


def message_faults(messages: dict[str, Any]) -> list[str]:
    """What AWX says of the messages of a notification template."""
    faults = [f"Event '{event}' invalid" for event in messages if event not in ("started", "success", "error")]
    for text in (text for parts in messages.values() for text in (parts or {}).values()):
        try:
            ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(text).render(
                job=ANY_JOB, url="https://"
            )
        except TemplateError as fault:
            faults.append(f"Unable to render message '{text}': {fault}")
    return faults


class Wrong(Exception):
    """What the API answers with 400, or another status."""

    def __init__(self, fault: dict[str, Any], status: int = 400) -> None:
        super().__init__(fault)
        self.fault, self.status = fault, status


class Awx:
    """All objects, by endpoint and id."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in KINDS}
        self.surveys: dict[str, dict[str, Any]] = {}
        self.held: dict[tuple[str, int, str], list[int]] = {}
        self.asked: list[tuple[str, str]] = []
        self._next = 1
        self.add("credential_types", {"name": "Machine", "kind": "cloud", "managed": True})

    def add(self, endpoint: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Put an object there without any check."""
        number, self._next = self._next, self._next + 1
        url = f"/api/v2/{endpoint}/{number}/"
        related = {name: f"{url}{name}/" for name in KINDS[endpoint].associations}
        if endpoint in ("job_templates", "workflow_job_templates"):
            related |= {"survey_spec": f"{url}survey_spec/", "workflow_nodes": f"{url}workflow_nodes/"}
        made = {"description": "", **fields, "id": number, "type": KINDS[endpoint].type, "url": url, "related": related}
        self.objects[endpoint][number] = made
        return made

    def everything(self, endpoint: str) -> list[dict[str, Any]]:
        """Objects of an endpoint in the order of their ids."""
        names = UNIFIED if endpoint == "unified_job_templates" else (endpoint,)
        return sorted((one for name in names for one in self.objects[name].values()), key=lambda one: int(one["id"]))

    def shown(self, one: dict[str, Any]) -> dict[str, Any]:
        """An object as the API shows it."""
        hidden = {key: ENCRYPTED if key in SECRET else value for key, value in (one.get("inputs") or {}).items()}
        summary = {}
        if target := one.get("unified_job_template"):
            found = next(item for item in self.everything("unified_job_templates") if item["id"] == target)
            one = {**one, "related": {**one["related"], "unified_job_template": found["url"]}}
            summary["unified_job_template"] = {"name": found["name"], "unified_job_type": found["type"]}
        plain = one["type"] == "credential_type" or "inputs" not in one
        return {**one, "summary_fields": summary, **({} if plain else {"inputs": hidden})}

    def listed(self, endpoint: str, items: list[dict[str, Any]], query: dict[str, str], path: str) -> dict[str, Any]:
        """A page of a list; every filter has to be a field."""
        page, size = int(query.pop("page", 1)), min(int(query.pop("page_size", PAGE)), MOST)
        query.pop("order_by", None)
        either = {key.removeprefix("or__"): query.pop(key) for key in [*query] if key.startswith("or__")}
        known = set()
        for name in UNIFIED if endpoint == "unified_job_templates" else (endpoint,):
            known |= {*KINDS[name].fields, *KINDS[name].references, "id", "type"}
        for key in (*query, *either):
            if key not in known:
                raise Wrong({"detail": f"{KINDS.get(endpoint, KINDS['labels']).type} has no field named '{key}'"})
        found = [one for one in items if all(str(one.get(key)) == value for key, value in query.items())]
        if either:
            found = [one for one in found if any(str(one.get(key)) == value for key, value in either.items())]
        more = (
            f"{path}?{urlencode({**query, 'page': page + 1, 'page_size': size})}" if page * size < len(found) else None
        )
        part = found[(page - 1) * size : page * size]
        return {"count": len(found), "next": more, "previous": None, "results": [self.shown(one) for one in part]}

    def check(self, endpoint: str, data: dict[str, Any], existing: dict[str, Any] | None) -> dict[str, Any]:
        """What is written, checked. Raises ``Wrong``."""
        kind, faults = KINDS[endpoint], {}
        data = {name: value for name, value in data.items() if name != "type"}  # read-only: AWX passes over it
        for name, value in data.items():
            if name in kind.references:
                if value is not None and not any(
                    str(one["id"]) == str(value) for one in self.everything(kind.references[name])
                ):
                    faults[name] = [f'Invalid pk "{value}" - object does not exist.']
                continue
            expected = kind.fields.get(name)
            if expected is None:
                faults[name] = ["AWX does not know this field."]
            elif isinstance(expected, tuple):
                if value not in expected:
                    faults[name] = [f'"{value}" is not a valid choice.']
            elif value is None and name == "host_filter":
                continue
            elif not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
                faults[name] = [f"Not a valid {expected.__name__}."]
        whole = {**(existing or {}), **data}
        for name in kind.required:
            if whole.get(name) in (None, ""):
                faults[name] = ["This field is required."]
        if not faults and (wrong := message_faults(data.get("messages") or {})):
            faults["messages"] = wrong
        if faults:
            raise Wrong(faults)
        if "rrule" in data and not re.match(r"^DTSTART(;TZID=\S+)?:\d{8}T\d{6}Z? RRULE:.*FREQ=\w+", data["rrule"]):
            raise Wrong({"rrule": ["A valid rrule begins with DTSTART and has a FREQ."]})
        if data.get("extra_vars"):
            json.loads(data["extra_vars"])
        key = [whole.get(name) for name in kind.unique]
        for one in self.objects[endpoint].values():
            if kind.unique and one is not existing and [one.get(name) for name in kind.unique] == key:
                raise Wrong({"__all__": [f"{kind.type} with this {', '.join(kind.unique)} already exists."]})
        return {
            name: int(value) if name in kind.references and value is not None else value for name, value in data.items()
        }

    def remove(self, endpoint: str, number: int) -> None:
        """Remove an object and what it owns, with a node its approval (AWX: signals.py, delete_approval_templates)."""
        target = self.objects[endpoint].pop(number).get("unified_job_template")
        if endpoint == "workflow_job_template_nodes" and target in self.objects["workflow_approval_templates"]:
            self.remove("workflow_approval_templates", target)
        for name, kind in KINDS.items():
            owned = kind.references.get(kind.owner) in (
                endpoint,
                "unified_job_templates" if endpoint in UNIFIED else "",
            )
            for one in [*self.objects[name].values()] if owned else []:
                if one.get(kind.owner) == number:
                    self.remove(name, one["id"])

    def survey(self, data: dict[str, Any]) -> None:
        """Check the questions of a survey. Raises ``Wrong``."""
        if set(data) != {"name", "description", "spec"} or not data["spec"]:
            raise Wrong({"error": "'name', 'description' and 'spec' are needed, and a question."})
        for question in data["spec"]:
            names = set(question)
            if not names >= QUESTION or names - QUESTION - QUESTION_MORE or question["type"] not in QUESTION_TYPES:
                raise Wrong({"error": f"question {question.get('variable')}: {sorted(names)}"})
            choices, name = question.get("choices"), question["variable"]
            if question["type"] == "multiplechoice" and (
                not choices or question.get("default") not in (None, *choices)
            ):
                raise Wrong({"error": f"Default choice must be answered from the choices listed: {name}"})

    def answer(self, method: str, path: str, query: dict[str, str], data: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of a request."""
        self.asked.append((method, path))
        parts = path.removeprefix("/api/v2/").strip("/").split("/")
        endpoint = parts[0]
        if endpoint not in (*KINDS, "unified_job_templates"):
            raise Wrong({"detail": "Not found."}, 404)
        if len(parts) == 1:
            if method == "GET":
                return 200, self.listed(endpoint, self.everything(endpoint), query, path)
            return 201, self.shown(self.add(endpoint, self.check(endpoint, data, None)))
        one = self.objects[endpoint].get(int(parts[1]))
        if one is None:
            raise Wrong({"detail": "Not found."}, 404)
        if len(parts) == 2:
            return self._one(method, endpoint, one, data)
        return self._below(method, endpoint, one, parts[2], query, data)

    def _one(self, method: str, endpoint: str, one: dict[str, Any], data: dict[str, Any]) -> tuple[int, Any]:
        if method == "PATCH":
            one.update(self.check(endpoint, data, one))
        elif method == "DELETE":
            self.remove(endpoint, one["id"])
            return 204, None
        return 200, self.shown(one)

    def _below(
        self, method: str, endpoint: str, one: dict[str, Any], name: str, query: dict[str, str], data: dict[str, Any]
    ) -> tuple[int, Any]:
        number = one["id"]
        if name == "survey_spec":
            if method == "POST":
                self.survey(data)
                self.surveys[one["url"]] = data
            return 200, self.surveys.get(one["url"], {})
        if name == "workflow_nodes":
            kind = "workflow_job_template_nodes"
            nodes = [node for node in self.everything(kind) if node["workflow_job_template"] == number]
            return 200, self.listed(kind, nodes, query, f"{one['url']}{name}/")
        if name == "create_approval_template":
            made = self.add("workflow_approval_templates", self.check("workflow_approval_templates", data, None))
            one["unified_job_template"] = made["id"]
            return 201, self.shown(made)
        target = KINDS[endpoint].associations.get(name)
        if target is None:
            raise Wrong({"detail": "Not found."}, 404)
        held = self.held.setdefault((endpoint, number, name), [])
        if method == "GET":
            return 200, self.listed(
                target, [self.objects[target][item] for item in held], query, f"{one['url']}{name}/"
            )
        if data["id"] not in self.objects[target]:
            raise Wrong({"id": ["Not found."]})
        if data.get("disassociate"):
            held.remove(data["id"])
        elif data["id"] not in held:
            held.append(data["id"])
        return 204, None


def handler(awx: Awx) -> Callable[..., BaseHTTPRequestHandler]:
    """Serves it."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            data = json.loads(self.rfile.read(size) or b"{}")
            place = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(place.query).items()}
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Wrong({"detail": "Authentication credentials were not provided."}, 401)
                status, body = awx.answer(self.command, place.path, query, data)
            except Wrong as wrong:
                status, body = wrong.status, wrong.fault
            raw = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("X-API-Product-Name", "AWX")
            self.send_header("X-API-Product-Version", "24.6.1")
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_DELETE = _do

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving(awx: Awx) -> Iterator[str]:
    """Its address, on this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(awx))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
