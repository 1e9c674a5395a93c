"""A plan in words and tables for a terminal: what runs where, what to expect, what was not used and why."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ..common.names import natural, short_kind
from ..common.table import WIDTH, table
from .schema import Cell, Plan, Reason

MOST_CELLS = 40  # above this the cells are summed up by pool


def plan_report(plan: Plan) -> str:
    """The whole report, at most ``WIDTH`` characters wide, with a line feed at its end."""
    sections = [_headline(plan)]
    if plan.cells:
        sections += ["What runs where\n" + _cells_table(plan), "What to expect\n" + _pools_table(plan)]
    if any(model.described_by for model in plan.models):
        lines = (f"{model.name}: {model.described_by}" for model in plan.models)
        sections.append("Where models are described\n" + "\n".join(_wrapped(line, "  ") for line in lines))
    missing = [reason for reason in plan.reasons if reason.kind == "model"]
    if missing:
        sections.append("Models that lack replicas\n" + _reasons(missing))
    idle = [reason for reason in plan.reasons if reason.kind == "host"]
    if idle:
        sections.append("Not used\n" + _reasons(idle))
    if plan.advice:
        sections.append("What one more host would add\n" + "\n".join(_wrapped(line, "  ") for line in plan.advice))
    return "\n\n".join(sections) + "\n"


def plan_summary(plan: Plan, hosts: Iterable[str]) -> dict[str, Any]:
    """The plan in a few lines of JSON: what it promises, and of each host its cells, or why it has none."""
    replicas: dict[str, int] = defaultdict(int)
    rates: dict[str, float] = defaultdict(float)
    for cell in plan.cells:
        replicas[cell.model] += len(cell.replicas)
        rates[cell.model] += cell.expected[-1].tokens_per_s
    idle = {reason.subject: reason.text for reason in plan.reasons if reason.kind == "host"}
    placed = {host: [cell.name for cell in plan.cells if host in cell.hosts] for host in hosts}
    return {
        "headline": " ".join(_headline(plan).split()),
        "models": {
            model.name: {"replicas": replicas[model.name], "tokens_per_s": round(rates[model.name])}
            for model in plan.models
        },
        "hosts": {host: cells or idle.get(host, "no model needs it") for host, cells in placed.items()},
        "unplaced": list(plan.unplaced),
    }


def _headline(plan: Plan) -> str:
    hosts = {host for cell in plan.cells for host in cell.hosts}
    replicas = sum(len(cell.replicas) for cell in plan.cells)
    total = sum(cell.expected[-1].tokens_per_s for cell in plan.cells)
    return _wrapped(
        f"Plan for runtime {plan.runtime}: {count(len(plan.models), 'model')} in {count(replicas, 'replica')}, "
        f"{count(len(plan.cells), 'cell')} on {count(len(hosts), 'host')}, {total:,.0f} tokens/s at full load "
        f"({plan.prompt_tokens} tokens asked, {plan.output_tokens} answered).",
        "",
    )


def count(number: int, word: str) -> str:
    """ "1 cell", "2 cells"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def host_ranges(names: list[str] | tuple[str, ...]) -> str:
    """Host names with runs folded as Ansible writes them: gpu1, gpu2, gpu3 become gpu[1:3]."""
    return ", ".join(
        run[0] if len(run) == 1 else f"{_stem(run[0])[0]}[{_stem(run[0])[1]}:{_stem(run[-1])[1]}]"
        for run in _runs(names)
    )


def _runs(names: list[str] | tuple[str, ...]) -> list[list[str]]:
    """Names in order, those that only count on together."""
    runs: list[list[str]] = []
    for name in sorted(set(names), key=natural):
        stem, number = _stem(name)
        if runs and number is not None:
            last_stem, last = _stem(runs[-1][-1])
            if last_stem == stem and last is not None and int(number) == int(last) + 1 and len(number) >= len(last):
                runs[-1].append(name)
                continue
        runs.append([name])
    return runs


def _stem(name: str) -> tuple[str, str | None]:
    found = re.fullmatch(r"(.*?)(\d+)", name)
    return (found[1], found[2]) if found else (name, None)


def devices_of(cell: Cell) -> str:
    """The accelerators of a cell: "GPU 0-3 | 4-7", a bar between replicas, or the cores of a CPU cell."""
    if cell.vendor == "cpu":
        return f"{sum(one.cores for one in cell.replicas)} cores"
    return "GPU " + " | ".join(_index_ranges(one.devices[0]) for one in cell.replicas)


def _index_ranges(indices: tuple[int, ...]) -> str:
    runs = _runs([str(index) for index in indices])
    return ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _cells_table(plan: Plan) -> str:
    if len(plan.cells) > MOST_CELLS:
        return _folded_table(plan)
    head = ("MODEL", "CELL", "HOST", "TAKES", "ENGINE", "PORT", "WEIGHT")
    rows = []
    for cell in plan.cells:
        hosts = "+".join(cell.hosts)
        rows.append(
            (cell.model, cell.name, hosts, devices_of(cell), cell.engine, str(cell.ports["serve"]), str(cell.weight))
        )
    return table(head, rows, right={5, 6})


def _by_pool(plan: Plan) -> dict[str, list[Cell]]:
    pools: dict[str, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        pools[cell.pool].append(cell)
    return pools


def _folded_table(plan: Plan) -> str:
    head = ("MODEL", "ACCELERATOR", "TP", "REPLICAS", "CELLS", "HOSTS")
    rows = []
    by_pool = _by_pool(plan)
    for pool in plan.pools:
        cells = by_pool[pool.name]
        hosts = host_ranges([host for cell in cells for host in cell.hosts])
        sizes = str(pool.tensor_parallel_size), str(pool.replicas), str(len(cells))
        rows.append((pool.model, short_kind(pool.accelerator), *sizes, hosts))
    return table(head, rows, right={2, 3, 4})


def _pools_table(plan: Plan) -> str:
    head = ("MODEL", "ACCELERATOR", "ENGINE", "TP", "REQUESTS", "TOKENS/S", "MS/TOKEN", "FIRST TOKEN", "LIMITED BY")
    by_pool = _by_pool(plan)
    rows = []
    for pool in plan.pools:
        last = [cell.expected[-1] for cell in by_pool[pool.name]]
        slowest = max(last, key=lambda item: item.time_per_output_token_s)
        rows.append(
            (
                pool.model,
                short_kind(pool.accelerator),
                pool.engine,
                str(pool.tensor_parallel_size),
                f"{sum(item.concurrency for item in last):,}",
                f"{pool.tokens_per_s:,.0f}",
                f"{slowest.time_per_output_token_s * 1e3:.1f}",
                f"{slowest.time_to_first_token_s * 1e3:,.0f} ms",
                pool.limited_by,
            )
        )
    return table(head, rows, right={3, 4, 5, 6, 7})


def _reasons(reasons: list[Reason]) -> str:
    """Subjects with the same reason stand together."""
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for reason in reasons:
        same[reason.text, reason.change].append(reason.subject)
    lines = []
    for (text, change), subjects in same.items():
        lines.append(_wrapped(f"{host_ranges(subjects)}: {text}.", "  "))
        if change:
            lines.append(_wrapped(f"to change it: {change}", "    "))
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def why_unplaced(plan: Plan) -> str:
    """One sentence for each model without a replica: what it needs, what there is, what to set."""
    reasons = {reason.subject: reason for reason in plan.reasons if reason.kind == "model"}
    parts = []
    for name in plan.unplaced:
        reason = reasons.get(name)
        text = reason.text if reason else f"{name} has no replica"
        parts.append(f"{text}; {reason.change}" if reason and reason.change else text)
    return ". ".join(parts)


def diff_in_words(old: Plan | None, new: Plan) -> str:
    """What carrying out ``new`` changes against ``old``, a line each; empty when nothing does."""
    if old is None:
        return "".join(f"+ {_cell_in_words(cell)}\n" for cell in new.cells)
    before = {cell.name: cell for cell in old.cells}
    after = {cell.name: cell for cell in new.cells}
    lines = []
    for model in sorted({item.name for item in new.models} - {item.name for item in old.models}):
        lines.append(f"+ model {model} is new")
    for model in sorted({item.name for item in old.models} - {item.name for item in new.models}):
        lines.append(f"- model {model} is no longer served")
    for name in sorted(before.keys() - after.keys(), key=natural):
        lines.append(f"- {_cell_in_words(before[name])}")
    for name in sorted(after.keys() - before.keys(), key=natural):
        lines.append(f"+ {_cell_in_words(after[name])}")
    for name in sorted(before.keys() & after.keys(), key=natural):
        lines += _changes(before[name], after[name])
    lines += _speed_in_words(old, new)
    return "".join(f"{line}\n" for line in lines)


def _cell_in_words(cell: Cell) -> str:
    where = " and ".join(cell.hosts)
    return f"cell {cell.name}: {count(len(cell.replicas), 'replica')} of {cell.model} on {where} ({devices_of(cell)})"


def _changes(old: Cell, new: Cell) -> list[str]:
    """What differs in a cell that stays; one that restarts says so."""
    parts = []
    if (old.hosts, old.replicas) != (new.hosts, new.replicas):
        parts.append(
            f"moves from {'+'.join(old.hosts)} ({devices_of(old)}) to {'+'.join(new.hosts)} ({devices_of(new)})"
        )
    for label, was, now in (
        ("engine", old.engine, new.engine),
        ("tensor_parallel_size", old.tensor_parallel_size, new.tensor_parallel_size),
        ("context", old.limits.max_model_len, new.limits.max_model_len),
        ("max_num_seqs", old.limits.max_num_seqs, new.limits.max_num_seqs),
        ("KV cache tokens", old.limits.kv_cache_tokens, new.limits.kv_cache_tokens),
        ("engine_args", old.engine_args, new.engine_args),
        ("ports", old.ports, new.ports),
    ):
        if was != now:
            parts.append(f"{label} {was} -> {now}")
    if old.digest != new.digest:
        return [f"~ cell {new.name} restarts: {'; '.join(parts) or 'its model is served differently'}"]
    if old.weight != new.weight:
        return [f"~ cell {new.name}: weight {old.weight} -> {new.weight}"]
    return []


def _speed_in_words(old: Plan, new: Plan) -> list[str]:
    lines = []
    speeds: list[dict[str, float]] = []
    for plan in (old, new):
        total: dict[str, float] = defaultdict(float)
        for pool in plan.pools:
            total[pool.model] += pool.tokens_per_s
        speeds.append(total)
    for model in sorted(speeds[0].keys() & speeds[1].keys()):
        was, now = speeds[0][model], speeds[1][model]
        if round(was) != round(now):
            lines.append(f"= {model}: {was:,.0f} -> {now:,.0f} tokens/s expected")
    return lines
