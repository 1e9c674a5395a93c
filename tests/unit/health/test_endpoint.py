"""What an operator is shown of the endpoint."""

from __future__ import annotations

import json
import shlex

from heteroserve.gateway.haproxy import server_rows
from heteroserve.health.endpoint import curl_line, targets

PLAN = {
    "models": [{"name": "a", "chat": True}, {"name": "b", "chat": False}],
    "cells": [{"name": "a-0", "model": "a", "hosts": ["h1"], "address": "10.0.0.1", "ports": {"serve": 18000}}],
}


def test_every_cell_and_every_model_is_asked() -> None:
    usual = {"question": "q", "answer": "r"}
    found = targets(PLAN, "http://gw:8080", usual, {"b": {"question": "1+1=", "answer": "2"}}, True)
    assert [(item.name, item.model, item.url, item.needs_key) for item in found] == [
        ("a-0", "a", "http://10.0.0.1:18000", False),
        ("endpoint", "a", "http://gw:8080", True),
        ("endpoint", "b", "http://gw:8080", True),
    ]
    assert [item.question for item in found] == ["q", "q", "1+1="]


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
