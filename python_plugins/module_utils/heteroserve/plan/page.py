"""A plan as one self-contained HTML page: racks, hosts and accelerators coloured by model, and what to expect.

No script, no font, no file beside it: it can be mailed, printed and read in light and dark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from ..common.names import natural
from ..facts.hardware import Accelerator
from .report import devices_of, host_ranges
from .request import HostEntry
from .schema import Cell, Plan, Reason

# Hues that stay apart in light and dark and for colour-blind readers (after Okabe and Ito), one a model.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#9467bd", "#c28e00", "#56b4e9", "#b3446c", "#6b7a8f")
RACK_WIDTH = 344
TILE = 34  # side of an accelerator, with its gap
MOST_HOSTS_DRAWN = 400

STYLE = """
:root{--ink:#1b2430;--soft:#5b6776;--line:#d5dbe3;--paper:#fff;--panel:#f6f8fa;--idle:#e3e8ee}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa7b6;--line:#37424f;--paper:#12171d;
--panel:#1a2129;--idle:#2b343f}}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--panel:#fff;--idle:#eee}
section,.rack,tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.5rem;max-width:76rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p.lead{color:var(--soft);margin:.3rem 0 1.2rem}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem}
.tile{flex:1 1 9rem;background:var(--panel);border:1px solid var(--line);border-radius:.6rem;padding:.7rem 1rem}
.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}.tile span{color:var(--soft)}
.racks{display:flex;flex-wrap:wrap;gap:1rem}.rack svg{display:block;max-width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:.2rem 0 1rem;padding:0;list-style:none}
.swatch{display:inline-block;width:.8em;height:.8em;border-radius:.2em;margin-right:.4em;vertical-align:-.05em}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}.n{text-align:right;white-space:nowrap}
td.w{min-width:16rem}td:first-child,td:nth-child(2):not(.w){white-space:nowrap}small{color:var(--soft)}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft)}svg .head{font-weight:600;font-size:12px}svg .on{fill:#fff;font-weight:600}
svg .box{fill:var(--paper);stroke:var(--line)}svg .frame{fill:var(--panel);stroke:var(--line)}
svg .idle{fill:var(--idle)}svg .off{fill:none;stroke:var(--soft);stroke-dasharray:3 2}
"""


def plan_page(plan: Plan, hosts: dict[str, HostEntry]) -> str:
    """The page's text. ``hosts`` give racks and the accelerators that stay idle."""
    colours = {model.name: COLOURS[number % len(COLOURS)] for number, model in enumerate(plan.models)}
    body = [
        "<h1>Serving plan</h1>",
        f'<p class="lead">Which model runs where, and what to expect of it. Runtime {escape(plan.runtime)}; '
        f"expectations are for {plan.prompt_tokens} tokens asked and {plan.output_tokens} answered.</p>",
        _tiles(plan),
        _picture(plan, hosts, colours),
        _expectations(plan, colours),
        _cells(plan, colours),
        _reasons("Models that lack replicas", [reason for reason in plan.reasons if reason.kind == "model"]),
        _reasons("Not used, and why", [reason for reason in plan.reasons if reason.kind == "host"]),
        _advice(plan),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Serving plan</title>\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">\n'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n"
    )


def _tiles(plan: Plan) -> str:
    used = {host for cell in plan.cells for host in cell.hosts}
    values = (
        (f"{sum(cell.expected[-1].tokens_per_s for cell in plan.cells):,.0f}", "tokens/s at full load"),
        (str(len(plan.models)), "models" if len(plan.models) != 1 else "model"),
        (str(sum(len(cell.replicas) for cell in plan.cells)), "replicas"),
        (str(len(plan.cells)), "cells"),
        (str(len(used)), "hosts in use"),
    )
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{a}</b><span>{b}</span></div>' for a, b in values)
        + "</div>"
    )


def _picture(plan: Plan, hosts: dict[str, HostEntry], colours: dict[str, str]) -> str:
    on_host: dict[str, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        for host in cell.hosts:
            on_host[host].append(cell)
    racks: dict[str, list[str]] = defaultdict(list)
    names = sorted(hosts, key=natural)
    for name in names[:MOST_HOSTS_DRAWN]:
        racks[hosts[name].rack].append(name)
    legend = "".join(
        f'<li><span class="swatch" style="background:{colours[model.name]}"></span>{escape(model.name)}</li>'
        for model in plan.models
    )
    drawn = [_rack(rack, racks[rack], hosts, on_host, colours) for rack in sorted(racks, key=natural)]
    more = (
        f"<p><small>{len(names) - MOST_HOSTS_DRAWN} more hosts are in the table.</small></p>"
        if len(names) > MOST_HOSTS_DRAWN
        else ""
    )
    return (
        f'<section><h2>Racks</h2><ul class="legend">{legend}<li><span class="swatch" style="background:var(--idle)">'
        f'</span>not used</li></ul></section><div class="racks">{"".join(drawn)}</div>{more}'
    )


def _rack(
    rack: str, names: list[str], hosts: dict[str, HostEntry], on_host: dict[str, list[Cell]], colours: dict[str, str]
) -> str:
    """One SVG a rack, hosts from top to bottom."""
    parts, y = [], 34
    for name in names:
        drawn, height = _host(name, hosts[name], on_host[name], colours, y)
        parts.append(drawn)
        y += height + 8
    title = escape(rack or "Hosts")
    return (
        f'<div class="rack"><svg width="{RACK_WIDTH}" height="{y + 4}" viewBox="0 0 {RACK_WIDTH} {y + 4}" role="img" '
        f'aria-label="{title}: {escape(", ".join(names))}"><rect class="frame" x=".5" y=".5" width="{RACK_WIDTH - 1}" '
        f'height="{y + 3}" rx="8"/><text class="head" x="14" y="22">{title}</text>{"".join(parts)}</svg></div>'
    )


def _host(name: str, entry: HostEntry, cells: list[Cell], colours: dict[str, str], y: int) -> tuple[str, int]:
    accelerators = entry.hardware.accelerators
    rows = max(1, -(-len(accelerators) // 9))
    # 26 for the name, a row of tiles, a line of text a cell
    height = 30 + rows * TILE + 15 * max(1, len(cells))
    server = entry.hardware.server_model or ""
    parts = [
        f'<rect class="box" x="10" y="{y}" width="{RACK_WIDTH - 20}" height="{height}" rx="6"/>',
        f'<text class="head" x="20" y="{y + 18}">{escape(_cut(name, 26))}</text>',
        f'<text class="soft" x="{RACK_WIDTH - 20}" y="{y + 18}" text-anchor="end">{escape(_cut(server, 24))}</text>',
    ]
    top = y + 26
    on_cpu = [cell for cell in cells if cell.vendor == "cpu"]
    if accelerators and not on_cpu:
        owner = _owners(name, cells)
        parts += [_tile(item, owner.get(item.index), colours, number, top) for number, item in enumerate(accelerators)]
    else:
        parts.append(_nodes(entry, on_cpu, colours, top))
    line = top + rows * TILE + 11
    if not cells:
        what = f"{len(accelerators)}x {accelerators[0].model}" if accelerators else entry.hardware.cpu.model
        parts.append(f'<text class="soft" x="20" y="{line}">{escape(_cut(f"not used: {what}", 54))}</text>')
    for number, cell in enumerate(cells):
        speed = f"{cell.expected[-1].tokens_per_s:,.0f} tokens/s"
        where = line + 15 * number
        parts.append(
            f'<circle cx="24" cy="{where - 4}" r="4" fill="{colours[cell.model]}"/>'
            f'<text x="34" y="{where}">{escape(_cut(cell.model, 30))} <tspan class="soft">#{_number(cell)}</tspan>'
            f"<title>{escape(cell.name)}</title></text>"
            f'<text class="soft" x="{RACK_WIDTH - 20}" y="{where}" text-anchor="end">{speed}</text>'
        )
    return "".join(parts), height


def _number(cell: Cell) -> str:
    """The number at the end of a cell's name."""
    return cell.name.rsplit("-", 1)[-1]


def _owners(host: str, cells: list[Cell]) -> dict[int, tuple[Cell, int]]:
    """Which cell, and which of its replicas, has each accelerator of a host."""
    owner = {}
    for cell in cells:
        for number, one in enumerate(cell.replicas):
            for own, devices in zip(one.hosts, one.devices, strict=False):
                if own == host:
                    owner.update(dict.fromkeys(devices, (cell, number)))
    return owner


def _tile(item: Accelerator, owner: tuple[Cell, int] | None, colours: dict[str, str], number: int, top: int) -> str:
    x, y, side = 20 + number % 9 * TILE, top + number // 9 * TILE, TILE - 4
    label = f"{item.index}"
    if owner is None:
        kind = "idle" if item.usable else "off"
        return (
            f'<rect class="{kind}" x="{x}" y="{y}" width="{side}" height="{side}" rx="4"><title>{escape(item.model)} '
            f'{label}: not used</title></rect><text class="soft" x="{x + side / 2}" y="{y + 19}" '
            f'text-anchor="middle">{label}</text>'
        )
    cell, replica = owner
    faint = 1 - 0.22 * (replica % 2)
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="4" fill="{colours[cell.model]}" '
        f'fill-opacity="{faint:g}">'
        f"<title>{escape(item.model)} {label}: {escape(cell.name)}, replica {replica}</title></rect>"
        f'<text class="on" x="{x + side / 2}" y="{y + 19}" text-anchor="middle">{label}</text>'
    )


def _nodes(entry: HostEntry, cells: list[Cell], colours: dict[str, str], top: int) -> str:
    """Processors as bars, one a NUMA node, coloured where a CPU cell runs."""
    nodes = entry.hardware.cpu.domains
    width = (RACK_WIDTH - 40 - 4 * (nodes - 1)) / nodes
    replicas = [(cell, one) for cell in cells for one in cell.replicas]
    parts = []
    for node in range(nodes):
        own = [cell for cell, one in replicas if one.numa_node in (None, node)]
        x = 20 + node * (width + 4)
        fill = f'fill="{colours[own[0].model]}"' if own else 'class="idle"'
        text = "on" if own else "soft"
        cores = entry.hardware.cpu.cores // nodes
        parts.append(
            f'<rect {fill} x="{x:g}" y="{top}" width="{width:g}" height="{TILE - 4}" rx="4"/>'
            f'<text class="{text}" x="{x + width / 2:g}" y="{top + 19}" text-anchor="middle">{cores} cores</text>'
        )
    return "".join(parts)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numbers: set[int], wide: int | None = None) -> str:
    """Cells are HTML already."""

    def css(column: int) -> str:
        return ' class="n"' if column in numbers else ' class="w"' if column == wide else ""

    top = "".join(f"<th{css(column)}>{text}</th>" for column, text in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{css(column)}>{text}</td>" for column, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _swatch(model: str, colours: dict[str, str]) -> str:
    return f'<span class="swatch" style="background:{colours[model]}"></span>{escape(model)}'


def _expectations(plan: Plan, colours: dict[str, str]) -> str:
    by_pool: dict[str, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        by_pool[cell.pool].append(cell)
    rows = []
    for pool in plan.pools:
        last = max((cell.expected[-1] for cell in by_pool[pool.name]), key=lambda item: item.time_per_output_token_s)
        first = max((cell.expected[0] for cell in by_pool[pool.name]), key=lambda item: item.time_per_output_token_s)
        rows.append(
            (
                _swatch(pool.model, colours),
                f"{escape(pool.accelerator)}<br><small>{escape(pool.engine)}, tensor parallel "
                f"{pool.tensor_parallel_size}</small>",
                str(pool.replicas),
                f"{pool.tokens_per_s:,.0f}",
                f"{first.time_per_output_token_s * 1e3:.1f} to {last.time_per_output_token_s * 1e3:.1f}",
                f"{last.time_to_first_token_s * 1e3:,.0f}",
                f"{escape(pool.limited_by)}<br><small>{escape(pool.headroom)}.</small>",
            )
        )
    if not rows:
        return ""
    head = ("Model", "Accelerator", "Replicas", "Tokens/s", "ms a token", "First token, ms", "Limited by")
    return f"<h2>What to expect</h2>{_table(head, rows, {2, 3, 4, 5}, 6)}"


def _cells(plan: Plan, colours: dict[str, str]) -> str:
    rows = [
        (
            _swatch(cell.model, colours),
            escape(cell.name),
            escape(host_ranges(cell.hosts)),
            escape(devices_of(cell)),
            f"{cell.limits.kv_cache_tokens:,}",
            str(cell.ports["serve"]),
            str(cell.weight),
        )
        for cell in plan.cells
    ]
    head = ("Model", "Cell", "Host", "Takes", "KV tokens a replica", "Port", "Weight")
    return f"<h2>Cells</h2>{_table(head, rows, {4, 5, 6})}" if rows else ""


def _reasons(title: str, reasons: list[Reason]) -> str:
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for reason in reasons:
        same[reason.text, reason.change].append(reason.subject)
    rows = [(escape(host_ranges(subjects)), escape(text), escape(change)) for (text, change), subjects in same.items()]
    return f"<h2>{title}</h2>{_table(('What', 'Why', 'What would change it'), rows, set(), 1)}" if rows else ""


def _advice(plan: Plan) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in plan.advice)
    return f"<h2>What one more host would add</h2><ul>{lines}</ul>" if lines else ""
