"""What clients get: requests, errors, times and queues, by model."""

from __future__ import annotations

from ..panels import BAD, FAIR, GOOD, Choice, Number, Page, Panel, Query, Section
from ..queries import RATE, engine, of_models, quantile

FRONT = '{job="gateway", proxy="endpoint"}'
UP = 'haproxy_server_status{job="gateway", proxy=~"model-.+", state="UP"}'
ANSWERS = f'rate(haproxy_frontend_http_responses_total{FRONT[:-1]}, code=~"2xx|4xx|5xx"}}[{RATE}])'
FAILED = f'rate(haproxy_frontend_http_responses_total{FRONT[:-1]}, code="5xx"}}[{RATE}])'


def backend(name: str, where: str = "") -> str:
    """A figure of HAProxy's backends."""
    return f'haproxy_backend_{name}{{job="gateway"{where}}}'


def counted(name: str, where: str = "") -> str:
    """A counter of HAProxy's backends by model, a second."""
    return of_models(f"rate({backend(name, where)}[{RATE}])")


def percentiles(name: str) -> tuple[Query, ...]:
    """p50, p95 and p99 of each model."""
    return tuple(
        Query(quantile(share, name, "model"), f"{{{{model}}}} {{{{engine}}}} p{round(share * 100)}")
        for share in (0.5, 0.95, 0.99)
    )


PAGE = Page(
    name="endpoint",
    title="Endpoint",
    about="What clients of the endpoint get: requests, errors, times and queues, by model.",
    choices=(Choice("model", "label_values(heteroserve_plan_tokens_per_second, model)"),),
    sections=(
        Section(
            "Now",
            (
                Number(
                    "Requests",
                    "Requests a second that the gateway answered, of all models and with every status.",
                    (Query(f"sum({ANSWERS})"),),
                    unit="reqps",
                    decimals=1,
                ),
                Number(
                    "Answered well",
                    "Share of answers that are no 5xx. A refusal (401, 404, 413, 429) is an answer.",
                    (Query(f"1 - sum({FAILED}) / (sum({ANSWERS}) > 0)"),),
                    unit="percentunit",
                    decimals=2,
                    steps=((BAD, None), (FAIR, 0.99), (GOOD, 0.999)),
                    empty="no requests",
                ),
                Number(
                    "First token, p95",
                    "95 of 100 requests had their first token within this time, in the slowest model.",
                    (Query(f"max({quantile(0.95, 'time_to_first_token_seconds', 'model')})"),),
                    unit="s",
                    steps=((GOOD, None), (FAIR, 2), (BAD, 10)),
                    empty="no requests",
                ),
                Number(
                    "In progress",
                    "Requests that cells work on now.",
                    (Query(f"sum({of_models(backend('current_sessions'))})"),),
                ),
                Number(
                    "Waiting",
                    "Requests that the gateway holds because every cell of their model has all it can take.",
                    (Query(f"sum({of_models(backend('current_queue'))})"),),
                    steps=((GOOD, None), (FAIR, 1), (BAD, 50)),
                ),
                Number(
                    "Cells up",
                    "Cells that pass the gateway's check, of all models. A cell that is drained does not count.",
                    (Query(f"sum(max by (server) ({UP}))"),),
                    steps=((BAD, None), (GOOD, 1)),
                ),
            ),
        ),
        Section(
            "Requests",
            (
                Panel(
                    "Requests by model",
                    "Requests a second that reached a model, answered in any way.",
                    (Query(counted("http_requests_total"), "{{model}}"),),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    "Answers by status",
                    "Answers of the gateway a second: 4xx are refusals (key, model, size, limit), 5xx are ours.",
                    (Query(f"sum by (code) ({ANSWERS})", "{{code}}"),),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    "Errors by model",
                    "5xx a second, by model. Not zero for long: look at the model's cells.",
                    (
                        Query(
                            counted("http_responses_total", ', code="5xx"'),
                            "{{model}}",
                        ),
                    ),
                    unit="reqps",
                ),
            ),
        ),
        Section(
            "Times",
            (
                Panel(
                    "First token",
                    "From a request's arrival at the engine to its first token: its wait in the engine and its prompt.",
                    percentiles("time_to_first_token_seconds"),
                    unit="s",
                ),
                Panel(
                    "Time per token",
                    "Mean time between the tokens of an answer, of each request. Only vLLM reports it.",
                    percentiles("request_time_per_output_token_seconds"),
                    unit="s",
                ),
                Panel(
                    "Whole answer",
                    "From a request's arrival at the engine to its last token.",
                    percentiles("e2e_request_latency_seconds"),
                    unit="s",
                ),
            ),
        ),
        Section(
            "Queues",
            (
                Panel(
                    "In progress",
                    "Requests that the gateway has given to cells.",
                    (Query(of_models(backend("current_sessions")), "{{model}}"),),
                    stacked=True,
                ),
                Panel(
                    "Waiting",
                    "Requests that wait in the gateway for a free cell, and in engines for a place in the batch.",
                    (
                        Query(of_models(backend("current_queue")), "{{model}}, gateway"),
                        Query(f"sum by (model) ({engine('num_requests_waiting')})", "{{model}}, engine"),
                    ),
                ),
                Panel(
                    "Tried again",
                    "Requests a second that the gateway gave to a second cell (redispatched) or sent again (retried).",
                    (
                        Query(counted("redispatch_warnings_total"), "{{model}} redispatched"),
                        Query(counted("retry_warnings_total"), "{{model}} retried"),
                    ),
                    unit="reqps",
                ),
                Panel(
                    "Connections",
                    "Open connections of clients, as a share of those that a gateway takes (gateway_max_connections).",
                    (
                        Query(
                            f"max by (host) (haproxy_frontend_current_sessions{FRONT}"
                            f" / haproxy_frontend_limit_sessions{FRONT})",
                            "{{host}}",
                        ),
                    ),
                    unit="percentunit",
                    width=12,
                ),
                Panel(
                    "Right answers",
                    "Verdict of the last known-answer check of each cell: 1 is right, 0 is wrong.",
                    (Query('max by (cell) (heteroserve_health_right{model=~"$model"})', "{{cell}}"),),
                    high=1,
                    width=12,
                ),
            ),
        ),
    ),
)
