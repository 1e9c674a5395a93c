"""What a driver's plan is made from: the distribution, GPUs, packages, kernel modules and who uses the GPUs.

Only the functions of ``Probe`` read the host; the rest is parsing. Files may come from a simulated root (tests);
packages are always those of the running host.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.machine import Machine
from ...facts.accelerators import CARDS
from ...facts.declared import hardware_of
from ...facts.hardware import Hardware
from ...facts.pci import count_nvswitches, probe_pci
from ...facts.platform import SECURE_BOOT, parse_secure_boot

# Shim's own switch: 1 means that it does not check what it loads although the firmware has Secure Boot on.
SHIM_VALIDATION_OFF = "/sys/firmware/efi/efivars/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
# The key that DKMS signs with: Ubuntu's shim-signed makes the first, dkms 3 itself the second.
MODULE_KEYS = ("/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub")
EL = ("rhel", "rocky", "almalinux", "centos", "ol")
DEVICES = {"nvidia": "/dev/nvidia", "amd": "/dev/kfd"}
MODULES = {"nvidia": "nvidia", "amd": "amdgpu"}
# They hold the devices open and serve no model: the driver's own daemons, Kubernetes' plugins, exporters. A process's
# short name has 15 characters.
WATCHERS = (
    "nvidia-persistenced", "nv-fabricmanager", "nvlsm", "nvidia-imex", "nv-hostengine", "dcgm-exporter", "nvidia-smi",
    "nvidia-device-plugin", "gpu-feature-discovery", "mig-parted", "k8s-device-plugin", "gpuagent", "amd-smi",
    "device-metrics-exporter",
)  # fmt: skip


@dataclass(frozen=True)
class System:
    """The operating system, as package repositories name it."""

    name: str  # "ubuntu-24.04", "debian-12", "el-9"
    version: str  # VERSION_ID: "24.04", "12", "9.6"
    codename: str  # "noble"; empty where the distribution has none
    kernel: str
    machine: str = "x86_64"


@dataclass(frozen=True)
class Gpu:
    """A GPU that the plan is made for; ids are four hexadecimal digits after the vendor's."""

    kind: str
    pci_id: str | None
    link: str = "pcie"


@dataclass(frozen=True)
class Module:
    """A kernel module, loaded or on disk."""

    version: str | None
    flavour: str | None = None  # "open" | "proprietary" of NVIDIA's
    source: str | None = None  # srcversion: differs between builds of the same version


@dataclass(frozen=True)
class User:
    """A process that has a GPU open."""

    pid: int
    name: str


@dataclass(frozen=True)
class Host:
    """Everything that a plan depends on."""

    system: System
    gpus: tuple[Gpu, ...]
    switches: int = 0  # NVSwitches on the PCI bus
    packages: dict[str, str] = field(default_factory=dict)  # installed, with versions
    loaded: Module | None = None
    on_disk: Module | None = None
    nouveau: bool = False
    secure_boot: bool = False
    module_key: str | None = None  # file of the key that DKMS signs with
    key_enrolled: bool = False
    users: tuple[User, ...] = ()
    foreign: str | None = None  # a driver that no package owns: what it is and how it goes
    initramfs: tuple[str, ...] = ()  # command that rebuilds it; empty where the host has none
    boot: str = ""
    record: dict[str, Any] = field(default_factory=dict)  # what earlier runs noted (record.py)


def parse_system(os_release: str, kernel: str, machine: str) -> System:
    """The system by /etc/os-release; RHEL and what is built from it have one name."""
    values = dict(re.findall(r'^(\w+)=["\']?(.*?)["\']?\s*$', os_release, re.MULTILINE))
    name, version = values.get("ID", "linux"), values.get("VERSION_ID", "")
    family, shown = ("el", version.split(".")[0]) if name in EL else (name, version)
    return System(f"{family}-{shown}", version, values.get("VERSION_CODENAME", ""), kernel, machine)


def gpus_of(hardware: dict[str, Any], vendor: str) -> tuple[Gpu, ...]:
    """The vendor's GPUs in facts, or in a declaration; where a card is known by its kind alone, its PCI id."""
    found: Hardware = hardware_of(hardware)
    cards = [item for item in found.accelerators if item.vendor == vendor and not item.partition]
    ids = {item.kind: CARDS[item.kind].pci_ids for item in cards if item.kind in CARDS}
    return tuple(
        Gpu(item.kind, item.pci_id or next(iter(ids.get(item.kind, ())), None), _link(item.link, item.kind, len(cards)))
        for item in cards
    )


def _link(link: str, kind: str, count: int) -> str:
    """More than four GPUs with NVLink need switches; a V100 board joins eight without."""
    return "nvswitch" if link == "nvlink" and count > 4 and not kind.startswith("nvidia-v100") else link


def parse_dpkg(text: str) -> dict[str, str]:
    """Names and versions of ``dpkg-query``, of packages that are installed and not only configured once."""
    lines = (line.split("\t") for line in text.splitlines() if line.count("\t") == 2)
    return {name: version for status, name, version in lines if status[1:2] == "i"}


def parse_rpm(text: str) -> dict[str, str]:
    """Names and versions of ``rpm -qa``; a package without epoch has "(none)" there."""
    lines = (line.split("\t") for line in text.splitlines() if line.count("\t") == 1)
    return {name: version.removeprefix("(none):") for name, version in lines}


def parse_madison(text: str) -> dict[str, list[str]]:
    """Versions that apt could install, newest first, by package."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3:
            found.setdefault(parts[0], []).append(parts[1])
    return found


def parse_repoquery(text: str) -> dict[str, list[str]]:
    """Versions that dnf could install, newest last as dnf prints them, by package; here newest first."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, version = line.strip().partition("|")
        if version:
            found.setdefault(name, []).insert(0, version)
    return found


def parse_flavour(proc_version: str) -> str | None:
    """Which of NVIDIA's two modules runs, from /proc/driver/nvidia/version."""
    if "NVRM version" not in proc_version:
        return None
    return "open" if "Open Kernel Module" in proc_version else "proprietary"


def gpu_users(proc: Path, device: str) -> tuple[User, ...]:
    """Processes that have ``device`` (or a device whose name begins so) open. Root sees those of containers too."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if not any(os.readlink(link).startswith(device) for link in (entry / "fd").iterdir()):
                continue
            name = (entry / "comm").read_text().strip()
        except OSError:  # ended meanwhile, or a kernel thread
            continue
        found.append(User(int(entry.name), name))
    return tuple(sorted((user for user in found if not is_watcher(user.name)), key=lambda user: user.pid))


def is_watcher(name: str) -> bool:
    """Whether a process only looks after the GPUs."""
    return any(name in (watcher, watcher[:15]) for watcher in WATCHERS)


@dataclass(frozen=True)
class Probe:
    """Reads a host: ``files`` may be a simulated root, ``commands`` run on the host itself."""

    files: Machine
    commands: Machine
    vendor: str

    def host(self, hardware: dict[str, Any], machine: str, record: str) -> Host:
        """Everything that the plan for ``vendor`` depends on."""
        read = self.files.read
        system = parse_system(read("/etc/os-release") or "", read("/proc/sys/kernel/osrelease") or "", machine)
        module = MODULES[self.vendor]
        key = next((path for path in MODULE_KEYS if self.files.exists(path)), None)
        return Host(
            system=system,
            gpus=gpus_of(hardware, self.vendor),
            switches=count_nvswitches(probe_pci(self.files)),
            packages=self.packages(system),
            loaded=self._loaded(module),
            on_disk=self._on_disk(module),
            nouveau=self.vendor == "nvidia" and self.files.exists("/sys/module/nouveau"),
            secure_boot=self._secure_boot(),
            module_key=key,
            key_enrolled=key is not None and self._enrolled(key),
            users=self._users(),
            foreign=self._foreign(),
            initramfs=self._initramfs(),
            boot=read("/proc/sys/kernel/random/boot_id") or "",
            record=self._record(record),
        )

    def packages(self, system: System) -> dict[str, str]:
        """Installed packages with versions."""
        if system.name.startswith("el-"):
            form = "%{NAME}\\t%{EPOCH}:%{VERSION}-%{RELEASE}\\n"
            return parse_rpm(self.commands.run("rpm", "-qa", "--qf", form).stdout)
        form = "${db:Status-Abbrev}\\t${Package}\\t${Version}\\n"
        return parse_dpkg(self.commands.run("dpkg-query", "-W", "-f", form).stdout)

    def available(self, system: System, names: tuple[str, ...]) -> dict[str, list[str]]:
        """Versions that the configured repositories offer."""
        if not names:
            return {}
        if system.name.startswith("el-"):
            form = "%{name}|%{evr}"
            query = ("dnf", "--quiet", "repoquery", "--available", "--qf", form, *names)
            return parse_repoquery(self.commands.run(*query, timeout=120).stdout)
        return parse_madison(self.commands.run("apt-cache", "madison", *names).stdout)

    def _loaded(self, module: str) -> Module | None:
        if not self.files.exists(f"/sys/module/{module}/initstate") and not self.files.exists(
            f"/sys/module/{module}/version"
        ):
            return None
        flavour = parse_flavour(self.files.read("/proc/driver/nvidia/version") or "") if module == "nvidia" else None
        folder = f"/sys/module/{module}"
        return Module(self.files.read(f"{folder}/version"), flavour, self.files.read(f"{folder}/srcversion"))

    def _on_disk(self, module: str) -> Module | None:
        version = self.commands.run("modinfo", "-F", "version", module, timeout=5)
        source = self.commands.run("modinfo", "-F", "srcversion", module, timeout=5)
        if not version.ok or not version.stdout.strip():
            return None
        return Module(version.stdout.strip(), None, source.stdout.strip() or None)

    def _secure_boot(self) -> bool:
        if self.files.read_bytes(SHIM_VALIDATION_OFF) in (b"\x01", b"\x06\0\0\0\x01"):
            return False
        return bool(parse_secure_boot(self.files.read_bytes(SECURE_BOOT) or b""))

    def _enrolled(self, key: str) -> bool:
        return "is already enrolled" in self.commands.run("mokutil", "--test-key", key, timeout=10).text

    def _users(self) -> tuple[User, ...]:
        proc = Path(self.files.root, "proc")
        found = {user.pid: user for user in gpu_users(proc, DEVICES[self.vendor])} if proc.is_dir() else {}
        if self.vendor == "nvidia" and self.files.exists("/sys/module/nvidia"):
            query = ("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader")
            for line in self.commands.run(*query, timeout=30).stdout.splitlines():
                pid, _, name = line.partition(",")
                if pid.strip().isdigit():
                    found.setdefault(int(pid), User(int(pid), Path(name.strip()).name or "unknown"))
        return tuple(found[pid] for pid in sorted(found) if not is_watcher(found[pid].name))

    def _foreign(self) -> str | None:
        if self.vendor != "nvidia":
            return None
        if self.files.exists("/run/nvidia/driver/usr"):
            return "the GPU operator's driver container, which goes with driver.enabled=false in its chart"
        if self.files.exists("/usr/bin/nvidia-uninstall"):
            return "NVIDIA's .run installer, which goes with `nvidia-uninstall`"
        return None

    def _initramfs(self) -> tuple[str, ...]:
        for command in (("/usr/sbin/update-initramfs", "-u"), ("/usr/bin/dracut", "--force")):
            if self.commands.exists(command[0]):
                return command
        return ()

    def _record(self, path: str) -> dict[str, Any]:
        try:
            return dict(json.loads(Path(path).read_text()))
        except (OSError, ValueError):
            return {}
