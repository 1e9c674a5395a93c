"""What an operator is shown of the endpoint."""

from __future__ import annotations

import json
import shlex

from heteroserve.gateway.haproxy import server_rows
from heteroserve.health.endpoint import cell_url, curl_line, targets

from python_plugins.modules.health.endpoint_status import out_of_use

PLAN = {
    "models": [{"name": "a", "chat": True}, {"name": "b", "chat": False}],
    "cells": [{"name": "a-0", "model": "a", "hosts": ["h1"], "address": "10.0.0.1", "ports": {"serve": 18000}}],
}


def test_every_cell_and_every_model_is_asked() -> None:
    usual = {"question": "q", "answer": "r"}
    found = targets(
        PLAN,
        "http://gw:8080",
        usual,
        {"b": [{"question": "1+1=", "answer": "2"}, {"question": "2+2=", "answer": "4"}]},
        True,
    )
    assert [(item.name, item.model, item.url, item.needs_key) for item in found] == [
        ("a-0", "a", "http://10.0.0.1:18000", False),
        ("endpoint", "a", "http://gw:8080", True),
        ("endpoint", "b", "http://gw:8080", True),
    ]
    assert [item.questions for item in found][1:] == [(("q", "r"),), (("1+1=", "2"), ("2+2=", "4"))]


def test_an_adapter_is_asked_wherever_its_model_is_and_any_answer_is_right() -> None:
    beside = [{"name": "a-sql", "kind": "adapter"}, {"name": "a+draft", "kind": "draft"}]
    plan = {**PLAN, "models": [{**PLAN["models"][0], "beside": beside}, PLAN["models"][1]]}  # type: ignore[dict-item]
    usual = {"question": "q", "answer": "r"}
    found = targets(plan, "http://gw:8080", usual, {}, False)
    assert [(item.name, item.model, item.questions) for item in found] == [
        ("a-0", "a", (("q", "r"),)),
        ("a-0", "a-sql", (("q", ""),)),
        ("endpoint", "a", (("q", "r"),)),
        ("endpoint", "a-sql", (("q", ""),)),
        ("endpoint", "b", (("q", "r"),)),
    ]
    known = targets(plan, None, usual, {"a-sql": [{"question": "rows?", "answer": "SELECT"}]}, False)
    assert known[1].questions == (("rows?", "SELECT"),)


def test_the_printed_command_can_be_pasted() -> None:
    words = shlex.split(curl_line("http://gw:8080", {"name": "a", "chat": True}, "What's up?", True))
    assert words[:3] == ["curl", "-s", "http://gw:8080/v1/chat/completions"]
    assert "Authorization: Bearer $API_KEY" in words
    assert json.loads(words[-1])["messages"][0]["content"] == "What's up?"


def test_the_gateways_view_is_read_from_its_statistics() -> None:
    text = "# pxname,svname,status,scur,stot\nmodel-0,a-0,UP,1,7\nmodel-0,BACKEND,UP,1,7\nendpoint,FRONTEND,OPEN,1,9\n"
    assert server_rows(text) == {
        "a-0": {"pxname": "model-0", "svname": "a-0", "status": "UP", "scur": "1", "stot": "7"}
    }


def test_a_cell_of_an_ipv6_host_is_asked_there() -> None:
    assert cell_url({"address": "fd00::7", "ports": {"serve": 18000}}) == "http://[fd00::7]:18000"


def test_a_drained_host_names_the_way_back() -> None:
    assert out_of_use(PLAN, ["a-0"]) == [
        "a-0: drained; ./heteroserve run playbooks/drain.yml -e drain_host=h1 -e drain_state=absent "
        "takes it into use again"
    ]
    assert out_of_use(PLAN, []) == []
