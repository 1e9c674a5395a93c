"""Reading what the CIS check looks at, and the table of its verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ...common.table import table
from .host import FAIL, PASS, UNKNOWN

WORST = (FAIL, UNKNOWN, PASS)


def arguments_of(words: Iterable[str]) -> dict[str, str]:
    """ "--name=value" to name and value; a bare "--name" is true, and of several the last one counts."""
    found = {}
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else "true"
    return found


def flatten(text: str) -> dict[str, str]:
    """The part of YAML that K3s writes its components' files in (block style, plain scalars), keys joined by dots.

    Hosts have no YAML parser for certain, and these files are a program's. A list becomes its items, joined by commas.
    """
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        if content.startswith("- "):
            key = ".".join(name for _, name in path)
            found[key] = ",".join(word for word in (found.get(key, ""), content[2:].strip("\"'")) if word)
            continue
        while path and path[-1][0] >= indent:
            path.pop()
        name, _, value = content.partition(":")
        path.append((indent, name.strip("\"'")))
        if value.strip():
            found[".".join(name for _, name in path)] = value.strip().strip("\"'")
    return found


def joined(hosts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line for each point: the worst verdict, its reason, and where it was given."""
    points: dict[str, dict[str, dict[str, Any]]] = {}
    for host, given in hosts.items():
        for check in given["checks"]:
            points.setdefault(check["id"], {})[host] = check
    lines = []
    for number in sorted(points, key=lambda text: [int(part) for part in text.split(".")]):
        verdicts = points[number]
        worst = next(word for word in WORST if any(check["verdict"] == word for check in verdicts.values()))
        at = [host for host, check in verdicts.items() if check["verdict"] == worst]
        lines.append({**verdicts[at[0]], "hosts": at, "judged": len(verdicts)})
    return lines


def report(lines: Iterable[Mapping[str, Any]]) -> str:
    """The table that an operator reads, with its sums."""
    rows, failed, counts = [], [], Counter[str]()
    for line in lines:
        counts[line["verdict"]] += 1
        where = "all" if len(line["hosts"]) == line["judged"] > 1 else ", ".join(line["hosts"])
        word = {PASS: "pass", FAIL: "FAIL", UNKNOWN: "-"}[line["verdict"]]
        rows.append([line["id"], line["text"], word, where, line["reason"]])
        if line["verdict"] == FAIL:
            failed.append(f"  {line['id']} {line['text']}: {line['reason']}")
    text = table(["POINT", "WHAT IS ASKED", "VERDICT", "WHERE", "REASON"], rows, right=set())
    sums = ", ".join(f"{counts[word]} {word}" for word in (PASS, FAIL, UNKNOWN))
    whole = ["", "  What fails:", *failed] if failed else []
    return "\n".join([text, *whole, "", f"  {sum(counts.values())} points: {sums} (-)"])
