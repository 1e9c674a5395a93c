"""A number that is typed with ``-e`` is text: roles make numbers of their options where they calculate with them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
OPERATOR = r"(?:\*{1,2}|/{1,2}|\+|-|%|<=?|>=?)"
TEMPLATED = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|^\s*(?:when|that|- )[^{]*$", re.DOTALL | re.MULTILINE)


def numbers() -> list[str]:
    """Options of roles whose type is a number."""
    found = {"gateway_port", "gateway_stats_port", "cell_port_base"}  # of the inventory
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for spec in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= {name for name, option in spec.get("options", {}).items() if option["type"] in ("int", "float")}
    return sorted(found)


def calculated_with(text: str, name: str) -> list[str]:
    """Places where something is calculated with an option as it was typed."""
    number = rf"\b{name}\b(?! *\| *(?:int|float)\b)"
    wrong = re.compile(rf"{number} *{OPERATOR} *[\w(]|[\w)] *(?<!-){OPERATOR} *{number}")
    return [part for part in TEMPLATED.findall(text) if wrong.search(part)]


def test_options_are_numbers_where_they_are_calculated_with() -> None:
    known, found = numbers(), []
    for path in sorted(ROOT.glob("roles/*/*/*")):
        if path.suffix in (".yml", ".j2") and path.parent.name in ("tasks", "templates", "vars"):
            text = path.read_text()
            used = [name for name in known if name in text]
            found += [f"{path.relative_to(ROOT)}: {part}" for name in used for part in calculated_with(text, name)]
    assert found == []


def test_what_is_wrong_is_found() -> None:
    assert calculated_with("{{ gateway_port + 1 }}", "gateway_port")
    assert calculated_with("{% if 1024 > gateway_port %}", "gateway_port")
    assert calculated_with("{{ x_mib * 1048576 }}", "x_mib")
    assert not calculated_with("{{ gateway_port | int + 1 }}", "gateway_port")
    assert not calculated_with("{{ 'http://' ~ gateway_port }}", "gateway_port")
