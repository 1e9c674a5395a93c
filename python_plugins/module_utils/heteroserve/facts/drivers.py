"""Driver versions: the module that runs, the library that programs load, and the module that the next boot loads."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..common.machine import Machine
from .hardware import Problem

NVML = "libnvidia-ml.so.1"
LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",  # where the GPU operator's driver container puts them
    "/run/nvidia/driver/usr/lib64",
)


@dataclass(frozen=True)
class DriverVersions:
    """Versions of one vendor's driver; None where there is none."""

    running: str | None = None
    library: str | None = None

    def __str__(self) -> str:
        parts = (f"{value} ({name})" for name, value in (("running", self.running), ("library", self.library)) if value)
        return ", ".join(parts)


def parse_nvidia_proc(text: str) -> str | None:
    """Version in /proc/driver/nvidia/version, of the open and of the closed kernel module."""
    found = re.search(r"^NVRM version: .*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return found[1] if found else None


def library_version(file_name: str) -> str | None:
    """Version in a library's real name: "libnvidia-ml.so.580.65.06"."""
    found = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)?)$", file_name)
    return found[1] if found else None


def nvidia_versions(machine: Machine) -> DriverVersions:
    """Module and library of NVIDIA's driver, without running anything."""
    running = machine.read("/sys/module/nvidia/version")
    running = running or parse_nvidia_proc(machine.read("/proc/driver/nvidia/version") or "")
    paths = (f"{folder}/{NVML}" for folder in LIBRARIES)
    found = (library_version(machine.resolve(path)) for path in paths if machine.exists(path))
    return DriverVersions(running, next((version for version in found if version), None))


def nvidia_mismatch(machine: Machine, versions: DriverVersions, said: str) -> Problem | None:
    """The problem when module and library differ; ``said`` is nvidia-smi's own text, for hosts with odd paths."""
    library = versions.library
    if library is None and (found := re.search(r"NVML library version: ([\d.]+)", said)):
        library = found[1]
    if versions.running == library and "version mismatch" not in said:
        return None
    on_disk = machine.run("modinfo", "-F", "version", "nvidia", timeout=3).stdout.strip() or None
    text = (
        f"the running NVIDIA kernel module is {versions.running or 'unknown'}, the installed library is "
        f"{library or 'unknown'}: no GPU can be used until they match"
    )
    if on_disk and on_disk == library:
        return Problem("driver-mismatch", text, f"restart the host: the module on disk is already {on_disk}")
    wanted = library or "of the library's version"
    fix = f"install the kernel module {wanted} (on disk: {on_disk or 'none'}), then restart the host"
    return Problem("driver-mismatch", text, fix)


def module_mismatch(machine: Machine, module: str, running: str | None) -> Problem | None:
    """The problem when an upgrade replaced ``module`` on disk and the old one still runs (AMD, Gaudi).

    Modules of the kernel's own source have no version: nothing can differ.
    """
    if not running:
        return None
    on_disk = machine.run("modinfo", "-F", "version", module, timeout=3).stdout.strip()
    if not on_disk or on_disk == running:
        return None
    text = f"the running module {module} is {running}, the one on disk is {on_disk}: the upgrade is not in use yet"
    return Problem("driver-mismatch", text, "restart the host")
