"""Prometheus's configuration. The jobs are fixed; what they read stands in file_sd files (see ``targets``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .targets import JOBS

# Series that nothing here draws or judges are not stored: Ray keeps several for each of its workers, and K3s' server
# has histograms for each kind of object.
RAY_UNUSED = (
    "ray_(component_.*|grpc_.*|internal_.*|gcs_.*|object_.*|plasma_.*|pull_manager_.*|push_manager_.*|scheduler_.*"
    "|spill_manager_.*|tasks|actors|operation_.*|serve_deployment_processing_latency_ms_bucket"
    "|serve_(long_poll|event_loop|router|autoscaling|controller|config)_.*)"
)
K3S_USED = (
    "apiserver_(request_total|request_terminations_total|current_inflight_requests|storage_objects)"
    "|etcd_(server_has_leader|server_leader_changes_seen_total|mvcc_db_total_size_in_bytes)"
    "|kubelet_(running_pods|running_containers|node_name|volume_stats_.*)"
    "|container_(cpu_usage_seconds_total|memory_working_set_bytes|network_(receive|transmit)_bytes_total|oom_events_total)"
    "|machine_(cpu_cores|memory_bytes)|process_(cpu_seconds_total|resident_memory_bytes|start_time_seconds)"
    "|rest_client_requests_total|workqueue_depth|scheduler_pending_pods"
)
HONOR = ("plan", "health", "power")  # the exporter names the host that a value is of, which is not its own
SLOW_S = {"power": 60, "k3s": 30, "kuberay": 30}  # seconds between two reads, where not the usual ones


@dataclass(frozen=True)
class Settings:
    """What the configuration depends on beside the targets."""

    folder: str  # with targets/, rules.yml and the cluster's token and certificate
    interval_s: int = 15
    alertmanager_port: int = 9093


def configuration(settings: Settings) -> dict[str, Any]:
    """The file prometheus.yml."""
    usual = f"{settings.interval_s}s"
    return {
        "global": {
            "scrape_interval": usual,
            "scrape_timeout": f"{min(10, settings.interval_s)}s",
            "evaluation_interval": usual,
        },
        "rule_files": [f"{settings.folder}/rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{settings.alertmanager_port}"]}]}]},
        "scrape_configs": [_job(job, settings) for job in JOBS],
    }


def _job(job: str, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "job_name": job,
        "file_sd_configs": [{"files": [f"{settings.folder}/targets/{job}.json"]}],
    }
    if job in SLOW_S and SLOW_S[job] > settings.interval_s:
        found["scrape_interval"] = f"{SLOW_S[job]}s"
    if job in HONOR:
        found["honor_labels"] = True
    if job == "cells":
        found["metric_relabel_configs"] = [_filter("drop", RAY_UNUSED)]
    if job in ("k3s", "kuberay"):
        found["scheme"] = "https"
        found["authorization"] = {"credentials_file": f"{settings.folder}/k3s-token"}
        # The certificate of a kubelet names its host, and not always its address.
        found["tls_config"] = {"ca_file": f"{settings.folder}/k3s-ca.crt", "insecure_skip_verify": job == "k3s"}
    if job == "k3s":
        found["metric_relabel_configs"] = [_filter("keep", K3S_USED)]
    return found


def _filter(action: str, names: str) -> dict[str, Any]:
    return {"source_labels": ["__name__"], "regex": names, "action": action}
