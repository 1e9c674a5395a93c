"""What has to be done to bring the cells that run to what the plan says, and in which order: pure decisions.

There is no spare hardware: a cell is updated in its own place, drained first. The order keeps every model answering as
long as there is a way, and nothing is taken down for a step that could not follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cluster.evidence import annotations_of, made_of
from ..common.names import SPEC
from ..plan.schema import Cell
from .names import CELL, MODEL, TAKES
from .resources import takes

Amounts = Mapping[str, Mapping[str, int]]  # host -> resource -> count


@dataclass(frozen=True)
class Wanted:
    """A cell as the plan wants it."""

    name: str
    model: str
    spec: str  # digest of all that a restart would carry out (the annotation heteroserve.io/spec)
    takes: Amounts = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A cell as the cluster has it."""

    name: str
    model: str
    spec: str  # of its pods: what really runs, also where an update was broken off
    answering: bool
    takes: Amounts = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One thing to do. Each is done, and its cell answers, before the next begins."""

    action: str  # "create" | "update" | "remove"
    cell: str
    model: str
    drain: bool  # whether requests may be on it
    last: bool = False  # nobody answers for the model meanwhile
    why: str = ""


@dataclass(frozen=True)
class Decision:
    """Steps in their order, cells that stay as they are, and what is not done and why."""

    steps: tuple[Step, ...] = ()
    unchanged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def wanted_cell(cell: Cell, service: dict[str, Any]) -> Wanted:
    """From the plan's cell and the RayService that was built for it."""
    return Wanted(cell.name, cell.model, service["metadata"]["annotations"][SPEC], takes(cell))


def running_cells(
    services: list[dict[str, Any]], clusters: list[dict[str, Any]], pods: list[dict[str, Any]], answering: set[str]
) -> tuple[Running, ...]:
    """From the API's RayServices, RayClusters and pods, and the names of the cells that answer."""
    made: dict[str, dict[str, str]] = {}
    for cluster in sorted(clusters, key=lambda one: str(one["metadata"].get("creationTimestamp", ""))):
        owner = cluster["metadata"].get("labels", {}).get(CELL)
        if owner and not cluster["metadata"].get("deletionTimestamp"):
            made[owner] = made_of(cluster, pods)
    found = []
    for service in services:
        name = service["metadata"]["name"]
        # The operator copies annotations when it makes the RayCluster. Where there is none yet, nothing runs that could
        # be outdated: what the RayService says is what will.
        says = made.get(name, annotations_of(service))
        takes_now = json.loads(says.get(TAKES, "{}"))
        found.append(Running(name, says.get(MODEL, ""), says.get(SPEC, ""), name in answering, takes_now))
    return tuple(found)


def decide(wanted: tuple[Wanted, ...], running: tuple[Running, ...]) -> Decision:
    """Create, update and remove, in an order that never takes a model's last answering cell down while another way is.

    A step goes before others when it takes nothing down, and has room: creating, or updating what does not answer. Then
    what can be updated or removed while others answer for the model. Only then the rest, marked ``last``. The last
    answering cell is not touched where the model has other cells that should answer and do not: repair them first,
    or a step that fails would leave nobody; so whoever calls this has waited for cells that are only starting. A step
    waits for every other that gives back something of what it needs.
    """
    goal = {cell.name: cell for cell in wanted}
    now = {cell.name: cell for cell in running}
    unchanged = tuple(cell.name for cell in wanted if cell.name in now and now[cell.name].spec == cell.spec)
    todo = {name for name in goal.keys() | now.keys() if name not in unchanged}
    board = _Board(goal, dict(now), todo)
    steps: list[Step] = []
    refused: list[str] = []
    while board.todo:
        name = board.best()
        fault = board.refusal(name, unchanged)
        if fault:
            refused.append(fault)
            board.todo.discard(name)
            board.left.add(name)
            continue
        steps.append(board.do(name))
    return Decision(tuple(steps), unchanged, tuple(refused))


@dataclass
class _Board:
    """The cluster as it will be after the steps taken so far."""

    goal: Mapping[str, Wanted]
    now: dict[str, Running]
    todo: set[str]
    left: set[str] = field(default_factory=set)  # refused: they keep what they have

    def action(self, name: str) -> str:
        if name not in self.goal:
            return "remove"
        return "update" if name in self.now else "create"

    def best(self) -> str:
        """The step to take next: the first rank that has any, by name within it."""
        ranks: tuple[Callable[[str], bool], ...] = (
            lambda name: self.takes_nothing_down(name) and self.has_room(name),
            # What is removed in the end answers until then, while others are updated.
            lambda name: self.action(name) == "update" and not self.is_last(name) and self.has_room(name),
            lambda name: not self.is_last(name) and self.has_room(name),
            # From here on a model is without an answer for a while, or a step waits for another one's hardware.
            lambda name: self.has_room(name),
            lambda name: self.action(name) == "remove",
            lambda name: True,
        )
        return next(name for rank in ranks for name in sorted(self.todo) if rank(name))

    def takes_nothing_down(self, name: str) -> bool:
        return name not in self.now or not self.now[name].answering

    def is_last(self, name: str) -> bool:
        """Whether nobody answers for a model that is wanted once this cell is taken down."""
        if self.takes_nothing_down(name):
            return False
        model = self.now[name].model
        if all(cell.model != model for cell in self.goal.values()):
            return False
        return not any(cell.answering for cell in self.now.values() if cell.model == model and cell.name != name)

    def has_room(self, name: str) -> bool:
        """Whether nothing that the step needs is still held by a cell that will give it back."""
        return not self.holders(name)

    def holders(self, name: str) -> set[str]:
        """Cells whose own step gives back what this one needs beyond what its cell has."""
        if name not in self.goal:
            return set()
        own = self.now[name].takes if name in self.now else {}
        more = _less(self.goal[name].takes, own)
        return {other for other in (self.todo | self.left) - {name} if more.keys() & self.freed(other)}

    def freed(self, name: str) -> set[tuple[str, str]]:
        """What a step that is still to be done gives back."""
        if name not in self.now:
            return set()
        later = self.goal[name].takes if name in self.goal else {}
        return set(_less(self.now[name].takes, later))

    def refusal(self, name: str, unchanged: tuple[str, ...]) -> str:
        """Why a step is not taken; "" if it is."""
        holders = self.holders(name)
        if holders and not holders - self.left:
            return f"{name} waits for hardware of {', '.join(sorted(holders))}, which is left as it is"
        if not self.is_last(name):
            return ""
        model = self.now[name].model
        silent = sorted(cell for cell in unchanged if self.now[cell].model == model and not self.now[cell].answering)
        if not silent:
            return ""
        others, them = ("does not", "it") if len(silent) == 1 else ("do not", "those")
        return (
            f"{name} is the only cell of {model} that answers and is left as it is, because {', '.join(silent)} should"
            f" answer too and {others}: repair {them} first"
        )

    def do(self, name: str) -> Step:
        """Take a step and note what it makes of the cluster."""
        action, drain, last = self.action(name), not self.takes_nothing_down(name), self.is_last(name)
        model = self.goal[name].model if name in self.goal else self.now[name].model
        why = {
            "create": "the plan has it and the cluster has not",
            "update": "what runs is not what the plan says",
            "remove": "the plan has it no more",
        }[action]
        self.todo.discard(name)
        self.now.pop(name, None)
        if name in self.goal:
            cell = self.goal[name]
            self.now[name] = Running(name, cell.model, cell.spec, True, cell.takes)
        return Step(action, name, model, drain, last, why)


def _less(these: Amounts, those: Amounts) -> dict[tuple[str, str], int]:
    """By how much more the first is than the second, where it is."""
    found = {}
    for host, own in these.items():
        for resource, count in own.items():
            more = count - those.get(host, {}).get(resource, 0)
            if more > 0:
                found[host, resource] = more
    return found
