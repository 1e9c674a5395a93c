"""Why a cell of the runtime ray does not answer: one sentence with its evidence and what to do.

The counterpart of ``diagnosis`` for processes that supervisord keeps alive. Causes stand before their effects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .ray_serve import explain, verdict

_ENDED = re.compile(r"^(\S+ [\d:]+)\S* \w+ exited: (\S+) \((.*); not expected\)", re.MULTILINE)
START = "./heteroserve up starts what is missing"


@dataclass(frozen=True)
class Seen:
    """What the host shows of one cell. Memory in bytes, logs as their last lines."""

    cell: str
    process: str  # supervisord's words for its Ray, such as "RUNNING pid 7"; "" where supervisord does not answer
    details: dict[str, Any] | None  # of Serve's REST API
    fault: str  # why there are no details
    process_log: str
    log: str  # of replicas and engines
    memory_available: int
    memory_needed: int


def programs(printed: str) -> dict[str, str]:
    """Programs by name with their state, as ``supervisorctl status`` prints them; none where it cannot ask."""
    rows = [line.split(None, 1) for line in printed.splitlines()]
    states = ("RUNNING", "STARTING", "STOPPED", "STOPPING", "BACKOFF", "EXITED", "FATAL", "UNKNOWN")
    return {row[0]: " ".join(row[1].split()) for row in rows if len(row) == 2 and row[1].startswith(states)}


def finding(seen: Seen) -> str:
    """What is the matter with a cell; "" if Serve calls it running."""
    memory = (seen.memory_available, seen.memory_needed)
    if not seen.process:
        return f"{seen.cell}: supervisord does not run, nor what it keeps alive (was the host restarted?); {START}"
    if seen.process.startswith("STOPPED"):
        return f"{seen.cell}: its Ray was stopped through supervisord ({seen.process}); {START}"
    if not seen.process.startswith("RUNNING"):
        return explain(f"{seen.cell}: its Ray does not stay up ({seen.process})", seen.process_log, *memory)
    if seen.details is None:
        return explain(f"{seen.cell}: Ray does not answer: {seen.fault}", seen.process_log, *memory)
    said = verdict(seen.details, seen.cell)
    return "" if said.ok else explain(f"{seen.cell}: {said.text}", f"{seen.log}\n{said.detail}", *memory)


def unexpected_ends(log: str) -> list[str]:
    """Programs that ended although nobody told them to, from supervisord's log: how often, when last, and how."""
    found: dict[str, list[tuple[str, str]]] = {}
    for when, name, how in _ENDED.findall(log):
        found.setdefault(name, []).append((when, how))
    lines = []
    for name, ends in sorted(found.items()):
        times, (when, how) = f"{len(ends)} time{'s' if len(ends) > 1 else ''}", ends[-1]
        why = "; the kernel may have ended it for want of memory" if "SIGKILL" in how else ""
        lines.append(f"{name}: ended {times} by itself and was started again, last at {when} ({how}{why})")
    return lines
