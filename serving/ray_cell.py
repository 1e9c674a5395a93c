"""Run one cell's Ray in the foreground: ``python -m serving.ray_cell CELL.json``.

A supervisor keeps this process alive. It clears what an earlier Ray of the same cell left behind, starts Ray
on the cell's own ports, brings back the application that was last applied, and when it is told to stop takes
every process of the cell with it.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from heteroserve.common import processes
from heteroserve.common.web import at, open_own
from heteroserve.serving.engine_environment import NOT_INHERITED, VISIBLE, engine_environment, visible_devices
from pydantic import BaseModel, ConfigDict, Field, model_validator


class CellProcess(BaseModel):
    """The file that the role ray_host writes for each cell on a host."""

    model_config = ConfigDict(extra="forbid")

    unit: str = Field(description="mark of the cell's processes, unique on the host: its folder")
    address: str = Field(description="address that Ray and its dashboard listen on")
    ports: dict[str, int] = Field(description="ports by name, as the plan has them")
    vendor: str = Field(description="whose accelerators the cell runs on: cpu, nvidia, amd, ...")
    cores: int = Field(ge=0, description="processor cores of its replicas, for a CPU cell")
    devices: list[str] = Field(description="accelerators of the cell, as the vendor's runtime names them")
    object_store_bytes: int = Field(gt=0)
    temp_dir: Path = Field(description="Ray's sessions and sockets: short, because a socket's path has 107 bytes")
    token_file: Path = Field(description="Ray's authentication token, mode 0600")
    application_file: Path = Field(description="the Serve configuration that ray_app applied last")
    cache: Path = Field(description="what the engines of all cells of the host keep between their starts")
    kv_cache_bytes: int = Field(ge=0, description="KV cache of a replica")
    sequences: int = Field(gt=0, description="requests that its replicas run at once, together")

    @model_validator(mode="after")
    def _names_its_devices(self) -> CellProcess:
        if self.vendor != "cpu" and not self.devices:
            raise ValueError("the plan names no accelerators of the cell: run the stage plan again")
        return self


def ray_command(cell: CellProcess) -> list[str]:
    """The ``ray start`` of the cell: every port fixed, nothing random that could meet another service."""
    ports = cell.ports
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--log-color=false",
        "--include-log-monitor=false",
        f"--node-ip-address={cell.address}",
        f"--port={ports['gcs']}",
        f"--dashboard-host={cell.address}",
        f"--dashboard-port={ports['dashboard']}",
        f"--dashboard-agent-listen-port={ports['dashboard_agent']}",
        f"--dashboard-agent-grpc-port={ports['dashboard_agent_grpc']}",
        f"--metrics-export-port={ports['metrics']}",
        f"--ray-client-server-port={ports['client']}",
        f"--node-manager-port={ports['node_manager']}",
        f"--object-manager-port={ports['object_manager']}",
        f"--runtime-env-agent-port={ports['runtime_env_agent']}",
        f"--min-worker-port={ports['worker_min']}",
        f"--max-worker-port={ports['worker_max']}",
        # For Ray's own bookkeeping, a CPU is a place for an actor: Serve's controllers need a few beside the engine.
        f"--num-cpus={cell.cores + 4}",
        f"--num-gpus={len(cell.devices)}",
        f"--object-store-memory={cell.object_store_bytes}",
        f"--temp-dir={cell.temp_dir}",
    ]


def environment(cell: CellProcess) -> dict[str, str]:
    """Variables of every process of the cell. Ray Serve's HAProxy gets files and ports of its own."""
    haproxy = cell.temp_dir / "h"
    binaries = Path(sys.executable).parent
    fixed = {
        processes.UNIT: cell.unit,
        "PATH": f"{binaries}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(cell.token_file),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(cell.ports["haproxy_metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(cell.ports["haproxy_stats"]),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(cell.ports["fallback"]),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(cell.ports["fallback_grpc"]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(cell.ports["replica_min"]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(cell.ports["replica_max"]),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy.sh")),
        "HETEROSERVE_CACHE": str(cell.cache),
        **visible_devices(cell.vendor, cell.devices),
        # Each replica says itself which of them it takes (serving/engines/vllm_server.py).
        **{f"RAY_EXPERIMENTAL_NOSET_{variable}": "1" for variable in VISIBLE.values()},
    }
    if cell.address == "127.0.0.1":
        # Ray replaces loopback by the host's outward address, unless it believes that it cannot be a cluster
        # (ray/_private/services.py, resolve_ip_for_localhost): this switch makes it stay on loopback.
        fixed["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        fixed["HETEROSERVE_LOOPBACK"] = "1"
    # No proxy: gRPC would ask it for the cell's own processes. A cell downloads nothing.
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RAY_", "SUPERVISOR_"))
        and not key.lower().endswith("_proxy")
        and key not in NOT_INHERITED
    }
    known = account(cell.cache / "home")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    engine = engine_environment(cell.vendor, cell.kv_cache_bytes, cell.sequences, files)
    return {**inherited, **known, **engine, **fixed}


def account(home: Path) -> dict[str, str]:
    """What programs ask an account for, where this one lacks it: a name (a container's uid has none) and a home."""
    found = {}
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        found = {name: os.environ.get(name, f"uid-{os.getuid()}") for name in ("USER", "LOGNAME")}
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        found["HOME"] = str(home)
    return found


def restore(cell: CellProcess) -> None:
    """Give a restarted Ray the application that it had, once its dashboard answers.

    Ray keeps applications in memory: without this a crash would leave the cell empty until someone ran the
    serving stage. ``ray_app`` writes the file whenever it applies an application, and removes it with it.
    """
    if not cell.application_file.exists():
        return
    request = urllib.request.Request(
        f"http://{at(cell.address, cell.ports['dashboard'])}/api/serve/applications/",
        data=cell.application_file.read_bytes(),
        method="PUT",
        headers={
            "Authorization": f"Bearer {cell.token_file.read_text().strip()}",
            "Content-Type": "application/json",
        },
    )
    for _ in range(60):
        try:
            with open_own(request, 60):
                print("the application was given back to Ray", flush=True)
                return
        except (urllib.error.URLError, OSError) as fault:
            reason = fault
            time.sleep(1)
    print(f"Ray did not take the application back: {reason}", flush=True)


def run(cell: CellProcess) -> int:
    """Run Ray until it ends or a signal comes. Returns Ray's exit status."""
    left = processes.end(processes.UNIT, cell.unit, grace_s=2)
    if left:
        print(f"ended {left} processes that an earlier Ray of this cell left behind", flush=True)
    (cell.temp_dir / "h").mkdir(parents=True, exist_ok=True, mode=0o700)
    ray = subprocess.Popen(ray_command(cell), env=environment(cell), start_new_session=True)

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        restore(cell)
        return ray.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        processes.end(processes.UNIT, cell.unit)
        ray.wait()


if __name__ == "__main__":
    sys.exit(run(CellProcess.model_validate(json.loads(Path(sys.argv[1]).read_text()))))
