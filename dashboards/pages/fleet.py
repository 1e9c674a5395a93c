"""One page for a screen on the wall: is all well, and how much is done?"""

from __future__ import annotations

from ..panels import BAD, FAIR, GOOD, PLANNED, Bars, Number, Page, Panel, Query, Section
from ..queries import PLAN, RATE, host_power, quantile, tokens
from .endpoint import ANSWERS, FAILED
from .energy import ALL_TOKENS, WATTS, cost_per_million

CPU = 'node_cpu_seconds_total{job="node", mode=~"idle|iowait"}'
BUSY = f"1 - sum by (host) (avg by (host, mode) (rate({CPU}[{RATE}])))"
FIRST = quantile(0.95, "time_to_first_token_seconds", "model", "")
BROKEN = (
    "(count(DCGM_FI_DEV_XID_ERRORS > 0) or vector(0)) + (count(DCGM_FI_DEV_ECC_DBE_VOL_TOTAL > 0) or vector(0))"
    " + (count(gpu_ecc_uncorrect_total > 0) or vector(0)) + (count(gpu_health == 0) or vector(0))"
)

PAGE = Page(
    name="fleet",
    title="Fleet",
    about="For a screen on the wall: is all well, and how much is done?",
    refresh="10s",
    sections=(
        Section(
            "Is all well?",
            (
                Number(
                    "Answered well",
                    "Share of answers that are no 5xx.",
                    (Query(f"1 - sum({FAILED}) / (sum({ANSWERS}) > 0)"),),
                    unit="percentunit",
                    decimals=2,
                    height=5,
                    steps=((BAD, None), (FAIR, 0.99), (GOOD, 0.999)),
                    empty="no requests",
                ),
                Number(
                    "Cells with right answers",
                    "Share of cells whose last known-answer check was right.",
                    (Query("avg(max by (cell) (heteroserve_health_right))"),),
                    unit="percentunit",
                    height=5,
                    steps=((BAD, None), (FAIR, 0.5), (GOOD, 1)),
                    empty="not checked",
                ),
                Number(
                    "Minutes since the check",
                    "Since the last known-answer check. It is out of date after a quarter of an hour.",
                    (Query("(time() - max(heteroserve_health_checked_timestamp_seconds)) / 60"),),
                    decimals=0,
                    height=5,
                    steps=((GOOD, None), (FAIR, 15), (BAD, 60)),
                    empty="not checked",
                ),
                Number(
                    "Targets down",
                    "Exporters and cells that Prometheus cannot read.",
                    (Query("count(up == 0) or vector(0)"),),
                    height=5,
                    steps=((GOOD, None), (BAD, 1)),
                ),
                Number(
                    "Faults of GPUs",
                    "GPUs with an XID, with errors that ECC could not correct, or that AMD's exporter calls unhealthy.",
                    (Query(BROKEN),),
                    height=5,
                    steps=((GOOD, None), (BAD, 1)),
                ),
                Number(
                    "First token, p95",
                    "Of the slowest model.",
                    (Query(f"max({FIRST})"),),
                    unit="s",
                    height=5,
                    steps=((GOOD, None), (FAIR, 2), (BAD, 10)),
                    empty="no requests",
                ),
            ),
        ),
        Section(
            "How much is done?",
            (
                Panel(
                    "Tokens a second",
                    "Generated tokens of each model; the dashed line is what the plan expects of all under full load.",
                    (Query(tokens("model", ""), "{{model}}"), Query(f"sum(max by (cell) ({PLAN}))", PLANNED)),
                    unit="suffix: tok/s",
                    width=12,
                    height=9,
                ),
                Number("Requests", "A second.", (Query(f"sum({ANSWERS})"),), unit="reqps", decimals=1, height=9),
                Number("Power", "Of all hosts.", (Query(WATTS),), unit="watt", height=9),
                Number(
                    "Cost of a million tokens",
                    "Of energy, at energy_price.",
                    (Query(cost_per_million(WATTS, f"sum({ALL_TOKENS} > 0)")),),
                    decimals=2,
                    height=9,
                    empty="no tokens",
                ),
            ),
        ),
        Section(
            "Where?",
            (
                Bars(
                    "Processors",
                    "Busy share of each host's cores.",
                    (Query(BUSY, "{{host}}"),),
                    unit="percentunit",
                    high=1,
                    steps=((GOOD, None), (FAIR, 0.9)),
                ),
                Bars(
                    "GPUs",
                    "Mean use of each host's GPUs.",
                    (Query('avg by (host) ({__name__=~"DCGM_FI_DEV_GPU_UTIL|gpu_gfx_activity"})', "{{host}}"),),
                    unit="percent",
                    high=100,
                    steps=((GOOD, None),),
                    empty="no GPU",
                ),
                Bars(
                    "Power of each host",
                    "As its iDRAC says; else of its GPUs.",
                    (Query(host_power(), "{{host}}"),),
                    unit="watt",
                ),
            ),
        ),
    ),
)
