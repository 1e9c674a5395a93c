"""Parsers alone, on the variants that tools and kernels print."""

from __future__ import annotations

import pytest
from heteroserve.facts.amd import location_address, parse_amd_smi, parse_rocm_smi
from heteroserve.facts.cpu import parse_cpuinfo
from heteroserve.facts.drivers import library_version, parse_nvidia_proc
from heteroserve.facts.intel import parse_discovery, parse_health, parse_hl_smi, parse_page
from heteroserve.facts.memory import Dimm, from_dimms, parse_dimms
from heteroserve.facts.nvidia_smi import (
    parse_list,
    parse_query,
    parse_topology,
    parse_xml,
    vgpu_partition,
)
from heteroserve.facts.pci import PciDevice, is_accelerator, parse_resource
from heteroserve.facts.platform import (
    cgroup_version,
    detect_virtualization,
    parse_host_interface,
    parse_ipmi_lan,
    parse_os_release,
    parse_secure_boot,
)
from heteroserve.facts.storage import mount_of, parse_mountinfo, parse_statfs
from heteroserve.facts.tool_output import address_in, before_json, json_in, number_in

MIB = 1024**2
GARBAGE = ("", "\n\n", "{", "[1, 2]", "null", "a, b, c", "\x00\x01", "<xml", '{"gpu_data": 3}', '{"device_list": [3]}')


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_gives_nothing(text: str) -> None:
    assert parse_query(text) == ()
    assert parse_xml(text) == ((), {})
    assert parse_list(text) == ()
    assert parse_topology(text) == {}
    assert parse_amd_smi(text) == ()
    assert parse_rocm_smi(text) == ()
    assert parse_discovery(text) == ()
    assert parse_page(text) == (None, "")
    assert parse_health(text) in ({}, {"": ""})
    assert parse_hl_smi(text) == ()
    assert parse_dimms(text) == ()
    assert parse_statfs(text) is None


def test_query_row_of_a_gpu_without_memory_of_its_own() -> None:
    row = parse_query("0, 0000000F:01:00.0, NVIDIA GB10, GPU-1, [N/A], [N/A], 580.95.05, [N/A]\n")[0]
    assert (row.memory, row.mig, row.address) == (None, False, "000f:01:00.0")


def test_addresses_are_written_as_sysfs_does() -> None:
    assert address_in("00000000:CA:00.0") == "0000:ca:00.0"
    assert address_in("00010000:01:00.0") == "10000:01:00.0"
    assert [address_in(text) for text in ("[Unknown Error]", "ERR!:0", "N/A", "", None, 7)] == [""] * 6


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("5", 5), (" 14248.00 ", 14248), (2.5, 2), (0, None), (-1, None), (True, None), (None, None),
     ("N/A", None), (float("nan"), None), (float("inf"), None), ("1e400", None), ("ERR!", None), ([1], None)],
)  # fmt: skip
def test_only_what_is_a_number_counts_as_one(value: object, number: int | None) -> None:
    assert number_in(value) == number


def test_topology_with_and_without_escapes() -> None:
    header = "\tGPU0\tGPU1\tmlx5_0\tCPU Affinity\tNUMA Affinity\n"
    plain = header + "GPU0\t X \tNV12\tPXB\t0-31\t0\nGPU1\tNV12\t X \tSYS\t0-31\t0\n"
    assert parse_topology(plain) == {0: {1: "NV12"}, 1: {0: "NV12"}}
    assert parse_topology(plain.replace("\tGPU0", "\t\x1b[4mGPU0", 1)) == parse_topology(plain)


def test_topology_of_one_gpu() -> None:
    assert parse_topology("\t\x1b[4mGPU0\tCPU Affinity\x1b[0m\nGPU0\t X \t0-15\t0\t\tN/A\n") == {0: {}}


def test_vgpu_names() -> None:
    assert vgpu_partition("GRID A100D-40C") == "vgpu-40c"
    assert vgpu_partition("NVIDIA A100 80GB PCIe") is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.06  Wed Jun 26 06:46:07 UTC 2024\n", "535.183.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (x@)\n", "580.159.04"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  565.77  Release Build\n", "565.77"),
        ("", None),
    ],
)
def test_version_of_the_running_module(text: str, version: str | None) -> None:
    assert parse_nvidia_proc(text) == version


def test_version_of_a_library() -> None:
    assert library_version("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.65.06") == "580.65.06"
    assert library_version("/usr/lib/libnvidia-ml.so.1") is None


def test_warnings_before_json_are_cut_off() -> None:
    text = 'WARNING: User is missing the following required groups: video\n[not json\n{"gpu_data": [1]} trailing'
    assert json_in(text) == {"gpu_data": [1]}
    assert before_json(text).startswith("WARNING: User is missing")
    assert (json_in("nothing"), json_in('{"cut": '), before_json("\n [1]")) == (None, None, "")


def test_amd_smi_as_a_list_and_with_gpu_data() -> None:
    gpu = '{"asic": {"market_name": "AMD Instinct MI210"}, "bus": {"bdf": "0000:E3:00.0"}, "vram": {"size": %s}}'
    new = parse_amd_smi('{"gpu_data": [' + gpu % '{"value": 65520, "unit": "MB"}' + "]}")
    assert new == parse_amd_smi("[" + gpu % '{"value": 65520, "unit": "MB"}' + "]")
    assert (new[0].address, new[0].memory) == ("0000:e3:00.0", 65520 * MIB)
    assert parse_amd_smi("[" + gpu % '"N/A"' + "]")[0].memory is None


def test_kfd_location_is_a_pci_address() -> None:
    assert location_address(0x1900 | 3, 0) == "0000:19:00"
    assert location_address(0xC108, 1) == "0001:c1:01"


def test_xpu_smi_names_that_say_nothing_are_left_to_the_card() -> None:
    device = '{"device_id": 3, "device_name": "Intel(R) Graphics [0x56c0]", "pci_bdf_address": "0000:4D:00.0"}'
    row = parse_discovery(f'{{"device_list": [{device}]}}')[0]
    assert (row.number, row.address, row.name) == ("3", "0000:4d:00.0", None)


def test_cpuinfo_of_arm() -> None:
    first = "processor\t: 0\nBogoMIPS\t: 2000\nFeatures\t: fp asimd sve bf16 i8mm\nCPU implementer\t: 0x41\n"
    cpu = parse_cpuinfo(f"{first}\nprocessor\t: 1\n")
    assert (cpu.vendor, cpu.model_name, cpu.cores, cpu.sockets) == ("arm", "ARM", 2, 1)
    assert cpu.isa == ("asimd", "sve", "i8mm", "bf16")


def test_dimms_of_old_and_new_dmidecode() -> None:
    old = "Memory Device\n\tSize: 32767 MB\n\tLocator: DIMM_A1\n\tSpeed: 2666 MHz\n\tConfigured Clock Speed: 2400 MHz\n"
    new = "Memory Device\n\tSize: 64 GB\n\tLocator: A1\n\tSpeed: 4800 MT/s\n\tConfigured Memory Speed: 4400 MT/s\n"
    empty = "Memory Device\n\tSize: No Module Installed\n\tLocator: A9\n"
    assert parse_dimms("\n\n".join((old, new, empty))) == (
        Dimm("DIMM_A1", 32767 * MIB, 2400),
        Dimm("A1", 65536 * MIB, 4400),
    )


def test_two_dimms_a_channel_do_not_double_the_channels() -> None:
    text = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9354\ncpu cores\t: 1\n"
    cpu = parse_cpuinfo("processor\t: 0\n" + text)
    many = tuple(Dimm(f"A{place}", 1, 4000) for place in range(1, 25))
    assert from_dimms(many, cpu) == (12, 4000, 12 * 4000 * 8e6)
    assert from_dimms(many[:6], cpu) == (6, 4000, 6 * 4000 * 8e6)
    assert from_dimms(many[:6], parse_cpuinfo("processor\t: 0\n")) == (6, 4000, 6 * 4000 * 8e6)


def test_resource_sizes() -> None:
    small = "0x0000102002000000 0x0000102002ffffff 0x000000000014220c\n"
    assert parse_resource(f"{small}0x0 0x0 0x0\n0x100000000000 0x101fffffffff 0x14220c\n") == (16 * MIB, 128 * 1024**3)


@pytest.mark.parametrize(
    ("device", "vram", "wanted"),
    [
        (PciDevice("0000:00:02.0", "8086", "46a6", 0x0300), None, False),
        (PciDevice("0000:03:00.0", "8086", "e20b", 0x0300), None, True),
        (PciDevice("0000:00:0b.0", "8086", "7d1d", 0x1200), None, False),
        (PciDevice("0000:64:00.0", "1002", "15bf", 0x0300), 512 * MIB, False),
        (PciDevice("0000:03:00.0", "1002", "744c", 0x0300), 24 * 1024**3, True),
        (PciDevice("0000:03:00.1", "10de", "22ba", 0x0403), None, False),
        (PciDevice("0000:03:00.0", "10de", "ffff", 0x0302), None, True),
        (PciDevice("0000:03:00.0", "102b", "0536", 0x0300), None, False),
    ],
)
def test_what_counts_as_an_accelerator(device: PciDevice, vram: int | None, wanted: bool) -> None:
    assert is_accelerator(device, vram) is wanted


def test_mounts() -> None:
    mounts = parse_mountinfo(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /my\\040models rw shared:1 - nfs4 nas:/m rw\n"
        "3 1 8:2 / /srv rw - xfs /dev/sda2 rw\n4 3 8:3 / /srv rw - xfs /dev/sda3 rw\nbroken line\n"
    )
    assert mount_of("/my models/llama", mounts) == mounts[1]
    assert mount_of("/srv/x", mounts) == mounts[3]
    assert mount_of("/srvx", mounts) == mounts[0]


def test_cgroups() -> None:
    line = "31 23 0:28 / {} rw - {} {} rw\n"
    unified, hybrid, v1 = (
        line.format("/sys/fs/cgroup", "cgroup2", "cgroup2"),
        line.format("/sys/fs/cgroup/unified", "cgroup2", "cgroup2")
        + line.format("/sys/fs/cgroup/cpu", "cgroup", "cgroup"),
        line.format("/sys/fs/cgroup/cpu", "cgroup", "cgroup"),
    )
    assert [cgroup_version(parse_mountinfo(text)) for text in (unified, hybrid, v1, "")] == [2, 1, 1, None]


def test_firmware_and_bmc() -> None:
    assert [parse_secure_boot(data) for data in (b"\6\0\0\0\1", b"\6\0\0\0\0", b"")] == [True, False, None]
    assert parse_ipmi_lan("IP Address Source       : DHCP\nIP Address              : 0.0.0.0\n") is None
    assert parse_ipmi_lan("IP Address              : 10.9.8.7\n") == "10.9.8.7"
    assert parse_host_interface("\t\tIPv4 Redfish Service Address: 169.254.1.1\n") is None
    assert parse_host_interface("\t\tIPv4 Redfish Service Address: 10.9.8.7\n") == "10.9.8.7"


def test_operating_system_and_hypervisor() -> None:
    assert (
        parse_os_release('NAME="X"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == "Debian GNU/Linux 12 (bookworm)"
    )
    assert parse_os_release("PRETTY_NAME=Alpine\n") == "Alpine"
    assert detect_virtualization("VMware, Inc.", "VMware7,1", True, None) == "vmware"
    assert detect_virtualization("Microsoft Corporation", "Virtual Machine", True, None) == "hyper-v"
    assert detect_virtualization("", "", True, None) == "vm"
    assert detect_virtualization("Dell Inc.", "PowerEdge R760", False, None) == "none"
    assert detect_virtualization("Dell Inc.", "PowerEdge R760", False, "podman") == "podman"
