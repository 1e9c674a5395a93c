"""What HAProxy says on its master's socket, and what it reads when it starts. Pure functions over text.

Management guide of HAProxy 2.6: "show proc", "show servers state", "show stat" (section 9.1 for its columns).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace

STOPPED = 0  # operational state of a server whose check fails
MAINTENANCE, DRAIN = 0x01, 0x08  # administrative states that an operator sets
HEAD = "1\n"  # version of the file of states


@dataclass(frozen=True)
class Server:
    """A cell as a worker of HAProxy sees it. ``fields`` are its line of ``show servers state``."""

    backend: str
    name: str
    up: bool
    drained: bool
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A cell as all workers together see it."""

    up: bool
    drained: bool
    sessions: int  # requests that it answers, and that wait for it


def workers(shown: str) -> tuple[int, ...]:
    """Processes of ``show proc`` that answer requests: the present worker, then those that a reload left behind.

    Columns differ between versions; the process and its kind are always the first two.
    """
    found: dict[str, list[int]] = {"# workers": [], "# old workers": []}
    section = ""
    for line in shown.splitlines():
        words = line.split()
        if line.startswith("#"):
            section = line.strip()
        elif section in found and len(words) > 1 and words[1] == "worker":
            found[section].append(int(words[0]))
    return tuple(found["# workers"] + found["# old workers"])


def servers(shown: str) -> dict[str, Server]:
    """Servers of ``show servers state`` by their name."""
    found = {}
    names: list[str] = []
    for line in shown.splitlines():
        if line.startswith("# "):
            names = line[2:].split()
        elif len(fields := line.split()) > 1 and len(fields) == len(names):
            row = dict(zip(names, fields, strict=True))
            admin = int(row["srv_admin_state"])
            found[row["srv_name"]] = Server(
                row["be_name"],
                row["srv_name"],
                int(row["srv_op_state"]) != STOPPED,
                bool(admin & (MAINTENANCE | DRAIN)),
                tuple(fields),
            )
    return found


def sessions(shown: str) -> dict[str, int]:
    """Requests that each server of ``show stat`` answers, and those that wait for it."""
    rows = csv.DictReader(shown.lstrip("# \n").splitlines())
    return {
        row["svname"]: int(row["scur"] or 0) + int(row["qcur"] or 0)
        for row in rows
        if row["svname"] not in ("FRONTEND", "BACKEND")
    }


def cells(known: dict[str, Server], running: list[dict[str, int]]) -> dict[str, Cell]:
    """The present worker's servers, with the requests of all workers."""
    return {
        name: Cell(server.up, server.drained, sum(each.get(name, 0) for each in running))
        for name, server in known.items()
    }


def answering(found: dict[str, Cell]) -> list[str]:
    """Cells that are given requests."""
    return sorted(name for name, cell in found.items() if cell.up and not cell.drained)


def left_alone(leaving: list[str], found: dict[str, Cell], models: dict[str, str]) -> list[str]:
    """A sentence for each model that a cell of ``leaving`` answers for, and no other cell."""
    staying = {models.get(name) for name in answering(found) if name not in leaving}
    lost: dict[str, list[str]] = {}
    for name in answering(found):
        if name in leaving and name in models and models[name] not in staying:
            lost.setdefault(models[name], []).append(name)
    return [
        f"{', '.join(names)} {'is the only cell' if len(names) == 1 else 'are the only cells'} that"
        f" {'answers' if len(names) == 1 else 'answer'} for {model}"
        for model, names in sorted(lost.items())
    ]


def kept(known: dict[str, Server], ports: dict[str, int]) -> str:
    """File of states from which HAProxy learns at its start which cells are drained.

    Only these are in it, so that an old file is no harm to others. HAProxy takes address and port from the file rather
    than from its configuration: the address is left out, the port is the one that the configuration gives now.
    """
    lines = []
    for name, server in sorted(known.items()):
        if server.drained:
            fields = list(server.fields[:20])
            fields[0] = fields[2] = "0"  # numbers of backend and server, which are known by their names
            fields[4], fields[6], fields[9] = "-", str(DRAIN), "0"  # address, administrative state, seconds in it
            fields[18] = str(ports.get(name, fields[18]))
            lines.append(" ".join(fields) + "\n")
    return HEAD + "".join(lines)


def read_kept(text: str) -> dict[str, Server]:
    """The servers of such a file, for a HAProxy that does not run."""
    rows = [tuple(line.split()) for line in text.splitlines()[1:]]
    return {row[3]: Server(row[1], row[3], False, True, row) for row in rows if len(row) == 20}


def with_state(known: dict[str, Server], names: list[str], drained: bool) -> dict[str, Server]:
    """The same servers, some of them drained, or not."""
    return {name: replace(item, drained=drained) if name in names else item for name, item in known.items()}


def server_rows(statistics: str) -> dict[str, dict[str, str]]:
    """HAProxy's view of each cell, from its statistics in CSV (management guide, section 9.1)."""
    lines = statistics.lstrip("# ").splitlines()
    return {
        row["svname"]: row
        for row in csv.DictReader(lines)
        if row["svname"] not in ("FRONTEND", "BACKEND") and row["pxname"].startswith("model-")
    }
