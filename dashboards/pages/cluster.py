"""K3s and KubeRay: what carries the cells under the runtime k3s."""

from __future__ import annotations

from ..panels import BAD, GOOD, NEUTRAL, Bars, Number, Page, Panel, Query, Section
from ..queries import RATE

K3S, OPERATOR = 'job="k3s"', 'job="kuberay"'
RUNNING = f'{K3S}, container_state="running"'
NOT_READY = 'kuberay_service_condition_ready{condition="false"}'
# K3s is one process and shows all its figures at the API's port and at the kubelet's.
API = f'{K3S}, component!="kubelet"'


def condition(name: str, legend: str = "{{name}}") -> Query:
    """A condition of RayServices, 1 or 0: the operator writes "true" and "false" as a label."""
    metric = f"kuberay_service_condition_{name}"
    return Query(f'max by (name) ({metric}{{condition="true"}} or {metric}{{condition="false"}} * 0)', legend)


def rate(name: str, by: str, where: str = K3S) -> str:
    """A counter, a second."""
    return f"sum by ({by}) (rate({name}{{{where}}}[{RATE}]))"


PAGE = Page(
    name="cluster",
    title="Cluster",
    about="K3s and KubeRay, which carry the cells under the runtime k3s. Empty under the runtime ray.",
    step="30s",
    sections=(
        Section(
            "Cells in Kubernetes",
            (
                Number(
                    "Not ready",
                    "RayServices without an endpoint. Whether the others answer rightly is on the page Endpoint.",
                    (Query(f"count({NOT_READY}) or count(kuberay_service_info) * 0"),),
                    steps=((GOOD, None), (BAD, 1)),
                    empty="no KubeRay",
                ),
                Number(
                    "RayServices",
                    "Cells that KubeRay knows of.",
                    (Query("count(kuberay_service_info)"),),
                    empty="no KubeRay",
                ),
                Number(
                    "Ray clusters",
                    "More than there are RayServices: some are being replaced.",
                    (Query("count(kuberay_cluster_info)"),),
                    empty="no KubeRay",
                ),
                Number(
                    "Pods",
                    "Pods that run, of all nodes.",
                    (Query(f"sum(max by (host) (kubelet_running_pods{{{K3S}}}))"),),
                    empty="no K3s",
                ),
                Number(
                    "Database",
                    "Size of etcd's database, which refuses writes at 2 GiB. A single server has SQLite instead.",
                    (Query(f"max(etcd_mvcc_db_total_size_in_bytes{{{K3S}}})"),),
                    unit="bytes",
                    steps=((GOOD, None), ("orange", 1e9), (BAD, 1.8e9)),
                    empty="no etcd",
                ),
                Number(
                    "Out of memory in a day",
                    "Processes in containers that the kernel ended because their memory was used up.",
                    (Query(f"sum(increase(container_oom_events_total{{{K3S}}}[1d]))"),),
                    decimals=0,
                    steps=((GOOD, None), (BAD, 1)),
                    empty="no K3s",
                ),
                Bars(
                    "Ready",
                    "Condition Ready of each cell's RayService.",
                    (condition("ready"),),
                    high=1,
                    steps=((BAD, None), (GOOD, 1)),
                    empty="no KubeRay",
                ),
                Bars(
                    "Being updated",
                    "Condition UpgradeInProgress of each cell's RayService.",
                    (condition("upgrade_in_progress"),),
                    high=1,
                    steps=((NEUTRAL, None), ("orange", 1)),
                    empty="no KubeRay",
                ),
                Bars(
                    "Time until provisioned",
                    "From the creation of each Ray cluster until its pods ran: images pulled, GPUs found.",
                    (Query("max by (name) (kuberay_cluster_provisioned_duration_seconds)", "{{name}}"),),
                    unit="s",
                    empty="no KubeRay",
                ),
            ),
        ),
        Section(
            "The operator",
            (
                Panel(
                    "Reconciliations",
                    "How often the operator reconciled an object, by result.",
                    (
                        Query(
                            rate("controller_runtime_reconcile_total", "controller, result", OPERATOR),
                            "{{controller}} {{result}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Errors of the operator",
                    "Reconciliations that failed. Some belong to every start; if they go on, an object cannot be made.",
                    (
                        Query(
                            rate("controller_runtime_reconcile_errors_total", "controller", OPERATOR),
                            "{{controller}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Objects that wait",
                    "Length of the operator's queues.",
                    (Query(f"sum by (name) (workqueue_depth{{{OPERATOR}}})", "{{name}}"),),
                ),
            ),
        ),
        Section(
            "The API",
            (
                Panel(
                    "API requests",
                    "Requests a second to Kubernetes' API, by status. 404 and 409 are usual; 429 and 5xx are not.",
                    (Query(rate("apiserver_request_total", "code", API), "{{code}}"),),
                    unit="reqps",
                    stacked=True,
                ),
                Panel(
                    "Requests in progress",
                    "Requests that the API works on; it refuses more than 400 that read and 200 that write.",
                    (
                        Query(
                            f"sum by (request_kind) (apiserver_current_inflight_requests{{{API}}})", "{{request_kind}}"
                        ),
                    ),
                ),
                Panel(
                    "Objects",
                    "The ten kinds of object with the most entries. One that only grows is a leak.",
                    (Query(f"topk(10, max by (resource) (apiserver_storage_objects{{{API}}}))", "{{resource}}"),),
                ),
                Panel(
                    "Changes of etcd's leader",
                    "In the last hour, as each server saw them. More than one: slow disks, or a network that fails.",
                    (
                        Query(
                            f"max by (host) (increase(etcd_server_leader_changes_seen_total{{{K3S}}}[1h]))", "{{host}}"
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Pods that wait",
                    "Pods that the scheduler cannot place (unschedulable), and those that are still in its queue.",
                    (Query(f"max by (queue) (scheduler_pending_pods{{{K3S}}})", "{{queue}}"),),
                    width=12,
                ),
            ),
        ),
        Section(
            "Nodes",
            (
                Panel(
                    "Containers of each node",
                    "Containers that run.",
                    (Query(f"max by (host) (kubelet_running_containers{{{RUNNING}}})", "{{host}}"),),
                ),
                Panel(
                    "Memory of pods",
                    "Share of each node's RAM that its pods use and that cannot be dropped.",
                    (
                        Query(
                            f'sum by (host) (container_memory_working_set_bytes{{{K3S}, container!=""}})'
                            f" / max by (host) (machine_memory_bytes{{{K3S}}})",
                            "{{host}}",
                        ),
                    ),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Processors of pods",
                    "Cores that the pods of each namespace use.",
                    (
                        Query(
                            rate("container_cpu_usage_seconds_total", "namespace", f'{K3S}, container!=""'),
                            "{{namespace}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
    ),
)
