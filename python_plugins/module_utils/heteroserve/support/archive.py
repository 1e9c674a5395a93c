"""The archive for somebody who helps: its bounds, its findings in words and its index. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common.table import table

# What most questions need, in the order in which it is read.
KNOWN = {
    "findings.md": "what is wrong, in words",
    "status.txt": "the table of ./heteroserve status",
    "plan.json": "which cell runs where, with its ports and limits, and why",
    "health.json": "the last known-answer check",
    "inventory.json": "variables as they are written, by group and host",
    "facts.json": "hardware of each host, as the plan was made from it",
    "commit.txt": "the commit of the project, and in changes.txt what differs from it",
    "cluster/": "the cluster's API: nodes, pods, events, RayServices, logs of cells and the operator",
    "hosts/": "of each host: logs, versions, and what its own commands say",
}


@dataclass(frozen=True)
class Part:
    """What was collected of one host. ``fault`` says why nothing, or not all, could be."""

    host: str
    files: dict[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    fault: str = ""


def bounded(files: Mapping[str, str], limit: int) -> tuple[dict[str, str], list[str]]:
    """Files of ``limit`` characters together, and the names of those that were cut: the longest, to the same length.

    The end stays, because that is where a log says why something ended.
    """
    left, cap = limit, limit
    for number, text in enumerate(sorted(files.values(), key=len)):
        cap = left // (len(files) - number)
        if len(text) > cap:
            break
        left -= len(text)
    else:
        return dict(files), []
    cut = [name for name, text in files.items() if len(text) > cap]
    return {
        name: text[-cap:] if name in cut and cap else "" if name in cut else text for name, text in files.items()
    }, cut


def of_hosts(parts: Sequence[Part], facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with hosts: those that were not reached, then what the facts say of drivers, GPUs and networks."""
    found = [f"{part.host} could not be read: {part.fault}" for part in parts if part.fault]
    for host, hardware in sorted(facts.items()):
        found += [
            f"{host}: {problem.get('text', '')}; {problem.get('fix', '')}".rstrip("; ")
            for problem in hardware.get("problems") or ()
        ]
    return found


def of_status(status: Mapping[str, Any]) -> list[str]:
    """What ``endpoint_status`` found wrong; that it was not asked, where it was not."""
    if not status:
        return ["the gateway's host could not be asked what it sees of the cells, or there is no plan yet"]
    return [str(text) for text in status.get("faults") or ()]


def of_health(health: Mapping[str, Any]) -> list[str]:
    """What the last known-answer check found wrong."""
    return [
        f"{check['name']}: asked for {check['model']}, {check['reason']}"
        for check in health.get("checks") or ()
        if not check["ok"]
    ]


def findings(chapters: Mapping[str, Sequence[str]]) -> str:
    """What is wrong as a page, the causes first; a chapter without findings says so."""
    lines = ["# Findings", ""]
    for title, found in chapters.items():
        lines += [f"## {title}", "", *([f"- {' '.join(text.split())}" for text in found] or ["Nothing."]), ""]
    return "\n".join(lines)


def index(about: Mapping[str, str], files: Mapping[str, str], cut: Sequence[str], removed: int) -> str:
    """The first page: of what this is, what each file holds, what was left out."""
    width = max(map(len, about))
    rows = [[name, f"{len(text.encode()):,}", "its end only" if name in cut else ""] for name, text in files.items()]
    present = {name: what for name, what in KNOWN.items() if any(file.startswith(name) for file in files)}
    return "\n".join(
        [
            "# What is in here",
            "",
            "Begin with findings.md.",
            "",
            *(f"    {name:<{width}}  {text}" for name, text in about.items()),
            "",
            *(f"- `{name}`: {what}" for name, what in present.items()),
            "",
            f"Secrets were removed in {removed} places, where `[removed]` stands: values that this installation keeps",
            "or is given, and all that has the shape of a token, a key or a password. Names of hosts and models, and",
            "addresses, are still there.",
            "",
            "```",
            table(["FILE", "BYTES", "CUT"], rows, right={1}),
            "```",
            "",
        ]
    )
