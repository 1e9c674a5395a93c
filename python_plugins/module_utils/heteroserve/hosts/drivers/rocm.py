"""AMD: the kernel module amdgpu of a pinned release, and ROCm's own tools; containers bring the rest of ROCm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .host import Host, Module
from .plan import File, Plan, Policy, Refusal, check_secure_boot, fits, guard_busy, guard_restarts, upstream
from .repository import Repository, filled, header_packages, merged, pin_file, replaced, repository_files

DKMS = "amdgpu-dkms"
RELEASE = re.compile(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{1,2}))?$")


@dataclass(frozen=True)
class Table:
    """One distribution: repositories, as the role's vars have them; ``suite`` is apt's."""

    repository: str
    tools_repository: str
    key: str
    suite: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the role's options say."""

    version: str
    rocm_version: str
    tools: tuple[str, ...] = ()
    repository: str = ""
    tools_repository: str = ""
    repository_key: str = ""
    when_busy: str = "stop"


def driver_mark(release: str) -> str:
    """How a package's version ends for a release of the driver: 30.30.3 is 6.16.13.30300300."""
    major, minor, patch = _parts(release, "rocm_driver_version")
    return f".{major:02d}{minor:02d}{patch:02d}00"


def tools_mark(release: str) -> str:
    """The same for ROCm's tools: 7.2.3 is 26.2.2.70203."""
    major, minor, patch = _parts(release, "rocm_driver_rocm_version")
    return f".{major}{minor:02d}{patch:02d}"


def _parts(release: str, option: str) -> tuple[int, int, int]:
    found = RELEASE.match(release)
    if not found:
        raise Refusal(f"{option} is {release!r}: set it to a release such as 30.30.3 (driver) or 7.2.3 (ROCm)")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def decide(host: Host, wanted: Wanted, tables: dict[str, Table]) -> Plan:
    """The plan for a host with AMD GPUs; a refusal is a plan that only refuses."""
    policy = Policy("amd", wanted.when_busy)
    if not host.gpus:
        return Plan(reasons=("the host has no AMD GPU",))
    try:
        return _decide(host, wanted, tables, policy)
    except Refusal as fault:
        return Plan(refusal=str(fault))


def _decide(host: Host, wanted: Wanted, tables: dict[str, Table], policy: Policy) -> Plan:
    table = tables.get(host.system.name)
    if table is None:
        raise Refusal(
            f"{host.system.name} is not one of the systems that AMD's packages are known for ({', '.join(tables)}):"
            f" install the driver by hand and set rocm_driver_managed: false"
        )
    mark, own = driver_mark(wanted.version), tools_mark(wanted.rocm_version)
    plan = Plan(
        driver=(DKMS,),
        others=(*header_packages(host.system, host.packages), *wanted.tools),
        versions=tuple((name, own) for name in wanted.tools),
        branch=mark,
        hold=(DKMS, *(wanted.tools if host.system.name.startswith("el-") else ())),
        groups=("render", "video"),
        initramfs=host.initramfs,
        files=_files(host, wanted, table),
    )
    installed = upstream(host.packages[DKMS]) if DKMS in host.packages else None
    change = installed is None or not fits(installed, mark)
    missing = [DKMS] if change else []
    missing += [name for name in header_packages(host.system, host.packages) if not _there(name, host)]
    missing += [
        name for name in wanted.tools if name not in host.packages or not fits(upstream(host.packages[name]), own)
    ]
    text = (
        f"the AMD driver has to be installed (release {wanted.version})"
        if installed is None
        else f"the AMD driver has to change from {installed} to release {wanted.version}"
        if change
        else f"the AMD driver {installed} is installed"
    )
    own_version = "" if change else installed or ""
    plan = replace(plan, missing=tuple(missing), at=own_version, changes_driver=change, reasons=(text,))
    if change:
        check_secure_boot(host, policy)
    plan = replace(plan, reboot=_reboot(host, installed, change))
    plan = guard_busy(plan, host, policy, text)
    return plan if plan.refusal or change else guard_restarts(plan, host, policy, installed or "")


def _there(name: str, host: Host) -> bool:
    return name in host.packages or (name.startswith("kernel-devel-") and "kernel-devel" in host.packages)


def _reboot(host: Host, installed: str | None, change: bool) -> str | None:
    """The running module against the installed one; builds of one version differ in their source version."""
    if change or installed is None:
        return "the AMD driver is installed or changed"
    version = ".".join(installed.split(".")[:3])
    if host.loaded is None:
        return f"the AMD driver {version} is installed and not loaded"
    if host.loaded.version is None:
        return f"the kernel's own amdgpu runs and {version} is installed"
    if host.loaded.version != version:
        return f"the AMD driver {host.loaded.version} runs and {version} is installed"
    if _rebuilt(host.loaded, host.on_disk):
        return f"another build of the AMD driver {version} runs than is installed"
    return None


def _rebuilt(loaded: Module, on_disk: Module | None) -> bool:
    return bool(on_disk and on_disk.source and loaded.source and on_disk.source != loaded.source)


def _files(host: Host, wanted: Wanted, table: Table) -> tuple[File, ...]:
    system, suite = host.system, table.suite or "/"
    component = "main" if table.suite else ""
    own = {"version": wanted.version, "rocm_version": wanted.rocm_version}
    driver = Repository("amdgpu", filled(table.repository, system, **own), table.key, suite, component)
    tools = Repository("rocm", filled(table.tools_repository, system, **own), table.key, suite, component)
    sources = [replaced(driver, wanted.repository, wanted.repository_key)]
    if wanted.tools:
        mirror = wanted.tools_repository or wanted.repository
        sources.append(replaced(tools, mirror, wanted.repository_key))
    files = [file for source in merged(sources) for file in repository_files(source, system)]
    if not system.name.startswith("el-"):
        # What begins and ends with a star is no pattern to apt, hence the expressions. AMD's own pin comes last: Debian
        # has packages of ROCm with higher numbers and an older ROCm.
        pins = [(f"{DKMS} {DKMS}-firmware", rf"version /\{driver_mark(wanted.version)}-/")]
        pins += [(" ".join(wanted.tools), rf"version /\{tools_mark(wanted.rocm_version)}-/")] if wanted.tools else []
        files.append(pin_file("rocm", tuple(pins), "repo.radeon.com"))
    return tuple(files)
