"""What an operator is shown of the endpoint."""

from __future__ import annotations

import json
import shlex
import threading
from typing import Any

from heteroserve.gateway.haproxy import server_rows
from heteroserve.health.endpoint import Target, cell_url, curl_line, targets

from python_plugins.modules.health.endpoint_health import check_all
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


def test_cells_are_asked_side_by_side_and_the_endpoint_after_them() -> None:
    cells = [{**PLAN["cells"][0], "name": f"a-{i}", "ports": {"serve": 18000 + i}} for i in range(3)]
    chosen = targets({**PLAN, "cells": cells}, "http://gateway:8080", {"question": "q", "answer": "r"}, {}, False)
    together, asked = threading.Barrier(3), []

    def ask_one(target: Target) -> dict[str, Any]:
        if target.name != "endpoint":
            together.wait(timeout=30)  # broken unless all three are being asked
        asked.append(target.name)
        return {"name": target.name, "model": target.model}

    done = check_all(chosen, "http://gateway:8080", ask_one)
    assert [item["name"] for item in done] == ["a-0", "a-1", "a-2", "endpoint", "endpoint"]
    assert asked[3:] == ["endpoint", "endpoint"]
