"""Which replica goes where: `min_replicas` first, then max-min fairness over `share`, on the tightest host that fits.

A model's level is the hardware it has (memory bandwidth of its accelerators, for that is what generation runs
on) divided by its share. The next replica goes to the model with the lowest level that still fits
somewhere, so two models end at most one replica apart unless memory, wishes or `max_replicas` stop one of them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, field

from ..inventory.models import ModelRequest
from .bays import Bay, HostShape
from .fit import Fit
from .memory import Wanted
from .schema import Placement

ALMOST = 0.8  # of the best score: good enough not to spread a model over one more kind of accelerator
Signature = tuple[tuple[int, ...], int]


@dataclass(eq=False)
class HostState:
    """What is still free on a host."""

    name: str
    order: int
    shape: HostShape
    free: list[list[int]]  # indices, a list a bay
    ram: int

    @property
    def signature(self) -> Signature:
        """Hosts of one shape with equal signatures are interchangeable."""
        return tuple(len(indices) for indices in self.free), self.ram


@dataclass(eq=False)
class Replica:
    """A fit that was given its host and indices; ``cell`` is the kept cell's name where it stays where it was."""

    fit: Fit
    hosts: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]
    sequence: int
    cell: str | None = None
    placement: Placement | None = None


@dataclass
class Board:
    """The state of an allocation: hosts in buckets of equal state, and the replicas placed so far."""

    states: dict[str, HostState]
    replicas: dict[str, list[Replica]] = field(default_factory=lambda: defaultdict(list))
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    open_host: dict[tuple[str, str, str, int, int], str] = field(default_factory=dict)
    carrying: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    buckets: dict[int, dict[Signature, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    names: list[str] = field(default_factory=list)
    placed: int = 0

    def __post_init__(self) -> None:
        self.names = [state.name for state in sorted(self.states.values(), key=lambda state: state.order)]
        for state in self.states.values():
            self.file(state)

    def file(self, state: HostState) -> None:
        """Put a host into the bucket of its state; older entries of it are skipped when met."""
        heapq.heappush(self.buckets[id(state.shape)].setdefault(state.signature, []), state.order)

    def find(self, shape: HostShape, fit: Fit, avoid: dict[str, int]) -> HostState | None:
        """The tightest host of a shape that holds one more replica, by preference one not in ``avoid``."""
        again: HostState | None = None
        buckets = self.buckets[id(shape)]
        ram = fit.limits.host_memory_bytes
        order = sorted(
            (
                signature
                for signature in buckets
                if signature[0][fit.bay] >= fit.tensor_parallel_size and signature[1] >= ram
            ),
            key=lambda signature: (signature[0][fit.bay], signature),
        )
        for signature in order:
            for state in self._in_bucket(buckets, signature, len(avoid) + 1):
                if pick(shape.bays[fit.bay], state.free[fit.bay], fit.tensor_parallel_size) is None:
                    break  # equal hosts with as many free indices are as fragmented
                if state.name not in avoid:
                    return state
                again = again or state
        return again

    def _in_bucket(self, buckets: dict[Signature, list[int]], signature: Signature, most: int) -> list[HostState]:
        """Up to ``most`` hosts of a bucket in order; entries of hosts that have moved on are dropped."""
        heap = buckets[signature]
        found: list[HostState] = []
        while heap and len(found) < most:
            state = self.states[self.names[heapq.heappop(heap)]]
            if state.signature == signature and state not in found:
                found.append(state)
        for state in found:
            heapq.heappush(heap, state.order)
        if not heap:
            del buckets[signature]
        return found

    def room(self, shape: HostShape, fit: Fit) -> list[HostState] | None:
        """Hosts for one more replica of a fit, or None. A second replica goes to a second host where it can."""
        if fit.stages > 1:
            return self._whole_hosts(shape, fit)
        carrying = self.carrying[fit.model]
        spread = carrying if len(carrying) == 1 else {}
        if not spread:
            name = self.open_host.get(fit.pool)
            state = self.states.get(name) if name else None
            if state is not None and state.shape is shape and self._holds(state, fit):
                return [state]
        found = self.find(shape, fit, spread)
        return None if found is None else [found]

    def _holds(self, state: HostState, fit: Fit) -> bool:
        bay = state.shape.bays[fit.bay]
        if state.ram < fit.limits.host_memory_bytes:
            return False
        return pick(bay, state.free[fit.bay], fit.tensor_parallel_size) is not None

    def _whole_hosts(self, shape: HostShape, fit: Fit) -> list[HostState] | None:
        ram = fit.limits.host_memory_bytes // fit.stages
        found: list[HostState] = []
        for signature in sorted(self.buckets[id(shape)]):
            if signature[0][fit.bay] >= fit.tensor_parallel_size and signature[1] >= ram:
                found += self._in_bucket(self.buckets[id(shape)], signature, fit.stages)
        found.sort(key=lambda state: state.order)
        return found[: fit.stages] if len(found) >= fit.stages else None

    def take(
        self,
        fit: Fit,
        states: list[HostState],
        indices: tuple[tuple[int, ...], ...] | None = None,
        cell: str | None = None,
    ) -> Replica:
        """Give a replica its hosts; ``indices`` are given for one that stays where it was."""
        chosen: list[tuple[int, ...]] = []
        for number, state in enumerate(states):
            bay = state.shape.bays[fit.bay]
            own = indices[number] if indices else pick(bay, state.free[fit.bay], fit.tensor_parallel_size)
            assert own is not None, "room() was asked before"
            chosen.append(own)
        replica = Replica(fit, tuple(state.name for state in states), tuple(chosen), self.placed, cell)
        self.placed += 1
        self.put(replica)
        return replica

    def put(self, replica: Replica) -> None:
        """Take a replica's hosts and indices out of what is free."""
        fit = replica.fit
        for name, own in zip(replica.hosts, replica.indices, strict=True):
            state = self.states[name]
            state.free[fit.bay] = [index for index in state.free[fit.bay] if index not in own]
            state.ram -= fit.limits.host_memory_bytes // fit.stages
            self.carrying[fit.model][name] += 1
            self.file(state)
        self.replicas[fit.model].append(replica)
        self.used[fit.model] += fit.capacity
        self.open_host[fit.pool] = replica.hosts[0]

    def give_back(self, replica: Replica) -> None:
        """Undo ``put``."""
        fit = replica.fit
        for name, indices in zip(replica.hosts, replica.indices, strict=True):
            state = self.states[name]
            state.free[fit.bay] = sorted([*state.free[fit.bay], *indices])
            state.ram += fit.limits.host_memory_bytes // fit.stages
            carrying = self.carrying[fit.model]
            carrying[name] -= 1
            if not carrying[name]:
                del carrying[name]
            self.file(state)
        self.replicas[fit.model].remove(replica)
        self.used[fit.model] -= fit.capacity


def pick(bay: Bay, free: list[int], size: int) -> tuple[int, ...] | None:
    """Indices for a replica: within one island where islands are large enough, else across them."""
    if len(free) < size:
        return None
    if len(bay.islands) == 1 or (size == 1 and len(bay.islands) == len(bay.indices)):
        return tuple(free[:size])
    members = [[index for index in island if index in free] for island in bay.islands]
    if size <= max(len(island) for island in bay.islands):
        enough = [island for island in members if len(island) >= size]
        return tuple(min(enough, key=lambda island: (len(island), island))[:size]) if enough else None
    members.sort(key=lambda island: (-len(island), island))
    return tuple(sorted([index for island in members for index in island][:size]))


Options = dict[str, list[tuple[HostShape, Fit]]]  # a model's fits over all host shapes, best score first


def place_next(board: Board, options: list[tuple[HostShape, Fit]]) -> Replica | None:
    """One more replica by the best fit that has room, or by one almost as good in a pool that the model already has.

    Fits without room are dropped from ``options``: room never comes back.
    """
    chosen: tuple[Fit, list[HostState]] | None = None
    index = 0
    while index < len(options):
        shape, fit = options[index]
        if chosen is not None:
            if fit.score < ALMOST * chosen[0].score or chosen[0].pool in board.open_host:
                break
            if fit.pool not in board.open_host:
                index += 1
                continue
        states = board.room(shape, fit)
        if states is None:
            options.pop(index)
            continue
        if chosen is None or fit.pool in board.open_host:
            chosen = fit, states
        index += 1
    return None if chosen is None else board.take(*chosen)


def place_minimum(board: Board, models: list[Wanted], options: Options, move: bool = True) -> list[str]:
    """`min_replicas` of each model, the model with the fewest possible places first. Returns who lacks some.

    With ``move`` a model's first replica may take the place of another model's replica above its minimum.
    """
    counts: dict[int, int] = defaultdict(int)
    for state in board.states.values():
        counts[id(state.shape)] += 1
    places = {
        item.name: sum(
            counts[id(shape)] * max(1, len(shape.bays[fit.bay].indices) // fit.tensor_parallel_size)
            for shape, fit in options[item.name]
        )
        for item in models
    }
    order = sorted(models, key=lambda item: (places[item.name], item.name))
    short: list[str] = []
    for turn in range(max((item.request.min_replicas for item in models), default=0)):
        for item in order:
            if len(board.replicas[item.name]) > turn or item.request.min_replicas <= turn or item.name in short:
                continue
            while len(board.replicas[item.name]) <= turn:
                left = _of_missing_engines(board, item, options[item.name])
                if place_next(board, left) is None and not (move and _make_room(board, item, models, options)):
                    short.append(item.name)
                    break
    return short


def missing_engines(board: Board, item: Wanted) -> list[str]:
    """Engines that the model asks for and has no replica of yet."""
    have = {one.fit.engine for one in board.replicas[item.name]}
    return [engine for engine in item.request.engines if engine not in have]


def _of_missing_engines(
    board: Board, item: Wanted, options: list[tuple[HostShape, Fit]]
) -> list[tuple[HostShape, Fit]]:
    """Fits of engines that are still missing; all where none is."""
    missing = missing_engines(board, item)
    return [pair for pair in options if not missing or pair[1].engine in missing]


def _make_room(board: Board, item: Wanted, models: list[Wanted], options: Options) -> bool:
    """Take replicas from models that have more than they must, on one host, if that opens a place.

    This is how a model that was added to a full cluster finds its first replica while all else stays: the host is
    the one whose newest replica belongs to the model farthest above its share.
    """
    if board.replicas[item.name]:
        return False  # only the first replica is worth moving another model's
    wishes = {model.name: model.request for model in models}
    on_host: dict[str, list[Replica]] = defaultdict(list)
    for name, replicas in board.replicas.items():
        if len(replicas) > wishes[name].min_replicas:
            for one in replicas:
                for host in one.hosts:
                    on_host[host].append(one)

    def surplus(one: Replica) -> tuple[float, int]:
        return -board.used[one.fit.model] / wishes[one.fit.model].share, -one.sequence

    for host in sorted(on_host, key=lambda name: (min(surplus(one) for one in on_host[name]), name)):
        shape = board.states[host].shape
        wanted = [pair for pair in options[item.name] if pair[0] is shape]
        if wanted and _room_after(board, sorted(on_host[host], key=surplus), wanted, wishes):
            return True
    return False


def _room_after(
    board: Board,
    victims: list[Replica],
    wanted: list[tuple[HostShape, Fit]],
    wishes: dict[str, ModelRequest],
) -> bool:
    """Give back the victims one by one until a fit has room; put all back if none gets any."""
    given: list[Replica] = []
    for one in victims:
        if len(board.replicas[one.fit.model]) <= wishes[one.fit.model].min_replicas:
            continue
        board.give_back(one)
        given.append(one)
        if any(board.room(shape, fit) is not None for shape, fit in wanted):
            return True
    for one in reversed(given):
        board.put(one)
    return False


def place_fairly(board: Board, models: list[Wanted], options: Options) -> None:
    """Fill what is left: always the model with the lowest level that can still grow."""
    left = {item.name: list(options[item.name]) for item in models}
    requests = {item.name: item.request for item in models}
    heap = [(board.used[name] / requests[name].share, name) for name in left]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        most = requests[name].max_replicas
        if most is not None and len(board.replicas[name]) >= most:
            continue
        if place_next(board, left[name]) is not None:
            heapq.heappush(heap, (board.used[name] / requests[name].share, name))
