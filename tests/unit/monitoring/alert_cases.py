"""For each alert a story in three parts: before, during and after what it tells of.

test_rules.py has promtool play them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CELL = 'cell="llama-0",model="llama",engine="vllm",host="gpu-1",accelerator="nvidia-h100"'
LABELS = {"cell": "llama-0", "model": "llama", "engine": "vllm", "host": "gpu-1", "accelerator": "nvidia-h100"}
INFO = f"heteroserve_plan_cell_info{{{CELL}}}"
UP = 'haproxy_server_status{proxy="model-llama",server="llama-0",state="UP"}'
DRAIN = 'haproxy_server_status{proxy="model-llama",server="llama-0",state="DRAIN"}'
GATEWAY = 'up{job="gateway",host="gw"}'
OK = 'haproxy_frontend_http_responses_total{proxy="endpoint",code="2xx"}'
FAILED = 'haproxy_frontend_http_responses_total{proxy="endpoint",code="5xx"}'
GPU = 'host="gpu-1",gpu="3"'
DISK = 'host="gpu-1",mountpoint="/",fstype="ext4"'


@dataclass(frozen=True)
class Level:
    """A gauge; None where the series is not there."""

    before: float | None
    during: float | None
    after: float | None

    def at(self, part: int) -> float | None:
        return (self.before, self.during, self.after)[part]


@dataclass(frozen=True)
class Rate:
    """A counter: how much it grows a second."""

    before: float
    during: float
    after: float

    def at(self, part: int) -> float:
        return (self.before, self.during, self.after)[part]


@dataclass(frozen=True)
class Case:
    """Series, and the alert that the middle part raises: its labels beside the severity, and its summary."""

    series: dict[str, Level | Rate]
    labels: dict[str, str]
    summary: str
    minutes: int = 40  # of each part
    # Series that look alike and must not raise it, also in the middle part.
    innocent: dict[str, Level | Rate] = field(default_factory=dict)


def always(value: float) -> Level:
    return Level(value, value, value)


def down(good: float = 1, bad: float = 0) -> Level:
    return Level(good, bad, good)


CASES = {
    "EndpointDown": Case(
        {GATEWAY: down()},
        {"host": "gw", "job": "gateway"},
        "The gateway on gw does not answer.",
        innocent={'up{job="gateway",host="gw-2"}': always(1)},
    ),
    "ModelDown": Case(
        {INFO: always(1), UP: down(), GATEWAY: always(1)},
        {"model": "llama"},
        "No cell of llama answers: clients get 503.",
        innocent={
            INFO.replace("llama", "other"): always(1),
            UP.replace("llama", "other"): always(1),
        },
    ),
    "CellDown": Case(
        {INFO: always(1), UP: down(), DRAIN: always(0), GATEWAY: always(1)},
        LABELS,
        "The cell llama-0 on gpu-1 does not answer the gateway.",
        innocent={  # an operator has drained it
            INFO.replace("llama-0", "llama-1"): always(1),
            UP.replace("llama-0", "llama-1"): down(),
            DRAIN.replace("llama-0", "llama-1"): Level(0, 1, 0),
        },
    ),
    "CellNeverReady": Case(
        {INFO: always(1), UP: Level(1, 0, 1), GATEWAY: always(1)},
        LABELS,
        "The cell llama-0 on gpu-1 is planned and has not answered for hours.",
        minutes=480,
        innocent={INFO.replace("llama-0", "llama-1"): always(1), UP.replace("llama-0", "llama-1"): always(1)},
    ),
    "WrongAnswer": Case(
        {
            'heteroserve_health_right{cell="llama-0",model="llama",host="gpu-1"}': down(),
            'heteroserve_health_answered{cell="llama-0",model="llama",host="gpu-1"}': always(1),
        },
        {"cell": "llama-0", "model": "llama"},
        "The known-answer check of llama on llama-0 is answered wrongly.",
        innocent={  # no answer at all is another alert
            'heteroserve_health_right{cell="",model="llama",host=""}': down(),
            'heteroserve_health_answered{cell="",model="llama",host=""}': down(),
        },
    ),
    "NoAnswer": Case(
        {'heteroserve_health_answered{cell="",model="llama",host=""}': down()},
        {"cell": "", "model": "llama"},
        "The known-answer check of llama through the gateway gets no answer.",
        innocent={
            'heteroserve_health_answered{cell="llama-1",model="llama",host="gpu-1"}': down(),
            DRAIN.replace("llama-0", "llama-1"): Level(0, 1, 0),
        },
    ),
    "HealthCheckStale": Case(
        {'heteroserve_health_checked_timestamp_seconds{cell="llama-0",model="llama"}': Level(2400, 2400, 7200)},
        {"cell": "llama-0", "model": "llama"},
        "llama llama-0 was last checked 39m 0s ago.",
    ),
    "ErrorRate": Case(
        {OK: Rate(9, 9, 9), FAILED: Rate(0, 1, 0)},
        {},
        "10% of all answers are 5xx.",
    ),
    "ErrorBudgetBurnsFast": Case(
        {OK: Rate(9, 9, 9), FAILED: Rate(0, 1, 0)},
        {},
        "At this rate two days use up the month's error budget: 10% of answers are 5xx.",
        minutes=120,
    ),
    "ErrorBudgetBurns": Case(
        {OK: Rate(95, 95, 95), FAILED: Rate(0, 5, 0)},
        {},
        "At this rate five days use up the month's error budget: 5% of answers are 5xx.",
        minutes=420,
    ),
    "SlowFirstToken": Case(
        {
            f'vllm:time_to_first_token_seconds_bucket{{{CELL},le="1"}}': Rate(10, 0, 10),
            f'vllm:time_to_first_token_seconds_bucket{{{CELL},le="10"}}': Rate(10, 10, 10),
            f'vllm:time_to_first_token_seconds_bucket{{{CELL},le="+Inf"}}': Rate(10, 10, 10),
        },
        {"model": "llama"},
        "One request in twenty to llama waits 9.55s for its first token.",
    ),
    "KvCacheFull": Case(
        {f"vllm:kv_cache_usage_perc{{{CELL}}}": Level(0.5, 0.99, 0.4)},
        LABELS,
        "The KV cache of llama-0 is 99% full: further requests wait.",
        innocent={f"ray_vllm_kv_cache_usage_perc{{{CELL.replace('llama-0', 'llama-1')}}}": always(0.9)},
    ),
    "Preemptions": Case(
        {f"vllm:num_preemptions_total{{{CELL}}}": Rate(0, 0.5, 0)},
        LABELS,
        "llama-0 takes 500m answers a second off the GPU and computes them again.",
    ),
    "PlanNotMet": Case(
        {
            f"vllm:generation_tokens_total{{{CELL}}}": Rate(950, 400, 950),
            f"vllm:num_requests_running{{{CELL}}}": always(256),
            f"heteroserve_plan_tokens_per_second{{{CELL}}}": always(1000),
            f"heteroserve_plan_requests{{{CELL}}}": always(256),
        },
        LABELS,
        "llama-0 is full and gives 400 tokens/s, well under its plan.",
        minutes=120,
        innocent={  # few requests are no sign of a slow cell
            f"vllm:generation_tokens_total{{{CELL.replace('llama-0', 'llama-1')}}}": Rate(100, 100, 100),
            f"vllm:num_requests_running{{{CELL.replace('llama-0', 'llama-1')}}}": always(3),
            f"heteroserve_plan_tokens_per_second{{{CELL.replace('llama-0', 'llama-1')}}}": always(1000),
            f"heteroserve_plan_requests{{{CELL.replace('llama-0', 'llama-1')}}}": always(256),
        },
    ),
    "HostDown": Case(
        {'up{job="node",host="gpu-1"}': down()},
        {"job": "node", "host": "gpu-1"},
        "gpu-1 does not answer.",
        innocent={'up{job="node",host="gpu-2"}': always(1)},
    ),
    "GpuFault": Case(
        {f"DCGM_FI_DEV_XID_ERRORS{{{GPU}}}": Level(0, 79, 0)},
        {"host": "gpu-1", "gpu": "3", "kind": "xid"},
        "GPU 3 of gpu-1 is broken (xid 79).",
        innocent={
            # 31: a fault of the application
            'DCGM_FI_DEV_XID_ERRORS{host="gpu-1",gpu="4"}': Level(0, 31, 0),
            'gpu_health{host="amd-1",gpu_id="0"}': always(1),
        },
    ),
    "CellOnFaultyGpu": Case(
        {
            'heteroserve_gpu_fault{cell="llama-0",faulty_host="gpu-1",gpu="3",state="drained",reason="GPU 3 is broken",'
            'host="gw"}': Level(None, 1, None)
        },
        {
            "cell": "llama-0",
            "faulty_host": "gpu-1",
            "gpu": "3",
            "state": "drained",
            "reason": "GPU 3 is broken",
        },
        "GPU 3 is broken",
    ),
    "GpuNeedsReset": Case(
        {f"DCGM_FI_DEV_ROW_REMAP_PENDING{{{GPU}}}": Level(0, 1, 0)},
        {"host": "gpu-1", "gpu": "3", "kind": "remap"},
        "GPU 3 of gpu-1 works and needs a reset.",
    ),
    "GpuLost": Case(
        {
            'heteroserve_plan_gpus{host="gpu-1",vendor="nvidia"}': always(2),
            'DCGM_FI_DEV_GPU_TEMP{host="gpu-1",gpu="0"}': always(50),
            'DCGM_FI_DEV_GPU_TEMP{host="gpu-1",gpu="1"}': Level(50, None, 50),
        },
        {"host": "gpu-1"},
        "gpu-1 shows fewer GPUs than its cells use.",
        innocent={
            'heteroserve_plan_gpus{host="amd-1",vendor="amd"}': always(1),
            'gpu_health{host="amd-1",gpu_id="0"}': always(1),
        },
    ),
    "GpuThrottled": Case(
        {f"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{{GPU}}}": Level(4, 4 + 64, 4)},
        {"host": "gpu-1", "gpu": "3"},
        "GPU 3 of gpu-1 is slowed down by heat or a power brake.",
        # 4: its power limit, which is how a busy GPU runs
        innocent={'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{host="gpu-1",gpu="4"}': Level(4, 4, 4)},
    ),
    "DriverMismatch": Case(
        {
            'heteroserve_gpu_driver_mismatch{host="gpu-1",vendor="nvidia",loaded="570.1",installed="580.2"}': Level(
                0, 1, 0
            )
        },
        {"host": "gpu-1", "vendor": "nvidia", "loaded": "570.1", "installed": "580.2"},
        "On gpu-1 the nvidia driver 570.1 runs and 580.2 is installed: new cells cannot start before a reboot.",
    ),
    "DiskFull": Case(
        {
            f"node_filesystem_avail_bytes{{{DISK}}}": Level(50, 5, 50),
            f"node_filesystem_size_bytes{{{DISK}}}": always(100),
        },
        {"host": "gpu-1", "mountpoint": "/", "fstype": "ext4"},
        "/ of gpu-1 has 5% left.",
        innocent={
            'node_filesystem_avail_bytes{host="gpu-1",mountpoint="/run",fstype="tmpfs"}': always(0),
            'node_filesystem_size_bytes{host="gpu-1",mountpoint="/run",fstype="tmpfs"}': always(100),
        },
    ),
    "MemoryShort": Case(
        {
            'node_memory_MemAvailable_bytes{host="gpu-1"}': Level(50, 2, 50),
            'node_memory_MemTotal_bytes{host="gpu-1"}': always(100),
        },
        {"host": "gpu-1"},
        "gpu-1 has 2% of its memory left.",
    ),
    "CertificateExpires": Case(
        {
            'heteroserve_certificate_expiry_timestamp_seconds{address="10.0.0.1:6443",host="s1"}': Level(
                1e8, 864000 + 14340, 1e8
            )
        },
        {"address": "10.0.0.1:6443", "host": "s1"},
        "The certificate at 10.0.0.1:6443 ends in 10d 0h 0m 0s.",
        minutes=120,
    ),
    "PowerSupplyFailed": Case(
        {'idrac_power_supply_health{host="gpu-1",id="1"}': Level(0, 2, 0)},
        {"host": "gpu-1", "id": "1"},
        "Power supply 1 of gpu-1 is not well, says its iDRAC.",
    ),
    "K3sDown": Case(
        {'up{job="k3s",component="kubelet",host="gpu-1"}': down()},
        {"job": "k3s", "component": "kubelet", "host": "gpu-1"},
        "K3s' kubelet of gpu-1 cannot be read.",
    ),
    "RayServiceNotReady": Case(
        {
            'kuberay_service_condition_ready{name="llama-0",namespace="heteroserve",condition="false"}': Level(
                None, 1, None
            ),
            'kuberay_service_condition_ready{name="llama-0",namespace="heteroserve",condition="true"}': Level(
                1, None, 1
            ),
        },
        {"name": "llama-0", "namespace": "heteroserve", "condition": "false"},
        "KubeRay finds the RayService llama-0 not ready.",
    ),
    "TargetDown": Case(
        {'up{job="dcgm",host="gpu-1"}': down()},
        {"job": "dcgm", "host": "gpu-1"},
        "dcgm of gpu-1 cannot be read: panels are empty.",
        innocent={'up{job="node",host="gpu-1"}': down()},  # the whole host is another alert
    ),
    "RulesFail": Case(
        {'prometheus_rule_evaluation_failures_total{rule_group="heteroserve-alerts"}': Rate(0, 1, 0)},
        {"rule_group": "heteroserve-alerts"},
        "Prometheus cannot evaluate rules of heteroserve-alerts: alerts may be missing.",
    ),
    "AlertsNotDelivered": Case(
        {'alertmanager_notifications_failed_total{integration="webhook"}': Rate(0, 1, 0)},
        {"integration": "webhook"},
        "Alerts do not reach webhook.",
    ),
    "TargetMissing": Case(
        {'up{job="node",host="gpu-1"}': Level(1, None, 1)},
        {"job": "node"},
        "Nothing is read for node any more: its targets have gone from Prometheus's files.",
    ),
}
