"""The rules of Prometheus: what is worked out all the time, and when somebody is told.

Each alert has a section in docs/alerts.md under its name, and a case in tests/unit/monitoring/alert_cases.py in which
it fires, does not fire, and resolves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .gpu_faults import XIDS

MINUTE, HOUR = 60, 3600
ABOVE = "ABOVE"  # stands in an expression for the alert's threshold
CELLS = "heteroserve_plan_cell_info"
PER_CELL = "cell, model, host, engine, accelerator"


@dataclass(frozen=True)
class Alert:
    """A condition that somebody must know of. ``summary`` may use Prometheus's templates."""

    name: str
    expr: str
    for_s: int  # how long it must hold
    severity: str  # "critical": clients are affected, or soon will be; "warning": look at it by daylight
    summary: str
    above: float | None = None  # threshold, where the expression has one
    jobs: tuple[str, ...] = ()  # jobs whose targets it needs; without any of them it is left out


def engine(metric: str) -> str:
    """A metric of vLLM, served by vLLM itself or through Ray, and the same of HeteroServe's own engines."""
    return f'{{__name__=~"(vllm:|ray_vllm_|heteroserve_engine_){metric}"}}'


def servers(state: str) -> str:
    """HAProxy's view of cells: 1 for those in a state."""
    found = f'haproxy_server_status{{proxy=~"model-.+", state="{state}"}}'
    return f'max by (cell) (label_replace({found}, "cell", "$1", "server", "(.+)"))'


def _responses(window: str, code: str = "") -> str:
    chosen = f', code="{code}"' if code else ""
    return f'sum(rate(haproxy_frontend_http_responses_total{{proxy="endpoint"{chosen}}}[{window}]))'


WINDOWS = ("5m", "30m", "1h", "6h")
RECORDS = {
    "heteroserve:cell_up": servers("UP"),
    "heteroserve:cell_drained": f"max by (cell) ({servers('DRAIN')} or {servers('MAINT')})",
    **{
        f"heteroserve:endpoint_error_ratio:{window}": f"{_responses(window, '5xx')} / ({_responses(window)} > 0)"
        for window in WINDOWS
    },
    "heteroserve:first_token_seconds:p95": (
        f"histogram_quantile(0.95, sum by (model, le) (rate({engine('time_to_first_token_seconds_bucket')}[5m])))"
    ),
    "heteroserve:generation_tokens:rate15m": (f"sum by ({PER_CELL}) (rate({engine('generation_tokens_total')}[15m]))"),
    "heteroserve:requests_running": f"sum by ({PER_CELL}) ({engine('num_requests(_running)?')})",
    "heteroserve:kv_cache_usage:max": f"max by ({PER_CELL}) ({engine('kv_cache_usage_perc')})",
    "heteroserve:preemptions:rate10m": f"sum by ({PER_CELL}) (rate({engine('num_preemptions_total')}[10m]))",
}

# Bits of DCGM_FI_DEV_CLOCKS_EVENT_REASONS (older: CLOCK_THROTTLE_REASONS) that mean heat or a power brake.
THROTTLE_BITS = (8, 32, 64, 128)
CLOCK_REASONS = '{__name__=~"DCGM_FI_DEV_(CLOCKS_EVENT|CLOCK_THROTTLE)_REASONS"}'
AMD_HEAT = '{__name__=~"gpu_violation_(processor_hot|socket_thermal|vr_thermal|hbm_thermal)_residency_percentage"}'
FILESYSTEMS = 'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|nfs.*|fuse.*", mountpoint!~"/(boot|run|var/lib/kubelet).*"'


def _xid(numbers: Iterable[int]) -> str:
    return "(" + " or ".join(f"DCGM_FI_DEV_XID_ERRORS == {number}" for number in numbers) + ")"


def _kinds(**exprs: str) -> str:
    """Faults of GPUs, told apart by their kind: two at once on a GPU are two alerts."""
    by = "host, gpu, gpu_id"
    return " or ".join(
        f'label_replace(max by ({by}) ({expr}), "kind", "{kind}", "", "")' for kind, expr in exprs.items()
    )


def _burn(factor: float, long: str, short: str) -> str:
    """Of the budget that the objective leaves, ``factor`` times what may be used, in both windows."""
    ratios = (f"heteroserve:endpoint_error_ratio:{window} > {factor} * (1 - {ABOVE} / 100)" for window in (long, short))
    return " and ".join(ratios)


ALERTS = (
    Alert(
        "EndpointDown",
        'up{job="gateway"} == 0',
        MINUTE,
        "critical",
        "The gateway on {{ $labels.host }} does not answer.",
        jobs=("gateway",),
    ),
    Alert(
        "ModelDown",
        f"(count by (model) ({CELLS}) unless on (model) count by (model) ({CELLS} and on (cell)"
        ' (heteroserve:cell_up == 1))) and on () (max(up{job="gateway"}) == 1)',
        MINUTE,
        "critical",
        "No cell of {{ $labels.model }} answers: clients get 503.",
        jobs=("gateway",),
    ),
    Alert(
        "CellDown",
        f"{CELLS} unless on (cell) (heteroserve:cell_up == 1) unless on (cell) (heteroserve:cell_drained == 1)"
        ' and on (cell) (max_over_time(heteroserve:cell_up[6h]) == 1) and on () (max(up{job="gateway"}) == 1)',
        MINUTE,
        "critical",
        "The cell {{ $labels.cell }} on {{ $labels.host }} does not answer the gateway.",
        jobs=("gateway",),
    ),
    Alert(
        "CellNeverReady",
        f"{CELLS} unless on (cell) (max_over_time(heteroserve:cell_up[6h]) == 1)"
        ' and on () (max(up{job="gateway"}) == 1)',
        30 * MINUTE,
        "warning",
        "The cell {{ $labels.cell }} on {{ $labels.host }} is planned and has not answered for hours.",
        jobs=("gateway",),
    ),
    Alert(
        "WrongAnswer",
        "min by (cell, model) (heteroserve_health_right) == 0 and on (cell, model)"
        " max by (cell, model) (heteroserve_health_answered) == 1",
        90,
        "critical",
        "The known-answer check of {{ $labels.model }} {{ if $labels.cell }}on {{ $labels.cell }}{{ else }}through the"
        " gateway{{ end }} is answered wrongly.",
        jobs=("health",),
    ),
    Alert(
        "NoAnswer",
        "max by (cell, model) (heteroserve_health_answered) == 0 unless on (cell) (heteroserve:cell_drained == 1)",
        3 * MINUTE,
        "critical",
        "The known-answer check of {{ $labels.model }} {{ if $labels.cell }}on {{ $labels.cell }}{{ else }}through the"
        " gateway{{ end }} gets no answer.",
        jobs=("health",),
    ),
    Alert(
        "HealthCheckStale",
        f"time() - max by (cell, model) (heteroserve_health_checked_timestamp_seconds) > {ABOVE}",
        MINUTE,
        "warning",
        "{{ $labels.model }} {{ $labels.cell }} was last checked {{ $value | humanizeDuration }} ago.",
        900,
        ("health",),
    ),
    Alert(
        "ErrorRate",
        f"heteroserve:endpoint_error_ratio:5m > {ABOVE}",
        5 * MINUTE,
        "critical",
        "{{ $value | humanizePercentage }} of all answers are 5xx.",
        0.05,
        ("gateway",),
    ),
    Alert(
        "ErrorBudgetBurnsFast",
        _burn(14.4, "1h", "5m"),
        2 * MINUTE,
        "critical",
        "At this rate two days use up the month's error budget: {{ $value | humanizePercentage }} of answers are 5xx.",
        99.5,
        ("gateway",),
    ),
    Alert(
        "ErrorBudgetBurns",
        _burn(6, "6h", "30m"),
        15 * MINUTE,
        "warning",
        "At this rate five days use up the month's error budget: {{ $value | humanizePercentage }} of answers are 5xx.",
        99.5,
        ("gateway",),
    ),
    Alert(
        "SlowFirstToken",
        f"heteroserve:first_token_seconds:p95 > {ABOVE}",
        10 * MINUTE,
        "warning",
        "One request in twenty to {{ $labels.model }} waits {{ $value | humanizeDuration }} for its first token.",
        5,
        ("engines",),
    ),
    Alert(
        "KvCacheFull",
        f"heteroserve:kv_cache_usage:max > {ABOVE}",
        5 * MINUTE,
        "warning",
        "The KV cache of {{ $labels.cell }} is {{ $value | humanizePercentage }} full: further requests wait.",
        0.95,
        ("engines",),
    ),
    Alert(
        "Preemptions",
        f"heteroserve:preemptions:rate10m > {ABOVE}",
        10 * MINUTE,
        "warning",
        "{{ $labels.cell }} takes {{ $value | humanize }} answers a second off the GPU and computes them again.",
        0.1,
        ("engines",),
    ),
    Alert(
        "PlanNotMet",
        f"heteroserve:generation_tokens:rate15m < on ({PER_CELL}) {ABOVE} * heteroserve_plan_tokens_per_second"
        f" and on ({PER_CELL}) (avg_over_time(heteroserve:requests_running[15m])"
        f" >= on ({PER_CELL}) heteroserve_plan_requests)",
        HOUR,
        "warning",
        "{{ $labels.cell }} is full and gives {{ $value | humanize }} tokens/s, well under its plan.",
        0.7,
        ("engines", "plan"),
    ),
    Alert(
        "HostDown",
        'up{job="node"} == 0',
        2 * MINUTE,
        "critical",
        "{{ $labels.host }} does not answer.",
        jobs=("node",),
    ),
    Alert(
        "GpuFault",
        _kinds(
            xid=_xid(XIDS),
            remap="DCGM_FI_DEV_ROW_REMAP_FAILURE > 0",
            ecc="DCGM_FI_DEV_ECC_DBE_VOL_TOTAL > 0",
            health="gpu_health == 0",
        ),
        0,
        "critical",
        "GPU {{ $labels.gpu }}{{ $labels.gpu_id }} of {{ $labels.host }} is broken ({{ $labels.kind }} {{ $value }}).",
        jobs=("dcgm", "amd"),
    ),
    Alert(
        "CellOnFaultyGpu",
        "max by (cell, gpu, faulty_host, state, reason) (heteroserve_gpu_fault) == 1",
        0,
        "critical",
        "{{ $labels.reason }}",
        jobs=("dcgm", "amd"),
    ),
    Alert(
        "GpuNeedsReset",
        _kinds(xid=_xid((63, 94, 154)), remap="DCGM_FI_DEV_ROW_REMAP_PENDING > 0"),
        5 * MINUTE,
        "warning",
        "GPU {{ $labels.gpu }} of {{ $labels.host }} works and needs a reset.",
        jobs=("dcgm",),
    ),
    Alert(
        "GpuLost",
        " or ".join(
            f'sum by (host) (heteroserve_plan_gpus{{vendor="{vendor}"}}) {than} count by (host) ({metric})'
            for vendor, metric in (("nvidia", "DCGM_FI_DEV_GPU_TEMP"), ("amd", "gpu_health"))
            for than in ("> on (host)", "unless on (host)")
        ),
        3 * MINUTE,
        "critical",
        "{{ $labels.host }} shows fewer GPUs than its cells use.",
        jobs=("dcgm", "amd"),
    ),
    Alert(
        "GpuThrottled",
        "max by (host, gpu, gpu_id) ("
        + " or ".join(f"floor({CLOCK_REASONS} / {bit}) % 2 == 1" for bit in THROTTLE_BITS)
        + f" or {AMD_HEAT} > 10)",
        10 * MINUTE,
        "warning",
        "GPU {{ $labels.gpu }}{{ $labels.gpu_id }} of {{ $labels.host }} is slowed down by heat or a power brake.",
        jobs=("dcgm", "amd"),
    ),
    Alert(
        "DriverMismatch",
        "heteroserve_gpu_driver_mismatch == 1",
        5 * MINUTE,
        "critical",
        "On {{ $labels.host }} the {{ $labels.vendor }} driver {{ $labels.loaded }} runs and {{ $labels.installed }} is"
        " installed: new cells cannot start before a reboot.",
        jobs=("dcgm", "amd"),
    ),
    Alert(
        "DiskFull",
        f"node_filesystem_avail_bytes{{{FILESYSTEMS}}} / node_filesystem_size_bytes{{{FILESYSTEMS}}} < {ABOVE}",
        10 * MINUTE,
        "warning",
        "{{ $labels.mountpoint }} of {{ $labels.host }} has {{ $value | humanizePercentage }} left.",
        0.1,
        ("node",),
    ),
    Alert(
        "MemoryShort",
        f"node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < {ABOVE}",
        10 * MINUTE,
        "warning",
        "{{ $labels.host }} has {{ $value | humanizePercentage }} of its memory left.",
        0.04,
        ("node",),
    ),
    Alert(
        "CertificateExpires",
        f"heteroserve_certificate_expiry_timestamp_seconds - time() < {ABOVE} * 86400",
        HOUR,
        "warning",
        "The certificate at {{ $labels.address }} ends in {{ $value | humanizeDuration }}.",
        14,
        ("health",),
    ),
    Alert(
        "PowerSupplyFailed",
        "idrac_power_supply_health > 0",
        5 * MINUTE,
        "warning",
        "Power supply {{ $labels.id }} of {{ $labels.host }} is not well, says its iDRAC.",
        jobs=("power",),
    ),
    Alert(
        "K3sDown",
        'up{job="k3s"} == 0',
        5 * MINUTE,
        "warning",
        "K3s' {{ $labels.component }} of {{ $labels.host }} cannot be read.",
        jobs=("k3s",),
    ),
    Alert(
        "RayServiceNotReady",
        'kuberay_service_condition_ready{condition="false"} == 1',
        15 * MINUTE,
        "warning",
        "KubeRay finds the RayService {{ $labels.name }} not ready.",
        jobs=("kuberay",),
    ),
    Alert(
        "TargetDown",
        'up{job!~"node|gateway|k3s"} == 0',
        5 * MINUTE,
        "warning",
        "{{ $labels.job }} of {{ $labels.host }}{{ with $labels.cell }} ({{ . }}){{ end }} cannot be read:"
        " panels are empty.",
    ),
    Alert(
        "RulesFail",
        "increase(prometheus_rule_evaluation_failures_total[10m]) > 0",
        0,
        "warning",
        "Prometheus cannot evaluate rules of {{ $labels.rule_group }}: alerts may be missing.",
        jobs=("prometheus",),
    ),
    Alert(
        "AlertsNotDelivered",
        "rate(alertmanager_notifications_failed_total[10m]) > 0"
        " or rate(prometheus_notifications_errors_total[10m]) > 0",
        5 * MINUTE,
        "warning",
        "Alerts do not reach {{ $labels.integration }}{{ $labels.alertmanager }}.",
        jobs=("alertmanager",),
    ),
)
MISSING = "TargetMissing"  # one for each job that has targets


def rules(
    targets: Mapping[str, list[Any]], changed: Mapping[str, Mapping[str, Any]], docs: str
) -> dict[str, list[dict[str, Any]]]:
    """The file of rules. ``changed`` are the inventory's own threshold, duration or ``enabled`` of single alerts."""
    present = {job for job, groups in targets.items() if groups}
    found = []
    for alert in ALERTS:
        own = changed.get(alert.name, {})
        if own.get("enabled", True) and (not alert.jobs or present & set(alert.jobs)):
            found.append(_alert(alert, own, docs))
    own = changed.get(MISSING, {})
    if own.get("enabled", True):
        # Each names its job: rules of one name must differ in their labels.
        found += [_alert(_missing(job), own, docs, job=job) for job in targets if job in present]
    return {
        "groups": [
            {
                "name": "heteroserve-records",
                "rules": [{"record": name, "expr": expr} for name, expr in RECORDS.items()],
            },
            {"name": "heteroserve-alerts", "rules": found},
        ]
    }


def faults(changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What cannot be meant in the inventory's ``monitoring_alerts``."""
    known = {alert.name: alert for alert in ALERTS}
    found = []
    for name, own in changed.items():
        if name not in known and name != MISSING:
            found.append(f"monitoring_alerts: there is no alert {name}; docs/alerts.md lists them")
        elif "above" in own and (name == MISSING or known[name].above is None):
            found.append(f"monitoring_alerts.{name}.above: this alert has no threshold; remove it")
        for key in sorted(set(own) - {"above", "for", "enabled"}):
            found.append(f"monitoring_alerts.{name}.{key}: unknown key; known are above, for, enabled")
    return found


def _missing(job: str) -> Alert:
    summary = f"Nothing is read for {job} any more: its targets have gone from Prometheus's files."
    return Alert(MISSING, f'absent(up{{job="{job}"}})', 10 * MINUTE, "warning", summary)


def _alert(alert: Alert, own: Mapping[str, Any], docs: str, **labels: str) -> dict[str, Any]:
    above = own.get("above", alert.above)
    expr = alert.expr if above is None else alert.expr.replace(ABOVE, f"{above:g}")
    return {
        "alert": alert.name,
        "expr": expr,
        "for": f"{own.get('for', alert.for_s)}s",
        "labels": {"severity": alert.severity, **labels},
        "annotations": {"summary": alert.summary, "runbook_url": f"{docs}/alerts.md#{alert.name.lower()}"},
    }
