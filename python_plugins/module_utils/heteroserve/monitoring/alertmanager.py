"""Alertmanager's configuration from the receivers of the inventory. Secrets stand in files of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = {  # type -> keys that it needs
    "webhook": ("url",),
    "slack": ("url_secret", "channel"),
    "email": ("to", "from", "smarthost"),
}
SECRETS = {"webhook": "token", "slack": "url_secret", "email": "password"}  # key that holds the secret
# One alert tells it; those that follow from it are not sent.
INHIBIT = (
    ("EndpointDown", "ModelDown|CellDown|NoAnswer|ErrorRate|ErrorBudgetBurns.*", ()),
    ("HostDown", "CellDown|GpuLost|TargetDown|K3sDown|NoAnswer", ("host",)),
    ("ModelDown", "CellDown|NoAnswer", ("model",)),
    ("CellDown", "NoAnswer|TargetDown", ("cell",)),
    ("ErrorBudgetBurnsFast", "ErrorBudgetBurns|ErrorRate", ()),
)


@dataclass(frozen=True)
class Settings:
    """What the configuration depends on beside the receivers."""

    folder: str  # with the secrets
    group_wait_s: int = 30
    repeat_s: int = 4 * 3600


def faults(receivers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What cannot work, each with what to set."""
    found = []
    names: set[str] = set()
    for number, receiver in enumerate(receivers):
        where = f"monitoring_receivers[{number}]"
        kind = str(receiver.get("type"))
        if kind not in TYPES:
            found.append(f"{where}.type: found {kind!r}, expected {', '.join(TYPES)}")
            continue
        found += [
            f"{where}.{key}: missing; a receiver of type {kind} needs it"
            for key in TYPES[kind]
            if not receiver.get(key)
        ]
        if receiver["name"] in names:
            found.append(f"{where}.name: {receiver['name']!r} is there twice; give each its own name")
        names.add(receiver["name"])
    return found


def secret_files(receivers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name of each secret's file, with the secret."""
    return {
        _file(receiver): str(receiver[SECRETS[receiver["type"]]])
        for receiver in receivers
        if receiver.get(SECRETS[receiver["type"]])
    }


def configuration(receivers: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """The file alertmanager.yml. Every receiver is told everything, or the severities that it names."""
    routes = [
        {"receiver": receiver["name"], "matchers": [f'severity=~"{_severities(receiver)}"'], "continue": True}
        for receiver in receivers
    ]
    return {
        "route": {
            "receiver": "nobody",
            "group_by": ["alertname", "model"],
            "group_wait": f"{settings.group_wait_s}s",
            "group_interval": f"{max(settings.group_wait_s * 2, 5)}s",
            "repeat_interval": f"{settings.repeat_s}s",
            "routes": routes,
        },
        "inhibit_rules": [
            {
                "source_matchers": [f'alertname="{cause}"'],
                "target_matchers": [f'alertname=~"{results}"'],
                "equal": list(same),
            }
            for cause, results, same in INHIBIT
        ],
        "receivers": [{"name": "nobody"}, *(_receiver(receiver, settings.folder) for receiver in receivers)],
    }


def _severities(receiver: Mapping[str, Any]) -> str:
    return "|".join(receiver.get("severities") or ("critical", "warning"))


def _file(receiver: Mapping[str, Any]) -> str:
    return f"receiver-{receiver['name']}"


def _receiver(receiver: Mapping[str, Any], folder: str) -> dict[str, Any]:
    kind, secret = receiver["type"], f"{folder}/{_file(receiver)}"
    has_secret = bool(receiver.get(SECRETS[kind]))
    if kind == "webhook":
        http = {"http_config": {"authorization": {"credentials_file": secret}}} if has_secret else {}
        return {"name": receiver["name"], "webhook_configs": [{"url": receiver["url"], "send_resolved": True, **http}]}
    if kind == "slack":
        text = "{{ range .Alerts }}{{ .Annotations.summary }} {{ .Annotations.runbook_url }}\n{{ end }}"
        config = {"api_url_file": secret, "channel": receiver["channel"], "send_resolved": True, "text": text}
        return {"name": receiver["name"], "slack_configs": [config]}
    config = {key: receiver[key] for key in ("to", "from", "smarthost")}
    if receiver.get("username"):
        config["auth_username"] = receiver["username"]
    if has_secret:
        config["auth_password_file"] = secret
    if receiver.get("require_tls") is False:
        config["require_tls"] = False
    return {"name": receiver["name"], "email_configs": [{**config, "send_resolved": True}]}
