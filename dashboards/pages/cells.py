"""Models and cells: throughput against the plan, and what an engine is busy with."""

from __future__ import annotations

from ..panels import BAD, FAIR, GOOD, PLANNED, Bars, Choice, Page, Panel, Query, Section
from ..queries import CELL, PLAN, RATE, engine, mean, quantile, tokens


def each(name: str, combine: str = "sum") -> Query:
    """A gauge of each cell."""
    return Query(f"{combine} by (cell) ({engine(name, choose=CELL)})", "{{cell}}")


def counted(name: str) -> Query:
    """A counter of each cell, a second."""
    return Query(f"sum by (cell) (rate({engine(name, choose=CELL)}[{RATE}]))", "{{cell}}")


STARTS = f"ray_serve_deployment_replica_starts_total{{{CELL}}}"
MEASURED = tokens("cell", CELL)
PLANNED_RATE = f"max by (cell) ({PLAN}{{{CELL}}})"
PHASES = ("queue", "prefill", "decode")

PAGE = Page(
    name="cells",
    title="Models and cells",
    about="Throughput of each cell against the plan's expectation, and what its engine is busy with.",
    choices=(
        Choice("model", f"label_values({PLAN}, model)"),
        Choice("cell", f'label_values({PLAN}{{model=~"$model"}}, cell)'),
    ),
    sections=(
        Section(
            "Throughput",
            (
                Panel(
                    "Tokens a second against the plan",
                    "Generated tokens a second. The dashed line is what the plan expects at full load: a cell with few "
                    "requests stays below it, a busy one should not.",
                    (Query(MEASURED, "{{cell}}"), Query(PLANNED_RATE, PLANNED + " {{cell}}")),
                    unit="suffix: tok/s",
                    width=12,
                ),
                Bars(
                    "Share of the plan",
                    "Tokens a second as a share of the plan's expectation, now. Under full load less than 80 % for an "
                    "hour is a fault.",
                    (Query(f"{MEASURED} / {PLANNED_RATE}", "{{cell}}"),),
                    unit="percentunit",
                    high=1.25,
                    width=6,
                    steps=((FAIR, None), (GOOD, 0.8)),
                    empty="no tokens",
                ),
                Panel(
                    "Prompt tokens a second",
                    "Tokens of prompts a second; those that the prefix cache had cost almost nothing.",
                    (counted("prompt_tokens_total"),),
                    unit="suffix: tok/s",
                    width=6,
                ),
            ),
        ),
        Section(
            "The engine's batch and memory",
            (
                Panel(
                    "Batch",
                    "Requests that are computed together. At the plan's max_num_seqs further ones wait.",
                    (each("(num_requests_running|num_requests)"),),
                ),
                Panel(
                    "Waiting",
                    "Requests that wait in the engine for a place in the batch.",
                    (each("num_requests_waiting"),),
                ),
                Panel(
                    "KV cache",
                    "Used share of the KV cache, of the fullest replica. Full for long: requests are preempted.",
                    (each("kv_cache_usage_perc", "max"),),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Preemptions",
                    "Requests a second that lost their KV cache to others and are computed again. If there are some: "
                    "lower max_num_seqs, or the context.",
                    (counted("num_preemptions_total"),),
                ),
                Panel(
                    "Prefix hits",
                    "Share of prompt tokens that were found in the prefix cache.",
                    (
                        Query(
                            f"{counted('prefix_cache_hits_total').expr}"
                            f" / ({counted('prefix_cache_queries_total').expr} > 0)",
                            "{{cell}}",
                        ),
                    ),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "How answers end",
                    "Answers a second by their reason: stop, length (of max_tokens), abort (the client left), error.",
                    (
                        Query(
                            f"sum by (finished_reason) (rate({engine('request_success_total', choose=CELL)}[{RATE}]))",
                            "{{finished_reason}}",
                        ),
                    ),
                    unit="reqps",
                    stacked=True,
                ),
            ),
        ),
        Section(
            "Times",
            (
                Panel(
                    "First token, p95",
                    "95 of 100 requests had their first token within this time.",
                    (Query(quantile(0.95, "time_to_first_token_seconds", "cell", CELL), "{{cell}}"),),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Time per token, p95",
                    "95 of 100 answers had this mean time between tokens, or less. Only vLLM reports it.",
                    (Query(quantile(0.95, "request_time_per_output_token_seconds", "cell", CELL), "{{cell}}"),),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Where a request's time goes",
                    "Mean seconds of a request in the engine's queue, with its prompt (prefill) and with its answer "
                    "(decode). Only vLLM reports it.",
                    tuple(Query(mean(f"request_{one}_time_seconds", "cell"), f"{{{{cell}}}} {one}") for one in PHASES),
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Length of prompts and answers",
                    "Mean tokens of a request. The plan's expectations are for the lengths in plan.json.",
                    (
                        Query(mean("request_prompt_tokens", "cell"), "{{cell}} prompt"),
                        Query(mean("request_generation_tokens", "cell"), "{{cell}} answer"),
                    ),
                    unit="suffix: tokens",
                    width=6,
                ),
            ),
        ),
        Section(
            "Starts and health",
            (
                Panel(
                    "Healthy replicas",
                    "Replicas that pass Ray Serve's health check.",
                    (Query(f"sum by (cell) (ray_serve_deployment_replica_healthy{{{CELL}}})", "{{cell}}"),),
                ),
                Bars(
                    "Replicas lost in a day",
                    "Replicas of the last 24 hours that are gone: restarts, and what updates replaced.",
                    (
                        Query(
                            f"count by (cell) (group by (cell, replica) (last_over_time({STARTS}[1d])))"
                            f" - count by (cell) (group by (cell, replica) ({STARTS}))",
                            "{{cell}}",
                        ),
                    ),
                    steps=((GOOD, None), (FAIR, 1), (BAD, 5)),
                ),
                Bars(
                    "Start-up time",
                    "Mean seconds until a replica was ready, as Ray Serve counts them (in coarse steps).",
                    (
                        Query(
                            f"sum by (cell) (ray_serve_replica_startup_latency_ms_sum{{{CELL}}}) / 1000"
                            f" / sum by (cell) (ray_serve_replica_startup_latency_ms_count{{{CELL}}})",
                            "{{cell}}",
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
    ),
)
