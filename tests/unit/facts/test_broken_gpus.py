"""One GPU of each captured machine answers with a fault, or not at all: it is not planned for, and the others are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import captured_machines as machines
import pytest
from heteroserve.common.machine import Machine, open_machine
from heteroserve.facts import amd, intel, nvidia_smi
from heteroserve.facts.accelerators import CARDS
from heteroserve.facts.collect import collect
from heteroserve.facts.gpus import probe_accelerators
from heteroserve.facts.hardware import Accelerator, Hardware, hardware_from_dict
from heteroserve.facts.tool_output import ADDRESS, address_in
from heteroserve.plan.bays import available
from heteroserve.plan.request import HostEntry, PlanOptions

from tests.unit.plan.estate import model, plan_of

WORDS = (
    "[Unknown Error]",
    "[GPU is lost]",
    "[GPU requires reset]",
    "ERR!",
    "AMDSMI_STATUS_DRIVER_NOT_LOADED",
    "Unable to detect the device",
    "ZE_RESULT_ERROR_DEVICE_LOST",
)
BUILDS = ("vllm-cuda", "vllm-rocm", "vllm-xpu")
NO_FAULTS = ("N/A", "[N/A]", "[Not Supported]", "AMDSMI_STATUS_NOT_SUPPORTED", "ZE_RESULT_ERROR_UNSUPPORTED_FEATURE")
TOOLS = tuple(
    " ".join(command)
    for command in (nvidia_smi.QUERY, nvidia_smi.XML, amd.AMD_SMI, amd.ROCM_SMI, intel.XPU_SMI, intel.HL_SMI)
)
Edit = Callable[[str], str]


def tool_of(name: str) -> str | None:
    """The command whose rows the facts of a machine come from, if it prints rows at all."""
    commands = machines.describe(name).get("commands", {})
    return next((tool for tool in TOOLS if re.search(ADDRESS, (commands.get(tool) or {}).get("stdout", ""))), None)


ASKED = {name: tool for name in machines.names() if (tool := tool_of(name))}


@pytest.fixture(scope="module")
def machine_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Machine]:
    """Captured machines, written once each."""
    known: dict[str, Machine] = {}

    def get(name: str) -> Machine:
        if name not in known:
            description = machines.describe(name)
            if "kfd" in description:
                description["kfd"]["partitions"] = 1  # of 64 the links take long to read, and no partition has any
            root = machines.materialise(description, tmp_path_factory.mktemp(name) / "root")
            known[name] = open_machine(root)
        return known[name]

    return get


def read(machine: Machine, **commands: Any) -> tuple[Accelerator, ...]:
    """The accelerators with other answers of some commands; every unusable one has a reason, and what is lost a fix."""
    capture = {**machine.capture, "commands": {**machine.capture["commands"], **commands}}
    found = probe_accelerators(replace(machine, capture=capture))
    assert all((item.why_not is None) == item.usable for item in found.value.accelerators)
    assert all(problem.fix for problem in found.problems if problem.code == "gpu-lost")
    return found.value.accelerators


def cells(text: str, place: int, row: int = -1) -> Edit:
    """Replace a cell of one line of a CSV."""

    def edit(word: str) -> str:
        lines = [line.split(", ") for line in text.splitlines()]
        lines[row][place] = word
        return "".join(", ".join(line) + "\n" for line in lines)

    return edit


def leaves(data: Any) -> Iterator[tuple[Any, Any]]:
    """Where the values of a JSON value are: (what holds it, key)."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        if isinstance(value, (dict, list)):
            yield from leaves(value)
        else:
            yield data, key


def devices(data: Any) -> Any:
    """The entries of a tool's JSON, a device each."""
    listed = data.get("gpu_data") or data.get("device_list") or list(data.values())
    return listed if isinstance(listed, list) else [listed]


def in_json(text: str, number: int) -> Edit:
    """Replace a value of the last device."""

    def edit(word: str) -> str:
        data = json.loads(text)
        holder, key = list(leaves(devices(data)[-1]))[number]
        holder[key] = word
        return json.dumps(data)

    return edit


def fields(tool: str, text: str) -> list[tuple[str, Edit]]:
    """Each field of the last device of a tool's answer: what it says, and how to replace it."""
    if text.lstrip().startswith(("{", "[")):
        known = list(leaves(devices(json.loads(text))[-1]))
        return [(str(holder[key]), in_json(text, number)) for number, (holder, key) in enumerate(known)]
    return [(was, cells(text, place)) for place, was in enumerate(text.splitlines()[-1].split(", "))]


def without_last(text: str) -> str:
    """A tool's answer without its last device."""
    if not text.lstrip().startswith(("{", "[")):
        return "".join(text.splitlines(keepends=True)[:-1])
    data = json.loads(text)
    for listed in ("gpu_data", "device_list"):
        if listed in data:
            data[listed].pop()
            return json.dumps(data)
    data.popitem()
    return json.dumps(data)


def target(found: tuple[Accelerator, ...], text: str) -> str:
    """PCI address of the last device that a tool lists."""
    last = address_in([match[0] for match in re.finditer(ADDRESS, text)][-1])
    assert last in {item.pci_address for item in found}
    return last


def only_lost(before: tuple[Accelerator, ...], after: tuple[Accelerator, ...], address: str) -> None:
    """No GPU at the address can be used (a single GPU whose row has no address blocks all: that is the same)."""
    assert not [item for item in after if item.usable and item.pci_address == address]
    others = [(item.pci_address, item.partition, item.usable) for item in before if item.pci_address != address]
    assert [(item.pci_address, item.partition, item.usable) for item in after if item.pci_address != address] == others


def planned(machine: Hardware, found: tuple[Accelerator, ...]) -> set[str]:
    """PCI addresses of the accelerators that get a cell."""
    options = {"builds": BUILDS, "allow_cpu": False}
    hardware = replace(machine, accelerators=found)
    plan = plan_of({"h": HostEntry(hardware)}, model("smollm2-135m", min_replicas=0), **options)
    taken = {index for cell in plan.cells for one in cell.replicas for own in one.devices for index in own}
    return {item.pci_address or "" for item in found if item.index in taken}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_a_fault_in_any_field_takes_out_that_gpu_alone(name: str, machine_of: Callable[[str], Machine]) -> None:
    machine, tool = machine_of(name), ASKED[name]
    text = machine.capture["commands"][tool]["stdout"]
    before = read(machine)
    address = target(before, text)
    for number, (_, edit) in enumerate(fields(tool, text)):
        for word in WORDS:
            after = read(machine, **{tool: {"stdout": edit(word), "code": number}})
            only_lost(before, after, address)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_exit_status_changes_nothing(name: str, machine_of: Callable[[str], Machine]) -> None:
    machine, tool = machine_of(name), ASKED[name]
    text = machine.capture["commands"][tool]["stdout"]
    before = read(machine)
    address = target(before, text)
    broken, fewer = fields(tool, text)[-1][1](WORDS[0]), without_last(text)
    alone = len({item.pci_address for item in before}) == 1
    for code in range(21):
        assert read(machine, **{tool: {"stdout": text, "code": code}}) == before
        only_lost(before, read(machine, **{tool: {"stdout": broken, "code": code}}), address)
        if not alone or code == 0:
            only_lost(before, read(machine, **{tool: {"stdout": fewer, "code": code}}), address)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_words_for_what_a_gpu_does_not_have_are_no_faults(name: str, machine_of: Callable[[str], Machine]) -> None:
    machine, tool = machine_of(name), ASKED[name]
    text = machine.capture["commands"][tool]["stdout"]
    before = read(machine)
    for was, edit in fields(tool, text):
        if address_in(was) or was.isdecimal() or was in ("Enabled", "Disabled"):
            continue  # which GPU it is, and whether it is one: without that there is no row
        for word in NO_FAULTS:
            after = read(machine, **{tool: {"stdout": edit(word)}})
            assert [item.usable for item in after] == [item.usable for item in before]


@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_gpu_with_a_fault_gets_a_cell(name: str, machine_of: Callable[[str], Machine]) -> None:
    machine, tool = machine_of(name), ASKED[name]
    verdict = json.loads((machines.MACHINES / name / "verdict.json").read_text(encoding="utf-8"))
    hardware = hardware_from_dict(verdict)
    text = machine.capture["commands"][tool]["stdout"]
    before = read(machine)
    address = target(before, text)
    driven = available("vllm", before[0].vendor, PlanOptions(builds=BUILDS))
    whole = {item.pci_address for item in before if item.usable and driven and item.kind in CARDS}
    assert planned(hardware, before) == whole
    for changed in (fields(tool, text)[-1][1](WORDS[0]), without_last(text)):
        assert planned(hardware, read(machine, **{tool: {"stdout": changed}})) == whole - {address}


MIG = "\n".join(machines.describe("mig")["commands"]["nvidia-smi -L"]["stdout"].splitlines())


@pytest.mark.parametrize("word", WORDS)
def test_instances_of_a_broken_gpu_are_not_used(word: str, machine_of: Callable[[str], Machine]) -> None:
    """Whatever of nvidia-smi's answers has the fault: the query, the list of instances, or the page of each GPU."""
    machine, query = machine_of("mig"), " ".join(nvidia_smi.QUERY)
    text = machine.capture["commands"][query]["stdout"]
    for place in range(len(nvidia_smi.FIELDS)):
        found = read(machine, **{query: {"stdout": cells(text, place, row=0)(word)}})
        assert [item.index for item in found if item.usable] == [1]
    for line in range(4):
        lines = MIG.splitlines()
        lines[line] = re.sub(r"UUID: \S+\)", f"UUID: {word})", lines[line])
        found = read(machine, **{" ".join(nvidia_smi.LIST): {"stdout": "\n".join(lines)}})
        assert all(re.fullmatch(r"(GPU|MIG)-[0-9a-f-]+", item.uuid or "") for item in found)
        assert len([item for item in found if item.partition]) == (0 if line == 0 else 2)
    page = machine.capture["commands"][" ".join(nvidia_smi.XML)]["stdout"]
    for value in sorted(set(re.findall(r">([^<>\s][^<>]*)<", page))):
        answers = {" ".join(nvidia_smi.XML): {"stdout": page.replace(f">{value}<", f">{word}<")}}
        found = read(machine, **answers)
        assert all(item.memory and item.memory < 41 << 30 for item in found if item.partition)
        read(machine, **answers, **{query: {"code": 2, "stdout": 'Field "x" is not a valid field to query.\n'}})


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("00000000:65:00.0, 0, No, No, [N/A]", ""),
        ("00000000:65:00.0, [N/A], [N/A], [N/A], No", ""),
        ("00000000:65:00.0, 3, No, No, [N/A]", "3 uncorrectable memory errors"),
        ("00000000:65:00.0, 0, Yes, No, [N/A]", "memory that has to be remapped by a reset"),
        ("00000000:65:00.0, 0, No, Yes, [N/A]", "memory that cannot be remapped"),
        ("00000000:65:00.0, [N/A], [N/A], [N/A], Yes", "memory that has to be remapped by a reset"),
        ("00000000:65:00.0, [GPU is lost], No, No, [N/A]", "GPU is lost"),
        ('Field "remapped_rows.pending" is not a valid field to query.', ""),
    ],
)
def test_an_nvidia_gpu_with_uncorrectable_errors(row: str, fault: str, machine_of: Callable[[str], Machine]) -> None:
    asked = " ".join(nvidia_smi.HEALTH)
    found = read(machine_of("r760xa-h100"), **{asked: {"stdout": f"00000000:17:00.0, 0, No, No, [N/A]\n{row}\n"}})
    assert [item.usable for item in found] == [True, not fault, True, True]
    assert found[1].why_not == (f"nvidia-smi reports {fault!r} for it" if fault else None)


@pytest.mark.parametrize(("errors", "usable"), [("ue: 0\nce: 7\n", True), ("ue: 2\nce: 0\n", False), ("?", True)])
def test_an_amd_gpu_with_uncorrectable_errors(errors: str, usable: bool, tmp_path: Path) -> None:
    description = machines.describe("r7625-mi210")
    pci = [{**description["pci"][0], "files": {**description["pci"][0]["files"], "ras/umc_err_count": errors}}]
    found = read(open_machine(machines.materialise({**description, "pci": pci}, tmp_path / "root")))
    assert [item.usable for item in found] == [usable]
    assert found[0].why_not in (None, "amdgpu reports '2 uncorrectable errors' for it")


@pytest.mark.parametrize(
    ("status", "usable"), [("OK", True), ("Warning", True), ("Unknown", True), ("Critical", False)]
)
def test_an_intel_gpu_with_a_critical_part(status: str, usable: bool, machine_of: Callable[[str], Machine]) -> None:
    parts = {"device_id": 1, "memory": {"description": "", "status": status}, "power": {"status": "OK"}}
    answer = {"stdout": json.dumps({"device_list": [{"device_id": 0, "memory": {"status": "OK"}}, parts]})}
    found = read(machine_of("r760-flex170"), **{" ".join(intel.XPU_HEALTH): answer})
    assert [item.usable for item in found] == [True, usable]


@pytest.mark.parametrize(
    "answer",
    [
        {"code": 1, "stdout": '{"error": "Level Zero Initialization Error", "errno": 1}'},
        {"code": 0, "stdout": '{"device_list": []}'},
        {"code": 20, "stdout": "Error: unable to get the list of devices\n"},
    ],
)
def test_xpu_smi_that_lists_no_gpu(answer: dict[str, Any], machine_of: Callable[[str], Machine]) -> None:
    found = read(machine_of("r760-flex170"), **{" ".join(intel.XPU_SMI): answer})
    assert [item.usable for item in found] == [False, False]


@pytest.mark.parametrize("word", ["ERR!", "ZE_RESULT_ERROR_DEVICE_LOST"])
def test_a_fault_in_the_page_of_an_intel_gpu(word: str, machine_of: Callable[[str], Machine]) -> None:
    page = " ".join((*intel.XPU_SMI[:2], "-d", "1", "-j"))
    for answer in ({"stdout": json.dumps({"memory_physical_size_byte": word})}, {"hang": True},
                   {"code": 1, "stdout": json.dumps({"error": word, "errno": 5})}):  # fmt: skip
        found = read(machine_of("r760-flex170"), **{page: answer})
        assert [item.usable for item in found] == [True, False]


@pytest.mark.parametrize("tool", ["amd-smi", "rocm-smi"])
def test_amd_tools_that_list_no_gpu(tool: str, machine_of: Callable[[str], Machine]) -> None:
    name, command = ("xe9680-mi300x", amd.AMD_SMI) if tool == "amd-smi" else ("r7625-mi210", amd.ROCM_SMI)
    for answer in ({"stdout": "{}"}, {"stdout": "[]"}, {"code": 1, "stderr": "ERROR: AMDSMI_STATUS_DRIVER_NOT_LOADED"},
                   {"code": 255, "stdout": "Unable to get devices\n"}):  # fmt: skip
        assert not any(item.usable for item in read(machine_of(name), **{" ".join(command): answer}))


def test_a_sentence_that_names_a_gpu_is_about_that_one(machine_of: Callable[[str], Machine]) -> None:
    """Beside rows, and instead of them; on either stream."""
    said = "Unable to determine the device handle for GPU0000:65:00.0: Unknown Error\n"
    query = " ".join(nvidia_smi.QUERY)
    for answer in ({"code": 15, "stdout": said}, {"code": 255, "stderr": said}):
        found = read(machine_of("r760xa-h100"), **{query: answer})
        assert [item.usable for item in found] == [True, False, True, True]


def test_a_new_driver_does_not_heal_a_lost_gpu(tmp_path: Path) -> None:
    """One GPU waits for its driver, which a later stage installs; another has fallen off."""
    description = machines.describe("r760xa-h100")
    (board,) = description["pci"]
    first, lost, *others = board["addresses"]
    pci = [{**board, "addresses": [lost, *others], "numa_nodes": board["numa_nodes"][1:]},
           {**board, "addresses": [first], "numa_nodes": board["numa_nodes"][:1], "driver": None}]  # fmt: skip
    query = " ".join(nvidia_smi.QUERY)
    rows = description["commands"][query]["stdout"].splitlines(keepends=True)
    commands = {**description["commands"], query: {"stdout": "".join(rows[2:]), "code": 15}}
    root = machines.materialise({**description, "pci": pci, "commands": commands}, tmp_path / "root")
    facts = collect(open_machine(root))
    assert {problem.code for problem in facts.problems} >= {"gpu-lost", "driver-not-loaded"}
    plan = plan_of({"h": HostEntry(facts)}, model("smollm2-135m", cpu=False), drivers_managed=True)
    taken = {index for cell in plan.cells for one in cell.replicas for own in one.devices for index in own}
    assert {facts.accelerators[index].pci_address for index in taken} == {first, *others}
