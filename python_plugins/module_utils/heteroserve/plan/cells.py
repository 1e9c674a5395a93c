"""From replicas to cells: names, ports, weights, expectations and digests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ..common.names import cell_prefix, natural, pool_name
from . import efficiencies as table
from .allocate import Board, Replica
from .handover import visible
from .ports import Ports, port_names
from .request import HostEntry, PlanOptions
from .schema import Cell, Placement, Plan, PlannedModel, cell_digest


def group(board: Board) -> list[tuple[str | None, list[Replica]]]:
    """Replicas of each cell, with the kept cell's name: one cell a pool and host, two where a pool has one host."""
    kept: dict[str, list[Replica]] = defaultdict(list)
    fresh: dict[tuple[tuple[str, str, str, int, int], tuple[str, ...]], list[Replica]] = defaultdict(list)
    homes: dict[tuple[str, str, str, int, int], set[tuple[str, ...]]] = defaultdict(set)
    for replicas in board.replicas.values():
        for one in replicas:
            homes[one.fit.pool].add(one.hosts)
            if one.cell is not None:
                kept[one.cell].append(one)
            else:
                fresh[one.fit.pool, one.hosts].append(one)
    out: list[tuple[str | None, list[Replica]]] = [(name, members) for name, members in sorted(kept.items())]
    with_cell = {one.fit.pool for members in kept.values() for one in members}
    order = {name: number for number, name in enumerate(board.names)}
    for (pool, hosts), members in sorted(fresh.items(), key=lambda item: (item[0][0], [order[h] for h in item[0][1]])):
        half = -(-len(members) // 2)
        if len(hosts) > 1:
            out += [(None, [one]) for one in members]
        elif len(homes[pool]) == 1 and len(members) > 1 and pool not in with_cell:
            out += [(None, members[:half]), (None, members[half:])]
        else:
            out.append((None, members))
    return out


def make_cells(
    board: Board,
    models: dict[str, PlannedModel],
    hosts: dict[str, HostEntry],
    options: PlanOptions,
    runtime: str,
    previous: Plan | None,
) -> tuple[Cell, ...]:
    """All cells in order of model and name, each with ports that no other cell of its hosts has."""
    before = {cell.name: cell for cell in previous.cells} if previous else {}
    groups = group(board)
    kept = {name for name, _ in groups if name}
    taken, numbers = set(kept), defaultdict[str, int](int)
    named = [
        (name or _next_name(cell_prefix(members[0].fit.model, members[0].fit.kind), numbers, taken), members)
        for name, members in groups
    ]
    ports = Ports(hosts, options, runtime)
    own = {
        name: cell.ports
        for name, cell in before.items()
        if name in kept and set(cell.ports) == set(port_names(runtime))
    }
    for name, members in named:
        if name in own:
            ports.hold(members[0].hosts, own[name])
    for cell in before.values():
        if cell.name not in taken:
            ports.leave(cell.ports)
    cells = [
        _cell(name, members, own.get(name) or ports.give(members), board, hosts, options, runtime)
        for name, members in named
    ]
    weighed = _weigh(cells)
    timed = [replace(cell, start_s=start_s(models[cell.model])) for cell in weighed]
    done = [replace(cell, digest=cell_digest(cell, models[cell.model])) for cell in timed]
    return tuple(sorted(done, key=lambda cell: (cell.model, natural(cell.name))))


def start_s(model: PlannedModel) -> int:
    """Seconds that a cell of the model may take until it serves."""
    read = model.weight_bytes + sum(item.weight_bytes for item in model.beside)
    return int(table.START.value + read / table.SLOW_DISK.value)


def _next_name(prefix: str, numbers: dict[str, int], taken: set[str]) -> str:
    while f"{prefix}-{numbers[prefix]}" in taken:
        numbers[prefix] += 1
    name = f"{prefix}-{numbers[prefix]}"
    taken.add(name)
    return name


def _cell(
    name: str,
    members: list[Replica],
    ports: dict[str, int],
    board: Board,
    hosts: dict[str, HostEntry],
    options: PlanOptions,
    runtime: str,
) -> Cell:
    fit = members[0].fit
    names = sorted({host for one in members for host in one.hosts}, key=natural)
    members = sorted(members, key=lambda one: (one.hosts, one.indices))
    return Cell(
        name=name,
        pool=pool_name(*fit.pool),
        model=fit.model,
        engine=fit.engine,
        build=fit.build,
        accelerator=fit.kind,
        vendor=fit.vendor,
        tensor_parallel_size=fit.tensor_parallel_size,
        hosts=tuple(names),
        replicas=tuple(_placement(one, board, hosts, runtime) for one in members),
        limits=fit.limits,
        engine_args=fit.engine_args,
        ports=ports,
        weight=1,
        expected=fit.expected(len(members), options),
        address=hosts[names[0]].address,
    )


def _placement(one: Replica, board: Board, hosts: dict[str, HostEntry], runtime: str) -> Placement:
    if one.fit.vendor != "cpu":
        own = zip(one.hosts, one.indices, strict=True) if runtime == "ray" else ()
        names = tuple(visible(hosts[name].hardware, indices) for name, indices in own)
        return Placement(one.hosts, one.indices, visible=names)
    bay = board.states[one.hosts[0]].shape.bays[one.fit.bay]
    node, first = bay.seats[one.indices[0][0]]
    return Placement(one.hosts, cores=one.fit.cores, numa_node=node, first_core=first)


def _weigh(cells: list[Cell]) -> list[Cell]:
    """Weights from 1 to 256: the fastest cell of a model has 256, the others their part of it."""
    best: dict[str, float] = defaultdict(float)
    for cell in cells:
        best[cell.model] = max(best[cell.model], cell.expected[-1].tokens_per_s)
    return [
        replace(cell, weight=max(1, min(256, round(256 * cell.expected[-1].tokens_per_s / best[cell.model]))))
        for cell in cells
    ]
