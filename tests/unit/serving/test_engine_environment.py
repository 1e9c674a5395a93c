"""A cell's environment and the cores of its replicas, the same under both runtimes."""

from __future__ import annotations

import importlib
import json
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from heteroserve.common.records import to_dict
from heteroserve.images.builds import copied
from heteroserve.plan.schema import Cell, Placement
from heteroserve.serving.engine_environment import engine_environment
from heteroserve.serving.pods import environment
from heteroserve.serving.ray_serve import serve_config

from tests.unit.serving.test_objects import MODEL, cell

PORTS = (
    "serve", "dashboard", "haproxy_metrics", "haproxy_stats", "fallback", "fallback_grpc", "replica_min", "replica_max"
)  # fmt: skip


@pytest.fixture
def ray_cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that runs on hosts."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65_536, 65_536))
    yield importlib.import_module("serving.ray_cell")
    del sys.modules["serving.ray_cell"]


def written(root: Path, one: Cell) -> Any:
    """The file that the role ray_host writes for a cell."""
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined)
    engine.filters["to_json"] = lambda value, sort_keys=False: json.dumps(value, sort_keys=sort_keys)
    engine.filters["flatten"] = lambda lists: [item for some in lists for part in some for item in part]
    text = (root / "roles" / "ray_host" / "templates" / "cell.json.j2").read_text()
    return json.loads(
        engine.from_string(text).render(
            ray_host_cell={**to_dict(one), "ports": dict.fromkeys(PORTS, 1), "address": "10.0.0.1"},
            ray_host_object_store_mib=100,
            run_dir="/run/h",
            installation="/state",
            layout=SimpleNamespace(secrets="/s", cells="/c", cache="/w"),
        )
    )


@pytest.mark.parametrize("vendor", ["cpu", "nvidia", "amd"])
@pytest.mark.parametrize("replicas", [1, 3])
def test_both_runtimes_give_a_cell_the_same_environment(ray_cell: Any, root: Path, vendor: str, replicas: int) -> None:
    one = cell(vendor, each=2)
    replica = replace(one.replicas[0], visible=tuple(("0", "1") for _ in one.replicas[0].devices))
    one = replace(one, replicas=(replica,) * replicas, limits=replace(one.limits, max_num_seqs=200))
    pod = environment(one)
    process = ray_cell.environment(ray_cell.CellProcess.model_validate(written(root, one)))
    assert len(pod) > 7
    assert pod.keys() <= process.keys()
    assert {name for name in pod if pod[name] != process[name]} == {
        "HETEROSERVE_CACHE",
        "RAY_SERVE_HAPROXY_BINARY_PATH",
    }


def test_a_cpu_cell_has_whole_gib_and_no_compiler() -> None:
    variables = engine_environment("cpu", 3 * 2**30 // 2, 16)
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert variables["TORCH_COMPILE_DISABLE"] == "1"
    assert not any(name.startswith(("VLLM_CPU", "TORCH")) for name in engine_environment("nvidia", 2**30, 16))


def test_haproxy_asks_for_no_more_files_than_it_may_have() -> None:
    connections = [
        int(engine_environment("nvidia", 1, sequences, files)["RAY_SERVE_HAPROXY_MAXCONN"])
        for sequences, files in ((16, 65_536), (512, 65_536), (5000, 1 << 20), (512, 1024))
    ]
    assert connections == [256, 2048, 4096, 64]
    assert 12 * connections[-1] < 1024


def test_ray_says_how_many_files_a_process_may_open(ray_cell: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1024))
    process = ray_cell.environment(ray_cell.CellProcess.model_validate(written(root, cell())))
    assert process["RAY_SERVE_HAPROXY_MAXCONN"] == "64"


def test_replicas_are_told_of_their_cores() -> None:
    two = cell(
        replicas=(
            Placement(("a",), cores=64, numa_node=0, first_core=0),
            Placement(("a",), cores=64, numa_node=1, first_core=0),
        )
    )

    def told(one: Cell) -> Any:
        return serve_config(one, MODEL, "/weights", "127.0.0.1")["applications"][0]["args"].get("shares")

    assert told(two) == [{"cores": 64, "node": 0, "first": 0}, {"cores": 64, "node": 1, "first": 0}]
    assert told(cell()) is None  # has the host to itself: vLLM binds to all of it
    assert told(cell("nvidia")) is None


@pytest.mark.parametrize("build", ["vllm-cpu", "vllm-cuda", "vllm-rocm"])
def test_the_image_has_what_replicas_are_told_to_call(root: Path, build: str) -> None:
    text = (root / "images" / build / "Containerfile").read_text()
    for name in ("__init__", "cpu_binding", "vllm_server"):
        assert f"serving/engines/{name}.py" in text
        assert (root / "serving" / "engines" / f"{name}.py").exists()


def modules(root: Path, module: str) -> set[str]:
    """Files of the package serving that a module needs, those that it imports in functions too."""
    left, found = [module], set()
    while left:
        path = left.pop().replace(".", "/") + ".py"
        if path in found or not (root / path).exists():
            continue
        found.add(path)
        text = (root / path).read_text()
        left += re.findall(r"^\s*from (serving\.[\w.]+) import", text, re.MULTILINE)
        for package, names in re.findall(r"^\s*from (serving(?:\.\w+)*) import ([\w, ]+)$", text, re.MULTILINE):
            left += [f"{package}.{name.strip()}" for name in names.split(",")]
    return found


@pytest.mark.parametrize("engine", ["bigdl", "echo", "onnx", "openvino"])
def test_the_image_has_the_server_and_the_converter(root: Path, engine: str) -> None:
    text = (root / "images" / engine / "Containerfile").read_text()
    wanted = modules(root, "serving.app") | modules(root, f"serving.engines.{engine}")
    wanted |= modules(root, f"serving.engines.{engine}_convert")
    assert {"serving/usage.py", "serving/replica.py"} < wanted
    assert wanted <= set(copied(text))


@pytest.mark.parametrize("build", ["vllm-cpu", "vllm-cuda", "vllm-rocm"])
def test_the_image_has_what_vllms_application_imports(root: Path, build: str) -> None:
    wanted = modules(root, "serving.engines.vllm_server")
    assert {"serving/usage.py", "serving/engines/cache.py"} < wanted
    assert wanted <= set(copied((root / "images" / build / "Containerfile").read_text()))
