"""NVIDIA: driver branch, container toolkit, fabric manager where there are NVSwitches, persistence, no nouveau."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from .architecture import choose_modules, is_blackwell
from .host import Host
from .plan import File, Plan, Policy, Refusal, Service, check_secure_boot, fits, guard_busy, guard_restarts, upstream
from .repository import HEAD, Repository, filled, header_packages, merged, pin_file, replaced, repository_files

# Packages with NVIDIA's kernel module, of every branch and distribution that the tables know.
MODULE_PACKAGE = re.compile(
    r"(nvidia-dkms(-\d+)?(-open)?|nvidia-kernel(-open)?-dkms|kmod-nvidia-(open|latest)(-dkms)?)$"
)
# Modules that a distribution built and signed itself: they and the vendor's packages exclude each other.
DISTRIBUTION_PACKAGE = re.compile(r"(linux-modules-nvidia-.*|nvidia-(driver|dkms)-\d+-server(-open)?)$")
TOOLKIT = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip
NO_NOUVEAU = HEAD + "blacklist nouveau\noptions nouveau modeset=0\n"
FIRST_BRANCH = 580  # before it packages had other names, and CUDA 13 needs it


@dataclass(frozen=True)
class PackageSet:
    """Names of a branch's packages; they hold until the next set's branch."""

    branch: int
    open: tuple[str, ...]
    proprietary: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One distribution: repositories and package names, as the role's vars have them."""

    repository: str
    key: str
    toolkit_repository: str
    toolkit_key: str
    sets: tuple[PackageSet, ...]
    fabric: tuple[str, ...]  # packages of the driver's own version
    subnet: tuple[str, ...]  # what switches of the fourth generation need beside it
    pinned: str = ""  # names that apt's pin concerns
    stream: dict[str, str] = field(default_factory=dict)  # dnf's module stream by kind of kernel module


@dataclass(frozen=True)
class Wanted:
    """What the role's options say."""

    branch: str
    version: str = ""
    kernel_modules: str = "auto"
    toolkit_version: str = ""
    persistence: bool = True
    repository: str = ""
    repository_key: str = ""
    toolkit_repository: str = ""
    toolkit_repository_key: str = ""
    when_busy: str = "stop"


def installed_driver(packages: dict[str, str]) -> tuple[str, str] | None:
    """Version and kind ("open" or "proprietary") of the driver that packages brought; None where there is none."""
    found = [(name, version) for name, version in packages.items() if MODULE_PACKAGE.match(name)]
    if not found:
        return None
    name, version = found[0]
    return upstream(version), "open" if "-open" in name else "proprietary"


def decide(host: Host, wanted: Wanted, tables: dict[str, Table]) -> Plan:
    """The plan for a host with NVIDIA GPUs; a refusal is a plan that only refuses."""
    policy = Policy("nvidia", wanted.when_busy)
    if not host.gpus:
        return Plan(reasons=("the host has no NVIDIA GPU",))
    try:
        return _decide(host, wanted, tables, policy)
    except (Refusal, ValueError) as fault:
        return Plan(refusal=str(fault))


def _decide(host: Host, wanted: Wanted, tables: dict[str, Table], policy: Policy) -> Plan:
    table = tables.get(host.system.name)
    if table is None:
        known = ", ".join(tables)
        raise Refusal(
            f"{host.system.name} is not one of the systems that NVIDIA's packages are known for ({known}): install"
            f" the driver by hand and set nvidia_driver_managed: false"
        )
    if not wanted.branch.isdigit() or int(wanted.branch) < FIRST_BRANCH:
        raise Refusal(f"nvidia_driver_branch is {wanted.branch!r}: set it to {FIRST_BRANCH} or newer")
    if wanted.version and not fits(wanted.version, wanted.branch):
        raise Refusal(
            f"nvidia_driver_version is {wanted.version} and nvidia_driver_branch {wanted.branch}: set the version's"
        )
    installed = installed_driver(host.packages)
    _check_foreign(host, installed)
    modules, why = choose_modules(host.gpus, int(wanted.branch), wanted.kernel_modules)
    fabric = host.switches > 0 or any(gpu.link == "nvswitch" for gpu in host.gpus)
    plan = _packages(host, wanted, table, modules, fabric)
    change, text = _change(host, wanted, plan, installed, modules)
    plan = replace(plan, changes_driver=change)
    if change:
        check_secure_boot(host, policy)
    reboot = _reboot(host, installed, modules, change)
    plan = replace(
        plan,
        files=_files(host, wanted, table, modules, fabric and is_blackwell(host.gpus), plan.at),
        services=_services(wanted, fabric, reboot is None),
        initramfs=host.initramfs,
        reboot=reboot,
        reasons=(text, why, *(("NVSwitches need the fabric manager",) if fabric else ())),
    )
    plan = guard_busy(plan, host, policy, text)
    return plan if plan.refusal or change else guard_restarts(plan, host, policy, installed[0] if installed else "")


def _check_foreign(host: Host, installed: tuple[str, str] | None) -> None:
    if host.foreign and not installed:
        raise Refusal(
            f"the NVIDIA driver is here from {host.foreign}: remove it so, or keep it and set"
            f" nvidia_driver_managed: false"
        )
    theirs = sorted(name for name in host.packages if DISTRIBUTION_PACKAGE.match(name))
    if theirs:
        raise Refusal(
            f"the distribution's own NVIDIA driver is installed ({', '.join(theirs[:3])}) and excludes NVIDIA's"
            f" packages: remove it, or keep it and set nvidia_driver_managed: false"
        )


def _packages(host: Host, wanted: Wanted, table: Table, modules: str, fabric: bool) -> Plan:
    """What has to be there, and what of it is missing (or there in another version)."""
    names = [item for item in table.sets if item.branch <= int(wanted.branch)][-1]
    chosen = names.open if modules == "open" else names.proprietary
    driver = tuple(filled(name, host.system, branch=wanted.branch) for name in chosen)
    if fabric:
        driver += tuple(filled(name, host.system, branch=wanted.branch) for name in table.fabric)
    branch = wanted.version or wanted.branch
    toolkit = TOOLKIT if wanted.toolkit_version else ()
    subnet = table.subnet if fabric and is_blackwell(host.gpus) else ()
    others = (*header_packages(host.system, host.packages), *subnet, *toolkit)
    installed = installed_driver(host.packages)
    own = installed[0] if installed and fits(installed[0], branch) else None
    missing = [
        name for name in driver if name not in host.packages or upstream(host.packages[name]) != (own or "none of them")
    ]
    missing += [name for name in others if name not in host.packages and not _built_in(name, host)]
    pinned = wanted.toolkit_version
    missing += [name for name in toolkit if name in host.packages and not _same(host.packages[name], pinned)]
    return Plan(
        driver=driver,
        others=others,
        versions=tuple((name, pinned) for name in toolkit),
        branch=branch,
        at=own or "",
        missing=tuple(missing),
        hold=(*driver, *(toolkit if host.system.name.startswith("el-") else ())),  # apt has the pin for it
    )


def _built_in(name: str, host: Host) -> bool:
    """dnf names the kernel's own headers with their version."""
    return name.startswith("kernel-devel-") and "kernel-devel" in host.packages and name != "kernel-devel-matched"


def _same(version: str, pinned: str) -> bool:
    """A pin may leave the revision out."""
    return pinned in (version.partition(":")[2] or version, upstream(version))


def _change(
    host: Host, wanted: Wanted, plan: Plan, installed: tuple[str, str] | None, modules: str
) -> tuple[bool, str]:
    """Whether the driver's own packages change, and the sentence for it."""
    target = wanted.version or f"branch {wanted.branch}"
    if installed is None:
        return True, f"the NVIDIA driver has to be installed ({target}, {modules} kernel modules)"
    if not fits(installed[0], plan.branch):
        return True, f"the NVIDIA driver has to change from {installed[0]} to {target}"
    if installed[1] != modules:
        return True, f"the NVIDIA driver has to change from {installed[1]} to {modules} kernel modules"
    behind = [name for name in plan.driver if name in plan.missing]
    if behind:
        return True, f"the NVIDIA driver {installed[0]} lacks {', '.join(behind)} of the same version"
    return False, f"the NVIDIA driver {installed[0]} is installed with {modules} kernel modules"


def _reboot(host: Host, installed: tuple[str, str] | None, modules: str, change: bool) -> str | None:
    """Why the host has to restart before its GPUs can be used (again); the running driver against the installed."""
    if change or installed is None:
        return "the NVIDIA driver is installed or changed"
    version, kind = installed
    if host.nouveau:
        return "the driver nouveau is loaded and holds the NVIDIA GPUs"
    if host.loaded is None:
        return f"the NVIDIA driver {version} is installed and not loaded"
    if host.loaded.version and host.loaded.version != version:
        return f"the NVIDIA driver {host.loaded.version} runs and {version} is installed"
    if host.loaded.flavour not in (None, kind):
        return f"the {host.loaded.flavour} kernel modules run and the {kind} ones are installed"
    return None


def _files(host: Host, wanted: Wanted, table: Table, modules: str, subnet: bool, at: str) -> tuple[File, ...]:
    system = host.system
    vendor = Repository("nvidia", filled(table.repository, system), filled(table.key, system))
    sources = [replaced(vendor, wanted.repository, wanted.repository_key)]
    if wanted.toolkit_version:
        own = Repository("nvidia-toolkit", filled(table.toolkit_repository, system), filled(table.toolkit_key, system))
        sources.append(replaced(own, wanted.toolkit_repository, wanted.toolkit_repository_key))
    files = [file for source in merged(sources) for file in repository_files(source, system)]
    if system.name.startswith("el-"):
        stream = filled(table.stream[modules], system, branch=wanted.branch)
        text = f"[nvidia-driver]\nname=nvidia-driver\nstream={stream}\nprofiles=\nstate=enabled\n"
        files.append(File("/etc/dnf/modules.d/nvidia-driver.module", text))
    else:
        pins = [(filled(table.pinned, system, branch=wanted.branch), _pin(at or wanted.version, wanted.branch))]
        pins += [(" ".join(TOOLKIT), f"version {wanted.toolkit_version}*")] if wanted.toolkit_version else []
        files.append(pin_file("nvidia", tuple(pins)))
    files.append(File("/etc/modprobe.d/heteroserve-nouveau.conf", NO_NOUVEAU, initramfs=True))
    if subnet:
        files.append(File("/etc/modules-load.d/heteroserve-nvlink.conf", f"{HEAD}ib_umad\n"))
    return tuple(files)


def _pin(version: str, branch: str) -> str:
    """A branch is pinned only until its version is chosen: packages of a branch are published one after the other."""
    return f"version {version}-*" if version else f"version {branch}.*"


def pinned_to(plan: Plan, versions: dict[str, str]) -> Plan:
    """The plan once its versions are chosen: apt's pin names the driver's."""
    chosen = next((upstream(versions[name]) for name in plan.driver if name in versions), "")
    if not chosen:
        return plan
    loose, exact = _pin("", plan.branch), _pin(chosen, plan.branch)
    return replace(plan, files=tuple(replace(file, content=file.content.replace(loose, exact)) for file in plan.files))


def _services(wanted: Wanted, fabric: bool, loaded: bool) -> tuple[Service, ...]:
    names = [*(["nvidia-persistenced"] if wanted.persistence else []), *(["nvidia-fabricmanager"] if fabric else [])]
    return tuple(Service(name, loaded) for name in names)
