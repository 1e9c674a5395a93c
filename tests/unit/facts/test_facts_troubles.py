"""What a broken host gives: facts that say so, in an operator's words, and never an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import captured_machines as machines
import pytest
from heteroserve.common.machine import Machine, open_machine
from heteroserve.facts import amd, nvidia_smi
from heteroserve.facts import collect as collector
from heteroserve.facts.hardware import Hardware, Problem

QUERY = " ".join(nvidia_smi.QUERY)
SILENT = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that"
Replay = Callable[..., Hardware]


def problem(facts: Hardware, code: str) -> Problem:
    found = [item for item in facts.problems if item.code == code]
    assert len(found) == 1, [item.code for item in facts.problems]
    return found[0]


def test_a_healthy_host_has_no_problems(replay: Replay) -> None:
    for name in ("xe9680-a100", "xe9680-mi300x", "xe9680-gaudi3", "r760-amx", "vm-h100", "r7615-cpu", "laptop"):
        assert replay(name).problems == (), name


def test_no_driver(replay: Replay) -> None:
    facts = replay("gpu-no-driver")
    assert problem(facts, "no-driver").text == (
        "no driver that can compute is bound to 2 accelerators (10de:26b9) (nouveau is bound to 1)"
    )
    assert "mokutil" in problem(facts, "secure-boot").fix
    assert [item.usable for item in facts.accelerators] == [False, False]
    assert facts.accelerators[0].why_not == "it is bound to the driver nouveau, which cannot compute"
    assert facts.accelerators[1].why_not == "no driver is bound to it"
    assert facts.accelerators[1].driver is None


def test_installed_driver_that_is_not_loaded(replay: Replay) -> None:
    path = "/usr/lib64/libnvidia-ml.so.1"
    facts = replay("gpu-no-driver", files={path + ".0": ""}, links={path: "libnvidia-ml.so.580.65.06"})
    assert not facts.driver_versions  # a dangling link is no library
    facts = replay(
        "laptop",
        pci=[{"addresses": ["0000:01:00.0"], "id": "10de:25a2", "class": "0x030200"}],
    )
    assert "modprobe nvidia" in problem(facts, "driver-not-loaded").fix


def test_mismatch_names_both_versions_and_the_cure(replay: Replay) -> None:
    facts = replay("driver-mismatch")
    found = problem(facts, "driver-mismatch")
    assert found.text == (
        "the running NVIDIA kernel module is 550.127.08, the installed library is 550.144.03: "
        "no GPU can be used until they match"
    )
    assert found.fix == "restart the host: the module on disk is already 550.144.03"
    assert facts.driver_versions == {"nvidia": "550.127.08 (running), 550.144.03 (library)"}
    assert {item.why_not for item in facts.accelerators} == {"the kernel module and the library of the driver differ"}
    assert {item.memory for item in facts.accelerators} == {81079 * 1024**2}


def test_mismatch_without_a_module_on_disk(replay: Replay) -> None:
    facts = replay("driver-mismatch", commands={"modinfo -F version nvidia": None})
    assert problem(facts, "driver-mismatch").fix.startswith("install the kernel module 550.144.03 (on disk: none)")


def test_mismatch_is_seen_without_nvidia_smi(replay: Replay) -> None:
    facts = replay("driver-mismatch", commands={QUERY: None})
    assert "550.144.03" in problem(facts, "driver-mismatch").text


def test_amd_module_that_an_upgrade_replaced(replay: Replay) -> None:
    facts = replay("r7625-mi210", commands={"modinfo -F version amdgpu": {"stdout": "6.12.12\n"}})
    assert problem(facts, "driver-mismatch").text.startswith("the running module amdgpu is 6.7.0, the one on disk is 6")
    assert facts.accelerators[0].usable


@pytest.mark.parametrize("code", [0, 1, 9])
def test_what_amd_smi_says_before_its_answer_is_a_warning(replay: Replay, code: int) -> None:
    asked = " ".join(amd.AMD_SMI)
    answer = machines.describe("xe9680-mi300x")["commands"][asked]["stdout"]
    warned = {"stdout": f"WARNING: User is missing the required groups\n{answer}", "code": code}
    facts = replay("xe9680-mi300x", commands={asked: warned})
    assert "User is missing the required groups" in problem(facts, "gpu-tool-warning").text
    assert facts.accelerators == replay("xe9680-mi300x").accelerators


def test_hanging_nvidia_smi(replay: Replay) -> None:
    facts = replay("nvidia-smi-hangs")
    found = problem(facts, "nvidia-smi-timeout")
    assert found.text == "nvidia-smi did not answer within 30 s: the driver or a GPU hangs"
    assert [item.usable for item in facts.accelerators] == [False] * 4
    assert facts.cpu.cores == 112
    assert facts.address == "10.20.1.13"


def test_garbage_leaves_the_gpus_usable(replay: Replay) -> None:
    facts = replay("nvidia-smi-garbage")
    assert "nvidia-smi printed what cannot be read: ?ELF" in problem(facts, "nvidia-smi-failed").text
    assert [(item.usable, item.model, item.memory) for item in facts.accelerators] == [
        (True, "NVIDIA H100 PCIe", 81079 * 1024**2)
    ] * 4
    assert facts.accelerators[0].uuid == "GPU-00000045-0000-4a5b-9c0d-0000000001e3"
    assert "cards" in facts.sources["accelerators"]


@pytest.mark.parametrize(
    ("answer", "code", "usable"),
    [
        (None, "nvidia-smi-missing", True),
        ({"code": 9, "stdout": SILENT}, "driver-not-loaded", False),
        ({"code": 6, "stdout": "No devices were found\n"}, "gpu-lost", False),
        ({"code": 255, "stderr": "Unable to determine the device handle for GPU0\n"}, "nvidia-smi-failed", False),
        ({"code": 139, "stdout": ""}, "nvidia-smi-failed", True),
        ({"code": 0, "stdout": ""}, "gpu-lost", False),
    ],
)  # fmt: skip
def test_each_way_nvidia_smi_fails(replay: Replay, answer: Any, code: str, usable: bool) -> None:
    facts = replay("r760xa-h100", commands={QUERY: answer})
    assert problem(facts, code).fix
    assert [item.usable for item in facts.accelerators] == [usable] * 4


def test_old_driver_that_does_not_know_a_field_is_read_from_xml(replay: Replay) -> None:
    refused = {"code": 2, "stdout": 'Field "memory.reserved" is not a valid field to query.\n\n'}
    facts = replay("mig", commands={QUERY: refused})
    assert facts == replace(replay("mig"))


def test_gpu_that_fell_off_the_bus(replay: Replay) -> None:
    rows = machines.describe("r760xa-h100")["commands"][QUERY]["stdout"].splitlines(keepends=True)
    facts = replay("r760xa-h100", commands={QUERY: {"stdout": "".join(rows[:3])}})
    assert "0000:e3:00.0" in problem(facts, "gpu-lost").text
    assert [item.usable for item in facts.accelerators] == [True, True, True, False]


WORDS = (
    "[Unknown Error]",
    "[GPU is lost]",
    "[GPU requires reset]",
    "ERR!",
    "[GPU access blocked by the operating system]",
)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("field", nvidia_smi.FIELDS)
def test_a_gpu_that_answers_with_a_fault_is_not_used(replay: Replay, field: str, word: str) -> None:
    """Whatever field has it; the others are used, whatever nvidia-smi's exit status."""
    rows = [line.split(", ") for line in machines.describe("r760xa-h100")["commands"][QUERY]["stdout"].splitlines()]
    rows[1][nvidia_smi.FIELDS.index(field)] = word
    text = "".join(f"{', '.join(row)}\n" for row in rows)
    for code in range(21):
        facts = replay("r760xa-h100", commands={QUERY: {"stdout": text, "code": code}})
        assert [item.usable for item in facts.accelerators] == [True, False, True, True]
        assert problem(facts, "gpu-lost").fix
        assert facts.accelerators[1].kind == "nvidia-h100-pcie-80gb"


def test_a_warning_before_the_rows_costs_only_the_gpu_it_is_about(replay: Replay) -> None:
    rows = machines.describe("r760xa-h100")["commands"][QUERY]["stdout"].splitlines(keepends=True)
    said = "Unable to determine the device handle for GPU0000:65:00.0: GPU is lost.  Reboot the system to recover it\n"
    facts = replay("r760xa-h100", commands={QUERY: {"stdout": "".join([said, rows[0], *rows[2:]]), "code": 15}})
    assert [item.usable for item in facts.accelerators] == [True, False, True, True]
    assert [item.memory for item in facts.accelerators if item.usable] == [
        replay("r760xa-h100").accelerators[0].memory
    ] * 3


def test_gpu_handed_to_a_virtual_machine(replay: Replay) -> None:
    pci = machines.describe("gpu-no-driver")["pci"]
    facts = replay("gpu-no-driver", pci=[{**device, "driver": "vfio-pci"} for device in pci])
    assert "0000:17:00.0, 0000:ca:00.0" in problem(facts, "gpu-passed-through").text
    assert not [item for item in facts.problems if item.code in ("no-driver", "secure-boot")]


def test_virtual_functions_belong_to_guests(replay: Replay) -> None:
    whole = {"addresses": ["0000:17:00.0"], "id": "10de:26b9", "class": "0x030200", "driver": "nvidia",
             "files": {"sriov_numvfs": 2}}  # fmt: skip
    parts = {"addresses": ["0000:17:00.4", "0000:17:00.5"], "id": "10de:26b9", "class": "0x030200",
             "physfn": "0000:17:00.0"}  # fmt: skip
    facts = replay("gpu-no-driver", pci=[whole, parts])
    assert [item.why_not for item in facts.accelerators] == [
        "it is split into 2 virtual functions for virtual machines"
    ]


def test_mig_instances_stand_beside_their_parent(replay: Replay) -> None:
    parent, second, *parts = replay("mig").accelerators
    assert (parent.usable, second.usable) == (False, True)
    assert parent.why_not == "MIG is on: only its instances can be used, not the GPU as a whole"
    assert [(part.index, part.partition, part.memory) for part in parts] == [
        (2, "mig-3g.40gb", 40192 * 1024**2),
        (3, "mig-2g.20gb", 19968 * 1024**2),
        (4, "mig-1g.10gb", 9728 * 1024**2),
    ]
    assert {part.pci_address for part in parts} == {parent.pci_address}
    assert {part.kind for part in parts} == {"nvidia-a100-pcie-80gb"}
    assert parts[0].uuid == "MIG-5ba10d2e-7a61-5c62-a0b1-2f4e0f1f6a01"


def test_amd_partitions_stand_beside_their_parents(replay: Replay) -> None:
    found = replay("xe9680-mi300x-cpx").accelerators
    assert len(found) == 8 + 64
    assert {item.why_not for item in found[:8]} == {"it is split into 8 (CPX, NPS4): only its partitions can be used"}
    assert {(item.partition, item.memory, item.usable) for item in found[8:]} == {("cpx-nps4", 206141652992 // 8, True)}
    assert found[8].pci_address == found[15].pci_address != found[16].pci_address


def test_virtual_gpu_is_a_part_of_its_card(replay: Replay) -> None:
    row = "0, 00000000:00:06.0, NVIDIA H100XM-40C, GPU-1, 40960, 0, 580.159.04, Disabled\n"
    item = replay("vm-h100", commands={QUERY: {"stdout": row}}).accelerators[0]
    assert (item.partition, item.kind, item.memory) == ("vgpu-40c", "nvidia-h100-sxm-80gb", 40960 * 1024**2)


@pytest.mark.parametrize("name", ["r7625-mi210", "xe9680-gaudi3", "r760-flex170"])
def test_other_vendors_tools_may_break_too(name: str, replay: Replay) -> None:
    commands = machines.describe(name)["commands"]
    tools = [key for key in commands if key.split()[0] in ("rocm-smi", "hl-smi", "xpu-smi")]
    good = replay(name).accelerators
    for broken in ({"hang": True}, {"code": 1, "stderr": "cannot open"}, {"stdout": "{not json"}):
        facts = replay(name, commands=dict.fromkeys(tools, broken))
        assert [item.kind for item in facts.accelerators] == [item.kind for item in good]
        assert all(item.memory for item in facts.accelerators)
        assert [item.code.endswith("-smi-failed") for item in facts.problems] == [True]


def test_a_probe_that_crashes_does_not_take_the_others_with_it(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(machine: Machine, peers: tuple[str, ...]) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(collector, "probe_network", crash)
    facts = replay("r760-amx")
    assert "probe of network failed: RuntimeError: unexpected" in problem(facts, "probe-failed").text
    assert (facts.address, facts.memory > 0, facts.service_tag) == (None, True, "7R760")


def test_an_empty_root_gives_facts_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text("{}", encoding="utf-8")
    facts = collector.collect(open_machine(str(tmp_path)), "/srv/models")
    assert (facts.memory, facts.accelerators, facts.nics, facts.disks) == (0, (), (), ())
    assert facts.cpu.model == "unknown"


def test_a_dead_mount_is_a_problem(replay: Replay) -> None:
    facts = replay("r760-amx", commands={"stat -f -c %S %b %a -- /srv/models": {"hang": True}})
    assert problem(facts, "disk-timeout").text == "the file system of /srv/models does not answer within 5 s"
    assert facts.disks == ()


def test_memory_that_the_firmware_gave_no_window(replay: Replay) -> None:
    pci = machines.describe("r7625-mi210")["pci"]
    facts = replay("r7625-mi210", pci=[{**pci[0], "bars": [2 * 1024**2, 16 * 1024**2]}])
    assert "0000:e3:00.0 no PCI window" in problem(facts, "small-bar").text
