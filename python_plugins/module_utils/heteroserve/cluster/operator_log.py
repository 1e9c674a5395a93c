"""What the operator's log has against a cell: the reasons in KubeRay's texts, and its log's lines as they come."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

# Of these KubeRay's next pass takes care, in every start: a cache that lags behind, and two writers of one object.
PASSING = re.compile(r"the object has been modified|already exists|found 0 head|pods \"[^\"]+\" not found")
# A pass that says this has read Serve's status, so what was in the way before is over.
REACHED = "checkIfNeedSubmitServeApplications"
KEPT = 20  # complaints about one object


def reason(text: str) -> str:
    """The reason in a text of KubeRay's, which may put some 300 characters of advice and ``err: `` before it."""
    return " ".join((text.rpartition("err: ")[2].strip() or text).split())


def last_word(log: str) -> str:
    """The last error that a log in zap's JSON tells of, with what was being done; "" if there is none."""
    for line in reversed(log.splitlines()):
        found = _document(line)
        if found and isinstance(found.get("error"), str):
            return f"{found.get('msg', '')}: {reason(found['error'])}"
    return ""


@dataclass(frozen=True)
class Record:
    """A line of the operator's log that is about a RayService or RayCluster."""

    at: str  # time as the log writes it: as text it sorts like a time
    namespace: str
    name: str
    message: str
    error: str  # "" if it tells of none


def record(line: str) -> Record | None:
    """A line as zap writes it; None if it is not JSON or not about a RayService or RayCluster."""
    found = _document(line) or {}
    about = next((found[kind] for kind in ("RayService", "RayCluster") if kind in found), None)
    if not isinstance(about, dict):
        return None
    error = found.get("error")
    return Record(
        at=str(found.get("ts", "")),
        namespace=str(about.get("namespace", "")),
        name=str(about.get("name", "")),
        message=str(found.get("msg", "")),
        error=error if isinstance(error, str) else "",
    )


@dataclass
class OperatorLog:
    """The log as far as it was read, kept as what it has against each object.

    Many cells write some 3.5 lines a second each, so it is read in pieces, each line once, and never as a number of
    last lines.
    """

    namespace: str  # of the cells
    _said: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # object -> times and reasons
    _until: dict[str, str] = field(default_factory=dict)  # source -> time of its last line

    def feed(self, source: str, text: str) -> None:
        """Take a piece of one pod's log. It may overlap with earlier ones of the same source."""
        last = self._until.get(source, "")
        for line in text.splitlines():
            found = record(line)
            if found is None or found.at < last or found.namespace != self.namespace:
                continue
            self._until[source] = found.at
            known = self._said.setdefault(found.name, [])
            if found.message == REACHED:
                known.clear()
            elif found.error and not PASSING.search(found.error) and (found.at, reason(found.error)) not in known:
                known.append((found.at, reason(found.error)))
                del known[:-KEPT]

    def of(self, names: set[str]) -> tuple[str, ...]:
        """What it has against the objects of one cell, the newest last."""
        return tuple(said for _, said in sorted(one for name in names for one in self._said.get(name, ())))


def _document(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
