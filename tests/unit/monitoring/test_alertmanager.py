"""Alertmanager's configuration: who is told, and where secrets stand."""

from __future__ import annotations

import json
from typing import Any

from heteroserve.monitoring import alertmanager, rules

RECEIVERS: list[dict[str, Any]] = [
    {
        "name": "pager", "type": "webhook", "url": "https://pager.example.com", "token": "s3cret-1",
        "severities": ["critical"],
    },
    {"name": "chat", "type": "slack", "channel": "#llm", "url_secret": "https://hooks.example.com/s3cret-2"},
    {
        "name": "mail", "type": "email", "to": "ops@example.com", "from": "hs@example.com", "smarthost": "mail:587",
        "username": "hs", "password": "s3cret-3",
    },
]  # fmt: skip
SETTINGS = alertmanager.Settings("/etc/m")


def test_secrets_stand_in_files_alone() -> None:
    found = alertmanager.configuration(RECEIVERS, SETTINGS)
    assert "s3cret" not in json.dumps(found)
    assert alertmanager.secret_files(RECEIVERS) == {
        "receiver-pager": "s3cret-1",
        "receiver-chat": "https://hooks.example.com/s3cret-2",
        "receiver-mail": "s3cret-3",
    }
    pager, chat, mail = found["receivers"][1:]
    http = pager["webhook_configs"][0]["http_config"]
    assert http == {"authorization": {"credentials_file": "/etc/m/receiver-pager"}}
    assert chat["slack_configs"][0]["api_url_file"] == "/etc/m/receiver-chat"
    assert mail["email_configs"][0]["auth_password_file"] == "/etc/m/receiver-mail"


def test_each_is_told_what_it_asks_for() -> None:
    routes = alertmanager.configuration(RECEIVERS, SETTINGS)["route"]["routes"]
    assert [(route["receiver"], route["matchers"]) for route in routes] == [
        ("pager", ['severity=~"critical"']),
        ("chat", ['severity=~"critical|warning"']),
        ("mail", ['severity=~"critical|warning"']),
    ]
    assert all(route["continue"] for route in routes)


def test_without_receivers_nobody_is_told() -> None:
    found = alertmanager.configuration([], SETTINGS)
    assert (found["route"]["receiver"], found["receivers"]) == ("nobody", [{"name": "nobody"}])


def test_what_cannot_work_is_refused() -> None:
    assert alertmanager.faults(RECEIVERS) == []
    assert "expected webhook, slack, email" in alertmanager.faults([{"name": "x", "type": "pigeon"}])[0]
    assert alertmanager.faults([{"name": "x", "type": "webhook"}]) == [
        "monitoring_receivers[0].url: missing; a receiver of type webhook needs it"
    ]
    assert "twice" in alertmanager.faults([RECEIVERS[0], RECEIVERS[0]])[0]


def test_causes_and_what_follows_are_alerts_that_exist() -> None:
    names = {alert.name for alert in rules.ALERTS}
    for cause, results, _ in alertmanager.INHIBIT:
        assert cause in names
        assert {result for result in results.split("|") if not result.endswith(".*")} <= names
