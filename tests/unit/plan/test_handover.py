"""Under the runtime ray each replica sees the accelerators that the plan gives it, and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.machine import open_machine
from heteroserve.facts.collect import collect
from heteroserve.facts.declared import hardware_of
from heteroserve.facts.hardware import Hardware
from heteroserve.plan.handover import visible
from heteroserve.plan.planner import HostEntry
from heteroserve.plan.schema import Cell, Plan
from heteroserve.serving.engine_environment import VISIBLE, visible_devices
from heteroserve.serving.ray_serve import serve_config

from tests.unit.plan.estate import gpu_host, host, model, plan_of, reason_of

sys.path.insert(0, str(Path(__file__).parents[1] / "facts"))
import captured_machines as machines
from heteroserve.facts import nvidia_smi

QUERY = " ".join(nvidia_smi.QUERY)
SMALL = "smollm2-135m"
BUILDS = ("vllm-cuda", "vllm-rocm", "vllm-xpu", "vllm-cpu")
NVIDIA = {"class": "0x030200", "driver": "nvidia", "bars": [16 << 20, 128 << 30]}
T4 = {**NVIDIA, "addresses": ["0000:17:00.0"], "id": "10de:1eb8"}
L40S = {**NVIDIA, "addresses": ["0000:65:00.0"], "id": "10de:26b9"}
P400 = {"addresses": ["0000:02:00.0"], "id": "10de:1cb3", "class": "0x030000", "driver": "nouveau"}
H100 = {**NVIDIA, "addresses": ["0000:17:00.0", "0000:65:00.0"], "id": "10de:2331"}


def rows(*found: tuple[str, str, str, int]) -> dict[str, Any]:
    """nvidia-smi's answer: (address, name, UUID, MiB) of each GPU in its own order."""
    lines = (
        f"{number}, 0000{address.upper()}, {name}, {uuid}, {mib}, 500, 580.65.06, Disabled\n"
        for number, (address, name, uuid, mib) in enumerate(found)
    )
    return {QUERY: {"stdout": "".join(lines)}}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Hardware]:
    """Facts of a captured machine with other devices and answers."""

    def run(name: str, **changes: Any) -> Hardware:
        description = machines.describe(name)
        commands = {**description["commands"], **changes.pop("commands", {})}
        root = machines.materialise({**description, **changes, "commands": commands}, tmp_path / "root")
        return collect(open_machine(root))

    return run


def under_ray(hardware: Hardware, *models: Any, previous: Plan | None = None) -> Plan:
    every = models or (model(SMALL, cpu=False),)
    return plan_of({"h": HostEntry(hardware)}, *every, runtime="ray", builds=BUILDS, previous=previous)


def given(plan: Plan) -> dict[str, list[tuple[str, ...]]]:
    """What the replicas of each cell see, by kind of accelerator."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for cell in plan.cells:
        found.setdefault(cell.accelerator, []).extend(own for one in cell.replicas for own in one.visible)
    return {kind: sorted(names) for kind, names in found.items()}


def test_two_kinds_of_gpu_are_told_apart(read: Callable[..., Hardware]) -> None:
    """CUDA by itself numbers the faster one first."""
    answer = rows(("0000:17:00.0", "Tesla T4", "GPU-aa", 15360), ("0000:65:00.0", "NVIDIA L40S", "GPU-bb", 46068))
    plan = under_ray(
        read("r760xa-h100", pci=[T4, L40S], commands=answer),
        model(SMALL, "one", accelerator="nvidia-t4-16gb", dtype="float16"),
        model(SMALL, "two", accelerator="nvidia-l40s-48gb"),
    )
    assert given(plan) == {"nvidia-t4-16gb": [("GPU-aa",)], "nvidia-l40s-48gb": [("GPU-bb",)]}


def test_a_display_card_has_no_number(read: Callable[..., Hardware]) -> None:
    answer = rows(
        ("0000:17:00.0", "NVIDIA H100 PCIe", "GPU-aa", 81559), ("0000:65:00.0", "NVIDIA H100 PCIe", "GPU-bb", 81559)
    )
    facts = read("r760xa-h100", pci=[P400, H100], commands=answer)
    assert given(under_ray(facts)) == {"nvidia-h100-pcie-80gb": [("GPU-aa",), ("GPU-bb",)]}
    nameless = replace(facts, accelerators=tuple(replace(item, uuid=None) for item in facts.accelerators))
    assert visible(nameless, (1, 2)) == ("0", "1")
    unnumbered = tuple(replace(item, ordinal=None) for item in nameless.accelerators)
    assert visible(replace(facts, accelerators=unnumbered), (1, 2)) == ("0", "1")


def test_a_lost_gpu_has_no_number(read: Callable[..., Hardware]) -> None:
    lines = machines.describe("r760xa-h100")["commands"][QUERY]["stdout"].splitlines(keepends=True)
    facts = read("r760xa-h100", commands={QUERY: {"stdout": "".join([lines[0], *lines[2:]]), "code": 15}})
    uuids = [facts.accelerators[index].uuid for index in (0, 2, 3)]
    assert given(under_ray(facts)) == {"nvidia-h100-pcie-80gb": sorted((uuid,) for uuid in uuids)}


def test_names_of_two_kinds_are_never_mixed(read: Callable[..., Hardware]) -> None:
    """CUDA stops reading at the first name of another kind."""
    facts = read("r760xa-h100")
    some = tuple(replace(item, uuid="[N/A]") if item.index == 2 else item for item in facts.accelerators)
    assert visible(replace(facts, accelerators=some), (1, 2)) == ("1", "2")


def test_declared_hardware_is_counted_vendor_by_vendor() -> None:
    kinds = [{"kind": "nvidia-l40s-48gb", "count": 2}, {"kind": "amd-mi210-64gb", "count": 2}]
    facts = hardware_of({"server": "r7625", "accelerators": kinds, "memory_gib": 256})
    assert given(under_ray(facts)) == {
        "nvidia-l40s-48gb": [("0",), ("1",)],
        "amd-mi210-64gb": [("0",), ("1",)],
    }


def test_amd_gpus_have_hips_numbers(read: Callable[..., Hardware]) -> None:
    """They follow the KFD topology, whose nodes are not in the order of addresses here; vLLM takes no UUID of AMD's."""
    kfd = machines.describe("xe9680-mi300x")["kfd"]
    facts = read("xe9680-mi300x", kfd={**kfd, "gpus": list(reversed(kfd["gpus"]))})
    assert [item.ordinal for item in facts.accelerators] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert visible(facts, (0, 1)) == ("7", "6")


def test_intel_gpus_have_level_zeros_numbers(read: Callable[..., Hardware]) -> None:
    facts = read("r760-flex170")
    assert visible(facts, (1,)) == ("1",)
    assert visible_devices("intel", ("1",)) == {"ZE_AFFINITY_MASK": "1", "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1"}


@pytest.mark.parametrize(("name", "parts"), [("mig", "MIG"), ("xe9680-mi300x-cpx", "CPX")])
def test_partitions_are_refused(name: str, parts: str, read: Callable[..., Hardware]) -> None:
    facts = read(name)
    plan = under_ray(facts)
    taken = [index for cell in plan.cells for one in cell.replicas for own in one.devices for index in own]
    assert not [index for index in taken if facts.accelerators[index].partition]
    assert "is a partition, which the runtime ray cannot hand to one process alone" in reason_of(plan, "h")
    assert parts in reason_of(plan, "h")
    assert "set `runtime: k3s`" in reason_of(plan, "h")
    under_k3s = plan_of({"h": HostEntry(facts)}, model(SMALL, cpu=False))
    taken = [index for cell in under_k3s.cells for one in cell.replicas for own in one.devices for index in own]
    assert [index for index in taken if facts.accelerators[index].partition]
    assert all(one.visible == () for cell in under_k3s.cells for one in cell.replicas)


def test_a_virtual_gpu_is_a_device_of_its_guest(read: Callable[..., Hardware]) -> None:
    answer = rows(("0000:00:06.0", "NVIDIA H100XM-40C", "GPU-aa", 40960))
    assert given(under_ray(read("vm-h100", commands=answer))) == {"nvidia-h100-sxm-80gb": [("GPU-aa",)]}


def test_each_replica_is_told_its_own() -> None:
    """Pairs that a bridge joins stay together, whatever Ray would give."""
    facts = hardware_of(
        {"server": "r760xa", "accelerators": {"kind": "nvidia-h100-pcie-80gb", "count": 4, "link": "nvlink",
                                              "pairs": True}, "memory_gib": 512}
    )  # fmt: skip
    plan = under_ray(facts, model("llama-3.1-8b", tensor_parallel_size=2))
    every = [arguments(cell, plan)["devices"] for cell in plan.cells]
    assert sorted(one["CUDA_VISIBLE_DEVICES"] for some in every for one in some) == ["0,1", "2,3"]
    assert {one["CUDA_DEVICE_ORDER"] for some in every for one in some} == {"PCI_BUS_ID"}


def arguments(cell: Cell, plan: Plan) -> dict[str, Any]:
    """What Serve is told of a cell's application."""
    config = serve_config(cell, plan.models[0], "/w", "127.0.0.1")
    return dict(config["applications"][0]["args"])


def test_under_k3s_the_device_plugin_chooses() -> None:
    plan = plan_of({"h": host("a100")}, model("llama-3.1-8b"))
    assert all("devices" not in arguments(cell, plan) for cell in plan.cells)


def test_a_replica_follows_its_gpu() -> None:
    """When the first GPU is taken out, the others move up by one: what runs on them goes on as it is."""
    four = gpu_host("nvidia-a100-pcie-40gb", 4)
    named = replace(
        four, accelerators=tuple(replace(item, uuid=f"GPU-{item.index}", ordinal=item.index)
                                 for item in four.accelerators)
    )  # fmt: skip
    before = under_ray(named, model("llama-3.1-8b"))
    left = replace(
        named,
        accelerators=tuple(replace(item, index=item.index - 1, ordinal=item.index - 1)
                           for item in named.accelerators[1:]),
    )  # fmt: skip
    after = under_ray(left, model("llama-3.1-8b"), previous=before)
    homes = {one.visible: cell.name for cell in before.cells for one in cell.replicas}
    stays = {one.visible: cell.name for cell in after.cells for one in cell.replicas}
    assert len(homes) == 4
    assert stays == {names: cell for names, cell in homes.items() if names != (("GPU-0",),)}
    assert {one.devices for cell in after.cells for one in cell.replicas} == {((0,),), ((1,),), ((2,),)}
    whole = {cell.digest for cell in before.cells if (("GPU-0",),) not in [one.visible for one in cell.replicas]}
    assert whole <= {cell.digest for cell in after.cells}


def test_every_vendor_has_a_variable() -> None:
    assert {visible_devices(vendor, ("0", "2"))[variable] for vendor, variable in VISIBLE.items()} == {"0,2"}
    assert visible_devices("cpu", ()) == {"CUDA_VISIBLE_DEVICES": ""}
