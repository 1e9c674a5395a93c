"""Which model runs where, with which engine, and what may be expected: a pure function of the request.

``make_plan`` reads hosts and models and gives a ``Plan`` with a reason for all that it leaves out. It is
deterministic, keeps the replicas of the previous plan where they are, and groups equal hosts so that a thousand
of them take less than a second. The steps are the other modules of this folder; docs/plan.md explains the rules.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from difflib import get_close_matches

from ..common.names import natural
from ..facts.described import recognised
from ..inventory.models import ModelRequest
from . import efficiencies as table
from .allocate import Board, HostState, Options, missing_engines, place_fairly, place_minimum
from .bays import HostShape, shape_of_host
from .builds import build_named, obtainable
from .cells import make_cells
from .explain import Survey, host_reasons, make_advice, make_pools, model_reasons
from .fit import STAGES, Fit, fits, want
from .handover import followed
from .memory import Wanted
from .model_shape import ModelShape
from .remedies import fault_as_misfit, remedy
from .request import HostEntry, PlanOptions, PlanRequest, card_for, draft_shape_of, fault_of_rank, faults_of, shape_of
from .schema import Cell, GatewayPlan, Placement, Plan, Reason

__all__ = ["HostEntry", "ModelRequest", "PlanOptions", "PlanRequest", "make_plan"]

SPLITS = (1, 2, 4, 8)  # replicas that may share a NUMA node where models outnumber nodes


@dataclass(frozen=True)
class _Faulty:
    """A model that no hardware could serve as it is asked for; without a shape where that is unknown."""

    request: ModelRequest
    fault: str
    shape: ModelShape | None = None


@dataclass
class _Attempt:
    board: Board
    survey: Survey
    options: Options
    short: list[str]


def make_plan(request: PlanRequest) -> Plan:
    """Plan the request. Models without any replica are named in ``Plan.unplaced``, each with its reason."""
    if not request.options.builds:
        builds = obtainable(request.runtime, request.options.provided)
        request = replace(request, options=replace(request.options, builds=builds))
    hosts = {
        name: replace(entry, hardware=recognised(entry.hardware, request.cards))
        for name, entry in request.hosts.items()
    }
    request = replace(request, hosts=hosts)
    wanted, faulty = _wanted(request)
    attempt = _attempt(request, wanted, SPLITS[0])
    for split in SPLITS[1:]:
        if not _processors_are_short(attempt, wanted):
            break
        other = _attempt(request, wanted, split)
        if _lacking(other.board, wanted) < _lacking(attempt.board, wanted):
            attempt = other
    board, survey = attempt.board, attempt.survey
    placed = [item for item in wanted if board.replicas[item.name]]
    models = {item.name: item.planned for item in placed}
    cells = make_cells(board, models, request.hosts, request.options, request.runtime, request.previous)
    reasons = [
        *(_reason_of(one, survey.shapes, request.options) for one in faulty),
        *model_reasons(board, survey, wanted, attempt.short, request.options),
        *host_reasons(board, survey, wanted, request.options),
    ]
    longest = max((item.planned.context for item in placed), default=0)
    return Plan(
        runtime=request.runtime,
        models=tuple(replace(item.planned, described_by=_described(item, request)) for item in placed),
        pools=make_pools(cells, board, request.options),
        cells=cells,
        gateway=GatewayPlan(tuple(request.gateways), _body_bytes(longest)),
        reasons=tuple(reasons),
        advice=make_advice(board, survey, wanted, attempt.options, request.hosts, request.options),
        prompt_tokens=request.options.prompt_tokens,
        output_tokens=request.options.output_tokens,
        builds=tuple(build_named(name) for name in sorted({cell.build for cell in cells})),
        unplaced=tuple(sorted([one.request.name for one in faulty] + _unplaced(board, wanted))),
    )


def _described(item: Wanted, request: PlanRequest) -> str:
    """Where a model's shape comes from; a card in place of the hub's own word says why."""
    if origin := request.described.get(item.name):
        return origin
    if item.request.config is not None:
        return "config.json"
    problem = request.problems.get(item.name)
    return f"card {card_for(item.request)}" + (f": {problem}" if problem else "")


def _body_bytes(context: int) -> int:
    """Of a request whose prompt fills the context with plain text, and 16 KiB of other keys, in pages of 4 KiB."""
    return -(-(int(context * table.BODY_BYTES_PER_TOKEN.value) + 16384) // 4096) * 4096


def _unplaced(board: Board, wanted: list[Wanted]) -> list[str]:
    return [item.name for item in wanted if not board.replicas[item.name] and item.request.min_replicas > 0]


def _lacking(board: Board, wanted: list[Wanted]) -> int:
    """Models without a replica, and engines that a model asks for and does not have."""
    return len(_unplaced(board, wanted)) + sum(len(missing_engines(board, item)) for item in wanted)


def _wanted(request: PlanRequest) -> tuple[list[Wanted], list[_Faulty]]:
    """Models with their gaps filled, by name, and those that no hardware could serve."""
    wanted: list[Wanted] = []
    faulty: list[_Faulty] = []
    for model in sorted(request.models, key=lambda item: natural(item.name)):
        try:
            shape = shape_of(model)
            draft_shape_of(model)
        except ValueError as fault:
            problem = request.problems.get(model.name, "")
            faulty.append(_Faulty(model, f"{fault} ({problem})" if problem else str(fault)))
            continue
        text = (
            faults_of(model, shape, request.options.builds) or fault_of_rank(model) or _fault_of_hosts(model, request)
        )
        if text is not None:
            faulty.append(_Faulty(model, text, shape))
            continue
        wanted.append(want(model, shape))
    return wanted, faulty


def _reason_of(faulty: _Faulty, shapes: list[HostShape], options: PlanOptions) -> Reason:
    name = faulty.request.name
    if faulty.shape is None:
        return Reason(name, "model", faulty.fault, "set `card`, or `source.path` to a folder with config.json")
    found = remedy(faulty.request, faulty.shape, fault_as_misfit(faulty.fault), shapes, options)
    return Reason(name, "model", f"{name}: {faulty.fault}", found.change, name, found.settings)


def _fault_of_hosts(model: ModelRequest, request: PlanRequest) -> str | None:
    for name in model.hosts:
        if name not in request.hosts:
            near = get_close_matches(name, list(request.hosts), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            return f"hosts: found {name!r}, which is no host that may carry models{hint}"
    return None


def _attempt(request: PlanRequest, wanted: list[Wanted], split: int) -> _Attempt:
    previous = request.previous if not request.replan else None
    survey, shapes = _survey(request, wanted, split, previous)
    options: Options = {}
    for item in wanted:
        pairs = [(shape, fit) for shape in survey.shapes for fit in survey.fits.get((id(shape), item.name), [])]
        pairs.sort(key=lambda pair: (-pair[1].score, pair[1].kind, pair[1].tensor_parallel_size))
        options[item.name] = pairs
    states = {
        name: HostState(name, order, shapes[name], [list(bay.indices) for bay in shapes[name].bays], shapes[name].ram)
        for order, name in enumerate(sorted(request.hosts, key=natural))
    }
    board = Board(states)
    if previous is not None:
        _keep(board, previous, wanted, survey, request)
    short = place_minimum(board, wanted, options)
    place_fairly(board, wanted, options)
    while short:  # what the others got beyond their minimum may open a place now
        still = place_minimum(board, wanted, options)
        place_fairly(board, wanted, options)
        if still == short:
            break
        short = still
    return _Attempt(board, survey, options, short)


def _kept_splits(previous: Plan | None, request: PlanRequest) -> dict[str, int]:
    """Into how many parts the running CPU replicas cut the NUMA nodes of their hosts."""
    splits: dict[str, int] = {}
    for cell in previous.cells if previous else ():
        for one in cell.replicas:
            entry = request.hosts.get(one.hosts[0])
            if one.cores and entry is not None:
                cpu = entry.hardware.cpu
                cores = min(cpu.cores, entry.cores or cpu.cores) // cpu.domains
                splits[one.hosts[0]] = max(1, cores // one.cores)
    return splits


def _survey(
    request: PlanRequest, wanted: list[Wanted], split: int, previous: Plan | None
) -> tuple[Survey, dict[str, HostShape]]:
    """Host shapes, and for each of them every fit and misfit of every model."""
    ours = {host for cell in request.previous.cells for host in cell.hosts} if request.previous else set()
    kept = _kept_splits(previous, request)
    pins: dict[str, list[str]] = defaultdict(list)
    for item in wanted:
        for host in item.request.hosts:
            pins[host].append(item.name)
    shared: dict[HostShape, HostShape] = {}
    shapes: dict[str, HostShape] = {}
    for name in sorted(request.hosts, key=natural):
        entry = request.hosts[name]
        parts = max(split, kept.get(name, 1))
        pinned = tuple(pins.get(name, ()))
        own = shape_of_host(entry, request.options, parts, name in ours, pinned, request.runtime, request.cards)
        shapes[name] = shared.setdefault(own, own)
    survey = Survey(list(shared), {}, {})
    for shape in survey.shapes:
        for item in wanted:
            found, failed = fits(item, shape, request.options)
            survey.fits[id(shape), item.name] = found
            survey.misfits[id(shape), item.name] = failed
    for item in wanted:
        if not any(survey.fits[id(shape), item.name] for shape in survey.shapes):
            _survey_several_hosts(item, survey, request, Counter(id(shape) for shape in shapes.values()))
    return survey, shapes


def _survey_several_hosts(item: Wanted, survey: Survey, request: PlanRequest, counts: Counter[int]) -> None:
    """A replica over the fewest equal hosts, only for a model that no single host can hold."""
    for stages in STAGES:
        for shape in survey.shapes:
            if counts[id(shape)] >= stages:
                survey.fits[id(shape), item.name] = fits(item, shape, request.options, stages)[0]
        if any(survey.fits[id(shape), item.name] for shape in survey.shapes):
            return


def _keep(board: Board, previous: Plan, wanted: list[Wanted], survey: Survey, request: PlanRequest) -> None:
    """Put the replicas of the previous plan back where they were, unless that is no longer possible or wished."""
    known = {item.name: item for item in wanted}
    for cell in previous.cells:
        item = known.get(cell.model)
        if item is None:
            continue
        most = item.request.max_replicas
        for placement in cell.replicas:
            if most is not None and len(board.replicas[cell.model]) >= most:
                break
            states = [board.states[name] for name in placement.hosts if name in board.states]
            if len(states) != len(placement.hosts):
                continue
            hardware = tuple(request.hosts[name].hardware for name in placement.hosts)
            devices = followed(placement.devices, placement.visible, hardware)
            if devices is None:
                continue
            placement = replace(placement, devices=devices)
            fit = _same_fit(cell, placement, states, item, survey, request.options)
            if fit is None or any(state.ram < fit.limits.host_memory_bytes // fit.stages for state in states):
                continue
            indices = _same_indices(placement, fit, states)
            if indices is not None:
                board.take(fit, states, indices, cell.name)


def _same_fit(
    cell: Cell,
    placement: Placement,
    states: list[HostState],
    item: Wanted,
    survey: Survey,
    options: PlanOptions,
) -> Fit | None:
    """The fit by which a placement was made. One that spans hosts stays so although a host that holds it was added."""
    shape, stages = states[0].shape, len(placement.hosts)
    if any(state.shape is not shape for state in states):
        return None
    found = survey.fits.get((id(shape), cell.model), [])
    if stages > 1 and not any(fit.stages == stages for fit in found):
        found = fits(item, shape, options, stages)[0]
    for fit in found:
        was = cell.accelerator, cell.engine, cell.tensor_parallel_size, stages, placement.cores
        same = (fit.kind, fit.engine, fit.tensor_parallel_size, fit.stages, fit.cores) == was
        if same and (not placement.devices or set(placement.devices[0]) <= set(shape.bays[fit.bay].indices)):
            return fit
    return None


def _same_indices(placement: Placement, fit: Fit, states: list[HostState]) -> tuple[tuple[int, ...], ...] | None:
    if placement.devices:
        free = all(set(own) <= set(state.free[fit.bay]) for own, state in zip(placement.devices, states, strict=True))
        return placement.devices if free else None
    seats = states[0].shape.bays[fit.bay].seats
    for index in states[0].free[fit.bay]:
        node, first = seats[index]
        # A plan of before there was `first_core` names the node only.
        if placement.numa_node in (None, node) and placement.first_core in (None, first):
            return ((index,),)
    return None


def _processors_are_short(attempt: _Attempt, wanted: list[Wanted]) -> bool:
    """A model (or one of its engines) has no replica that processors could run: smaller parts of a node may help."""
    without = {*_unplaced(attempt.board, wanted)}
    without |= {item.name for item in wanted if missing_engines(attempt.board, item)}
    return any(
        fit.vendor == "cpu"
        for name in without
        for shape in attempt.survey.shapes
        for fit in attempt.survey.fits.get((id(shape), name), [])
    )
