"""Pieces of PromQL that several pages use.

Labels are those of Prometheus' targets: ``host`` of each, also ``cell``, ``model``, ``engine`` and ``accelerator`` of
cells. Grafana fills ``$model``, ``$cell`` and ``$host`` with regular expressions and ``$__rate_interval`` with at least
four scrapes.
"""

from __future__ import annotations

RATE = "$__rate_interval"
# Every cell of the plan, with its model, engine, host and accelerator as labels.
PLAN = "heteroserve_plan_tokens_per_second"
CELL = 'model=~"$model", cell=~"$cell"'
# Which cell serves which model, with the value 1.
CELLS_OF_MODELS = f'group by (cell, model) ({PLAN}{{model=~"$model"}})'
# What a server draws, as its iDRAC says.
SERVER_POWER = "idrac_power_control_consumed_watts"
# MI3xx have one of AMD's, MI2xx the other.
GPU_POWER = "DCGM_FI_DEV_POWER_USAGE|gpu_package_power|gpu_average_package_power"


def engine(name: str, choose: str = 'model=~"$model"') -> str:
    """Figures of engines: vLLM's own, vLLM's through Ray (cells over several hosts), and those of the other engines.

    Ray's are read under the job cells, those that an engine shows itself under engines.
    """
    conditions = [f'__name__=~"(vllm:|ray_vllm_|heteroserve_engine_){name}"', 'job=~"cells|engines"', choose]
    return "{" + ", ".join(one for one in conditions if one) + "}"


def quantile(share: float, name: str, by: str, choose: str = 'model=~"$model"') -> str:
    """A percentile of a histogram of the engines. They differ in buckets, so they are never added up."""
    buckets = engine(f"{name}_bucket", choose=choose)
    return f"histogram_quantile({share}, sum by (le, {by}, engine) (rate({buckets}[{RATE}])))"


def mean(name: str, by: str, choose: str = CELL) -> str:
    """The mean of a histogram of the engines."""
    parts = [f"sum by ({by}) (rate({engine(f'{name}_{part}', choose=choose)}[{RATE}]))" for part in ("sum", "count")]
    return f"{parts[0]} / ({parts[1]} > 0)"


def of_models(backend: str, by: str = "model") -> str:
    """Figures of HAProxy's backends by model; ``backend`` is a query whose series have the label ``proxy``.

    The plan says which cell serves which model, HAProxy which backend has the cell as a server.
    """
    servers = 'label_replace(haproxy_server_status{job="gateway"}, "cell", "$1", "server", "(.+)")'
    models = (
        f"group by (proxy, model) (group by (proxy, cell) ({servers}) * on (cell) group_left (model) {CELLS_OF_MODELS})"
    )
    return f"sum by ({by}) ({backend} * on (proxy) group_left (model) {models})"


def tokens(by: str, choose: str = 'model=~"$model"') -> str:
    """Generated tokens a second."""
    return f"sum by ({by}) (rate({engine('generation_tokens_total', choose=choose)}[{RATE}]))"


def host_power() -> str:
    """Watts of each host: its iDRAC's, and where there is none those of its GPUs."""
    return f'(max by (host) ({SERVER_POWER}) or sum by (host) ({{__name__=~"{GPU_POWER}"}}))'


def cell_power() -> str:
    """Watts of each cell: those of its host, in equal parts for the cells on it."""
    places = f"group by (host, cell, model) ({PLAN})"
    shared = f"({host_power()} / count by (host) (group by (host, cell) ({PLAN})))"
    return f"({places} * on (host) group_left () {shared})"
