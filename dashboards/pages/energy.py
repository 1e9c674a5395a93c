"""Watts, joules per token and what a million tokens cost."""

from __future__ import annotations

from ..panels import Bars, Choice, Number, Page, Panel, Query, Section
from ..queries import GPU_POWER, PLAN, SERVER_POWER, cell_power, host_power, tokens

WATTS = f"sum({host_power()})"
ALL_TOKENS = tokens("job", "")
MODELS = 'model=~"$model"'
MODEL_WATTS = f"sum by (model) ({cell_power()} * on (model) group_left () group by (model) ({PLAN}{{{MODELS}}}))"
MODEL_TOKENS = f"({tokens('model')} > 0)"
CELL_WATTS = f"sum by (cell) ({cell_power()} * on (model) group_left () group by (model) ({PLAN}{{{MODELS}}}))"
PRICE = "max(heteroserve_energy_price_per_kwh)"


def cost_per_million(watts: str, rate: str) -> str:
    """A watt for a token a second is a joule a token; a million joules are 1 / 3.6 kWh."""
    return f"{watts} / {rate} / 3.6 * scalar({PRICE})"


PAGE = Page(
    name="energy",
    title="Energy",
    about="What the hosts draw, what of it each model takes for its tokens, and what that costs.",
    choices=(Choice("model", f"label_values({PLAN}, model)"),),
    sections=(
        Section(
            "Now",
            (
                Number(
                    "Power",
                    "What all hosts draw: each server as its iDRAC says, without one the sum of its GPUs.",
                    (Query(WATTS),),
                    unit="watt",
                    width=6,
                ),
                Number(
                    "Joules per token",
                    "Energy of all hosts for each generated token, idle hosts included.",
                    (Query(f"{WATTS} / sum({ALL_TOKENS} > 0)"),),
                    unit="joule",
                    decimals=2,
                    width=6,
                    empty="no tokens",
                ),
                Number(
                    "Tokens per watt",
                    "Tokens a second for each watt: how much a rack's supply is worth.",
                    (Query(f"sum({ALL_TOKENS} > 0) / {WATTS}"),),
                    decimals=3,
                    width=6,
                    empty="no tokens",
                ),
                Number(
                    "Cost of a million tokens",
                    "Energy for a million generated tokens at energy_price, in its currency. Hardware and cooling "
                    "are not in it.",
                    (Query(cost_per_million(WATTS, f"sum({ALL_TOKENS} > 0)")),),
                    decimals=2,
                    width=6,
                    empty="no tokens",
                ),
            ),
        ),
        Section(
            "Hosts",
            (
                Panel(
                    "Power of each host",
                    "As its iDRAC says; without one, what its GPUs draw together.",
                    (Query(host_power(), "{{host}}"),),
                    unit="watt",
                    stacked=True,
                ),
                Panel(
                    "Share of GPUs",
                    "Share of a server's power that its GPUs take; the rest is processors, memory, fans and losses.",
                    (
                        Query(
                            f'sum by (host) ({{__name__=~"{GPU_POWER}"}}) / on (host) max by (host) ({SERVER_POWER})',
                            "{{host}}",
                        ),
                    ),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Cost an hour",
                    "What the energy of each host costs an hour at energy_price, in its currency.",
                    (Query(f"{host_power()} / 1000 * scalar({PRICE})", "{{host}}"),),
                    stacked=True,
                    decimals=2,
                ),
            ),
        ),
        Section(
            "Models",
            (
                Panel(
                    "Power of each model",
                    "What its cells draw. A host's power counts for its cells in equal parts, busy or not.",
                    (Query(MODEL_WATTS, "{{model}}"),),
                    unit="watt",
                    stacked=True,
                ),
                Panel(
                    "Joules per token",
                    "Energy of each model's cells for a generated token. It falls as the batch grows.",
                    (Query(f"{MODEL_WATTS} / {MODEL_TOKENS}", "{{model}}"),),
                    unit="joule",
                ),
                Panel(
                    "Cost of a million tokens",
                    "Energy for a million generated tokens of each model at energy_price, in its currency.",
                    (Query(cost_per_million(MODEL_WATTS, MODEL_TOKENS), "{{model}}"),),
                    decimals=2,
                ),
                Bars(
                    "Tokens per watt of each cell",
                    "Tokens a second for each watt: what the same model makes of different accelerators.",
                    (Query(f"({tokens('cell')} > 0) / {CELL_WATTS}", "{{cell}}"),),
                    decimals=3,
                    width=24,
                    height=6,
                    empty="no tokens",
                ),
            ),
        ),
    ),
)
