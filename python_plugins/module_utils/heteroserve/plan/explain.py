"""Why each host and model was left out, what limits each pool, and what one more host would add."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

from ..common.names import natural, pool_name
from .allocate import Board, HostState, Options, place_fairly, place_minimum
from .batching import generating
from .bays import HostShape
from .fit import Fit
from .memory import Misfit, Wanted
from .remedies import nearest, remedy
from .request import HostEntry, PlanOptions
from .roofline import BATCHING_ENGINES
from .schema import Cell, Pool, Reason

KINDS_OF_ADVICE = 12  # host shapes that advice is given for, the most frequent first


@dataclass
class Survey:
    """What ``fits`` said for each host shape and model."""

    shapes: list[HostShape]
    fits: dict[tuple[int, str], list[Fit]]  # by id of the shape and model
    misfits: dict[tuple[int, str], list[Misfit]]


def host_reasons(board: Board, survey: Survey, models: list[Wanted], options: PlanOptions) -> list[Reason]:
    """A reason for each host that carries nothing, and for accelerators that stay idle on one that does."""
    out: list[Reason] = []
    known: dict[object, Reason | None] = {}
    busy = {host for replicas in board.replicas.values() for one in replicas for host in one.hosts}
    capped = frozenset(
        item.name
        for item in models
        if item.request.max_replicas is not None and len(board.replicas[item.name]) >= item.request.max_replicas
    )
    for name in board.names:
        state = board.states[name]
        key = (id(state.shape), state.signature, name in busy)
        if key not in known:
            known[key] = _host_reason(state, survey, models, name in busy, capped, options)
        found = known[key]
        if found is not None:
            settings = {key: _at(value, found.subject, name) for key, value in found.settings.items()}
            out.append(replace(found, subject=name, settings=settings))
    return out


def _at(value: Any, host: str, other: str) -> Any:
    """The settings that were found for one host, for an equal one."""
    return tuple(other if name == host else name for name in value) if isinstance(value, tuple) else value


def _host_reason(
    state: HostState, survey: Survey, models: list[Wanted], busy: bool, capped: frozenset[str], options: PlanOptions
) -> Reason | None:
    shape, name = state.shape, state.name

    def reason(text: str, change: str) -> Reason:
        return Reason(name, "host", text, change)

    gpus = [(number, bay) for number, bay in enumerate(shape.bays) if bay.vendor != "cpu"]
    if busy:
        for number, bay in gpus:
            free = len(state.free[number])
            if free:
                text = f"{free} of {bay.label} stay idle: " + _why_idle(state, number, survey, models, capped)
                return reason(text, "raise the max_replicas of a model, or add a model that fits")
        return reason("; ".join(shape.idle), shape.change) if shape.idle else None
    if shape.idle and not gpus:
        return reason("; ".join(shape.idle), shape.change)
    open_models = [item.name for item in models if survey.fits.get((id(shape), item.name))]
    if open_models:
        why = _why_idle(state, None, survey, models, capped)
        return reason(f"no model needs it: {why}", "raise the max_replicas of a model, or add a model")
    misfits = [(miss, item) for item in models for miss in survey.misfits.get((id(shape), item.name), [])]
    best = nearest(miss for miss, _ in misfits)
    if best is not None:
        item = next(item for miss, item in misfits if miss is best)
        found = remedy(item.request, item.shape, best, [shape], options, name)
        return Reason(name, "host", best.text, found.change, item.name, found.settings)
    if not models:
        return reason("no model is asked for", "add a model")
    if not options.allow_cpu:
        return reason(
            "it has no accelerator, and processors may not be used", "set `serving_plan_options.allow_cpu: true`"
        )
    return reason("it has neither an accelerator nor a processor core that may be used", "raise `serving_limits.cores`")


def _why_idle(state: HostState, bay: int | None, survey: Survey, models: list[Wanted], capped: frozenset[str]) -> str:
    parts = []
    for item in models:
        fits = [fit for fit in survey.fits.get((id(state.shape), item.name), []) if bay is None or fit.bay == bay]
        if not fits:
            continue
        least = min(fits, key=lambda fit: fit.tensor_parallel_size)
        if item.name in capped:
            parts.append(f"{item.name} has its max_replicas")
        elif least.tensor_parallel_size > len(state.free[least.bay]):
            parts.append(f"{item.name} takes {least.tensor_parallel_size} at a time")
        elif least.limits.host_memory_bytes > state.ram:
            need, have = least.limits.host_memory_bytes / 1e9, state.ram / 1e9
            parts.append(f"{item.name} needs {need:.1f} GB of RAM and {have:.1f} GB are left")
        else:
            parts.append(f"{item.name} finds no {least.tensor_parallel_size} joined by the fast link")
    return "; ".join(parts) or "no model fits them"


def model_reasons(
    board: Board, survey: Survey, models: list[Wanted], short: list[str], options: PlanOptions
) -> list[Reason]:
    """A reason for each model that has fewer replicas than it must have, with the arithmetic of the nearest host."""
    out = []
    for item in models:
        have, least = len(board.replicas[item.name]), item.request.min_replicas
        if have and item.name not in short:
            continue
        if not have and least == 0:
            fit_somewhere = any(survey.fits.get((id(shape), item.name)) for shape in survey.shapes)
            if fit_somewhere:
                text = "min_replicas is 0 and no room was left"
                out.append(Reason(item.name, "model", text, "add a host, or set max_replicas of another model"))
                continue
        out.append(_model_reason(board, survey, item, models, have, options))
    return out


def _model_reason(
    board: Board, survey: Survey, item: Wanted, models: list[Wanted], have: int, options: PlanOptions
) -> Reason:
    fits = [fit for shape in survey.shapes for fit in survey.fits.get((id(shape), item.name), [])]
    if fits:
        holders = [other.name for other in models if other is not item and board.replicas[other.name]]
        least = min(fits, key=lambda fit: (fit.capacity, fit.kind))
        what = f"{least.tensor_parallel_size}x {least.kind}" if least.vendor != "cpu" else f"{least.cores} cores"
        text = (
            f"{item.name} has {have} of {item.request.min_replicas} replicas: one takes {what}, and "
            f"{' and '.join(holders) or 'its own replicas'} hold{'' if len(holders) > 1 else 's'} all that fit"
        )
        lower = f"set `min_replicas: {have}`, " if have else ""
        return Reason(
            item.name,
            "model",
            text,
            f"{lower}set max_replicas of another model with `serving_plan_replan: true`, or add a host",
            item.name,
            {"min_replicas": have} if have else {},
        )
    misfits = [miss for shape in survey.shapes for miss in survey.misfits.get((id(shape), item.name), [])]
    best = nearest(misfits)
    if best is None:
        return Reason(item.name, "model", f"{item.name}: there is no host that may carry it", "add hosts to `serving`")
    found = remedy(item.request, item.shape, best, survey.shapes, options)
    return Reason(item.name, "model", best.text, found.change, item.name, found.settings)


def make_pools(cells: tuple[Cell, ...], board: Board, options: PlanOptions) -> tuple[Pool, ...]:
    """Pools with what limits them and how far they are from it."""
    fits: dict[str, Fit] = {}
    for replicas in board.replicas.values():
        for fit in {id(one.fit): one.fit for one in replicas}.values():
            name = pool_name(*fit.pool)  # hosts of a CPU pool may differ: the largest speaks for it
            if name not in fits or (fit.capacity, fit.limits.kv_cache_tokens) > (
                fits[name].capacity,
                fits[name].limits.kv_cache_tokens,
            ):
                fits[name] = fit
    members: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        members[cell.pool].append(cell)
    pools = []
    for name, own in members.items():
        fit = fits[name]
        limited_by, headroom = _limits_of(fit, options)
        pools.append(
            Pool(
                name=name,
                model=fit.model,
                engine=fit.engine,
                accelerator=fit.kind,
                tensor_parallel_size=fit.tensor_parallel_size,
                replicas=sum(len(cell.replicas) for cell in own),
                limited_by=limited_by,
                headroom=headroom,
                tokens_per_s=round(sum(cell.expected[-1].tokens_per_s for cell in own), 1),
            )
        )
    return tuple(pools)


def _limits_of(fit: Fit, options: PlanOptions) -> tuple[str, str]:
    limits = fit.limits
    batch = limits.max_num_seqs if fit.engine in BATCHING_ENGINES else 1
    step = generating(fit.deployment, fit.device, options, batch)
    whole = limits.kv_cache_tokens // limits.max_model_len
    text = (
        f"KV cache holds {limits.kv_cache_tokens:,} tokens a replica: {whole} request{'s' if whole != 1 else ''} of "
        f"{limits.max_model_len:,}. With {batch} at once a step takes {step.total * 1e3:.1f} ms: memory is busy "
        f"{100 * min(1.0, (step.weights + step.attention) / step.total):.0f} % of it, arithmetic "
        f"{100 * min(1.0, step.compute / step.total):.0f} %"
    )
    if fit.batching is not None:
        every = fit.batching.stream_interval
        text += f". Not more at once: {fit.batching.requests_reason}. Text is sent every "
        text += f"{f'{every} tokens' if every > 1 else 'token'}: {fit.batching.interval_reason}"
    chosen = fit.parsers.arguments if fit.parsers is not None else {}
    for what, key in (("Tool calls are", "tool_call_parser"), ("Reasoning is", "reasoning_parser")):
        if fit.parsers is not None and key in chosen and fit.engine_args[key] == chosen[key]:
            text += f". {what} read by {chosen[key]}: {fit.parsers.reason}"
    room = limits.kv_cache_tokens // (options.prompt_tokens + options.output_tokens)
    if fit.vendor != "cpu" and room <= limits.max_num_seqs:
        return "KV cache", text
    return step.limited_by, text


def make_advice(
    board: Board,
    survey: Survey,
    models: list[Wanted],
    options: Options,
    hosts: dict[str, HostEntry],
    plan_options: PlanOptions,
) -> tuple[str, ...]:
    """What one more host of each kind would add, all else staying as it is."""
    counts: Counter[str] = Counter()
    example: dict[str, HostState] = {}
    for name in board.names:
        label = _label(hosts[name])
        counts[label] += 1
        example.setdefault(label, board.states[name])
    order = sorted(counts, key=lambda label: (-counts[label], label))[:KINDS_OF_ADVICE]
    return tuple(
        _one_more(label, example[label].shape, board, models, options, plan_options)
        for label in sorted(order, key=natural)
    )


def _label(entry: HostEntry) -> str:
    hardware = entry.hardware
    kinds = Counter(item.model for item in hardware.accelerators)
    parts = [f"{number}x {model}" for model, number in kinds.items()]
    parts = parts or [f"{max(1, hardware.cpu.sockets)}x {hardware.cpu.model}"]
    return f"{hardware.server_model or 'host'} with {' and '.join(parts)}"


def _one_more(
    label: str, shape: HostShape, board: Board, models: list[Wanted], options: Options, plan_options: PlanOptions
) -> str:
    state = HostState("one more", 0, shape, [list(bay.indices) for bay in shape.bays], shape.ram)
    trial = Board({state.name: state})
    before: dict[str, int] = {}
    for item in models:
        name = item.name
        trial.replicas[name] = list(board.replicas[name])
        trial.used[name] = board.used[name]
        before[name] = len(board.replicas[name])
    here = {
        name: [pair for pair in pairs if pair[0] is shape and pair[1].stages == 1] for name, pairs in options.items()
    }
    place_minimum(trial, models, here, move=False)
    place_fairly(trial, models, here)
    parts, total = [], 0.0
    for item in models:
        new = trial.replicas[item.name][before[item.name] :]
        if new:
            speed = sum(one.fit.expected(1, plan_options)[-1].tokens_per_s for one in new)
            total += speed
            parts.append(f"{len(new)} replica{'s' if len(new) > 1 else ''} of {item.name}")
    if not parts:
        return f"One more {label} would add nothing to this plan."
    return f"One more {label} would add {', '.join(parts)}: {total:,.0f} tokens/s."
