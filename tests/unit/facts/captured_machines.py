"""Captured machines as one readable file each, laid out as the folder that ``common.machine.Machine`` replays.

``tests/fixtures/machines/NAME/machine.yml`` holds files, links and command outputs. What would be hundreds of small
files on a real host is written short there and expanded here to the kernel's own layout: ``cpu`` to /proc/cpuinfo,
``pci`` to /sys/bus/pci/devices, ``nics`` to /sys/class/net, ``kfd`` to AMD's topology, ``dimms`` to dmidecode -t 17.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"
CPU_FLAGS = {
    "avx2": "fpu vme sse4_2 avx f16c avx2",
    "avx512": "avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni",
    "bf16": "avx512_bf16",
    "amx": "avx_vnni avx512_fp16 amx_bf16 amx_tile amx_int8",
}
DIMM = """
Handle 0x{handle:04X}, DMI type 17, 92 bytes
Memory Device
\tArray Handle: 0x1000
\tError Information Handle: Not Provided
\tTotal Width: 80 bits
\tData Width: 64 bits
\tSize: {size}
\tForm Factor: DIMM
\tSet: 1
\tLocator: {slot}
\tBank Locator: Not Specified
\tType: {kind}
\tSpeed: {speed}
\tConfigured Memory Speed: {running}
"""


def names() -> list[str]:
    """Every machine that has a description."""
    return sorted(path.parent.name for path in MACHINES.glob("*/machine.yml"))


def describe(name: str) -> dict[str, Any]:
    """The description of a machine; one that starts with ``like:`` changes another's."""
    data = yaml.safe_load((MACHINES / name / "machine.yml").read_text(encoding="utf-8"))
    if "like" in data:
        base = describe(data.pop("like"))
        commands = {**base.get("commands", {}), **data.pop("commands", {})}
        return {**base, **data, "commands": commands}
    return dict(data)


def materialise(description: dict[str, Any], root: Path) -> str:
    """Write a described machine under ``root`` and return it, ready for ``open_machine``."""
    for path, text in _files(description).items():
        _write(root, path, text.encode() if isinstance(text, str) else text)
    for path, target in description.get("links", {}).items():
        _link(root, path, target)
    for device in description.get("pci", []):
        _pci(root, device)
    for nic in description.get("nics", []):
        _nic(root, nic)
    if "kfd" in description:
        _kfd(root, **description["kfd"])
    commands = {key: value for key, value in description.get("commands", {}).items() if value is not None}
    if "dimms" in description:
        commands["dmidecode -t 17"] = {"stdout": _dimms(**description["dimms"])}
    capture = {
        "uid": description.get("uid", 0),
        "source_addresses": description.get("source_addresses", {}),
        "commands": commands,
    }
    _write(root, "/capture.json", json.dumps(capture).encode())
    return str(root)


def _files(description: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, Any] = {
        "/proc/meminfo": "MemTotal: {} kB\nMemFree: 1000 kB\nMemAvailable: {} kB\n".format(*description["meminfo_kb"]),
        "/proc/cpuinfo": _cpuinfo(**description["cpu"]),
        "/etc/os-release": f'PRETTY_NAME="{description["os"]}"\n',
        "/proc/sys/kernel/osrelease": description["kernel"] + "\n",
        "/proc/self/mountinfo": description["mountinfo"],
        "/sys/firmware/acpi/tables": "",
    }
    for node in range(description.get("numa_nodes", 1)):
        files[f"/sys/devices/system/node/node{node}/cpulist"] = ""
    for key, text in description.get("dmi", {}).items():
        files[f"/sys/class/dmi/id/{key}"] = text + "\n"
    secure_boot = description.get("secure_boot")
    if secure_boot is not None:
        name = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        files[name] = bytes([6, 0, 0, 0, int(secure_boot)])
    return {**files, **description.get("files", {})}


def _cpuinfo(
    name: str, vendor: str, family: int, model: int, sockets: int, cores: int, threads: int, flags: list[str]
) -> str:
    """``cores`` are those of a socket, ``threads`` those of a core; numbering as Linux does it."""
    words = " ".join(CPU_FLAGS.get(flag, flag) for flag in flags)
    blocks = []
    for number in range(sockets * cores * threads):
        core = number % (sockets * cores)
        blocks.append(
            f"processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n"
            f"model name\t: {name}\nstepping\t: 8\nphysical id\t: {core // cores}\nsiblings\t: {cores * threads}\n"
            f"core id\t\t: {core % cores}\ncpu cores\t: {cores}\nflags\t\t: {words}\npower management:\n"
        )
    return "\n".join(blocks)


def _dimms(slots: list[str], filled: int, size: str, kind: str, speed: str, running: str) -> str:
    """``slots`` are prefixes (one a socket) with sixteen places each; the first ``filled`` of each are populated."""
    parts = ["# dmidecode 3.3\nGetting SMBIOS data from sysfs.\nSMBIOS 3.5.0 present.\n"]
    for prefix in slots:
        for place in range(1, 17):
            empty = place > filled
            parts.append(
                DIMM.format(
                    handle=0x1100 + len(parts),
                    slot=f"{prefix}{place}",
                    size="No Module Installed" if empty else size,
                    kind="Unknown" if empty else kind,
                    speed="Unknown" if empty else speed,
                    running="Unknown" if empty else running,
                )
            )
    return "".join(parts)


def _pci(root: Path, device: dict[str, Any]) -> None:
    """One entry may stand for several equal devices: ``addresses``, and a NUMA node each."""
    nodes = device.get("numa_nodes", [-1] * len(device["addresses"]))
    for address, node in zip(device["addresses"], nodes, strict=True):
        folder = f"/sys/bus/pci/devices/{address}"
        vendor, model = device["id"].split(":")
        values = {"vendor": f"0x{vendor}", "device": f"0x{model}", "class": device["class"], "numa_node": str(node)}
        if "subsystem" in device:
            owner, board = device["subsystem"].split(":")
            values |= {"subsystem_vendor": f"0x{owner}", "subsystem_device": f"0x{board}"}
        values |= {"resource": _resource(device.get("bars", []))}
        values |= {name: str(text) for name, text in device.get("files", {}).items()}
        for name, text in values.items():
            _write(root, f"{folder}/{name}", f"{text}\n".encode())
        if device.get("driver"):
            _link(root, f"{folder}/driver", f"../../../bus/pci/drivers/{device['driver']}")
        if device.get("physfn"):
            _link(root, f"{folder}/physfn", f"../{device['physfn']}")
            _write(root, f"/sys/bus/pci/devices/{device['physfn']}/vendor", f"0x{vendor}\n".encode())


def _resource(bars: list[int]) -> str:
    lines, start = [], 0x10_0000_0000
    for size in [*bars, *[0] * (6 - len(bars))]:
        end = start + size - 1 if size else 0
        lines.append(f"0x{start if size else 0:016x} 0x{end:016x} 0x{0x14220C if size else 0:016x}")
        start += size
    return "\n".join(lines)


def _nic(root: Path, nic: dict[str, Any]) -> None:
    folder = f"/sys/class/net/{nic['name']}"
    _write(root, f"{folder}/operstate", b"up\n")
    if nic.get("speed"):
        _write(root, f"{folder}/speed", f"{nic['speed']}\n".encode())
    for lower in nic.get("lower", []):
        _link(root, f"{folder}/lower_{lower}", f"../{lower}")
    if "id" not in nic:
        return
    for key, value in zip(("vendor", "device"), nic["id"].split(":"), strict=True):
        _write(root, f"{folder}/device/{key}", f"0x{value}\n".encode())
    _link(root, f"{folder}/device/driver", f"../../../bus/pci/drivers/{nic['driver']}")
    if nic.get("rdma"):
        _write(root, f"{folder}/device/infiniband/{nic['rdma']}/node_type", b"1: CA\n")
    if nic.get("physfn"):
        _write(root, f"{folder}/device/physfn/vendor", b"0x15b3\n")


def _kfd(root: Path, gpus: list[str], processors: int, xgmi: bool, partitions: int = 1) -> None:
    """AMD's topology: nodes without SIMDs are processors, then each GPU (or partition), joined by xGMI or PCIe."""
    base = "/sys/class/kfd/kfd/topology/nodes"
    places: list[tuple[int, int]] = []
    for address in gpus:
        domain, bus, rest = address.split(":")
        location = int(bus, 16) << 8 | int(rest.split(".")[0], 16) << 3
        places.extend((int(domain, 16), location | part) for part in range(partitions))
    for number in range(processors):
        _write(root, f"{base}/{number}/properties", b"cpu_cores_count 64\nsimd_count 0\nlocation_id 0\ndomain 0\n")
    for index, (domain, location) in enumerate(places):
        node = f"{base}/{processors + index}"
        text = f"cpu_cores_count 0\nsimd_count 1216\nvendor_id 4098\nlocation_id {location}\ndomain {domain}\n"
        _write(root, f"{node}/properties", text.encode())
        _write(root, f"{node}/io_links/0/properties", f"type 2\nnode_from {processors + index}\nnode_to 0\n".encode())
        for other in range(len(places)):
            if other != index:
                link = f"type {11 if xgmi else 2}\nnode_from {processors + index}\nnode_to {processors + other}\n"
                _write(root, f"{node}/io_links/{other + 1}/properties", link.encode())


def _write(root: Path, path: str, data: bytes) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def _link(root: Path, path: str, target: str) -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(f"{root}{target}" if target.startswith("/") else target)
