"""The machine and its operating system: model, service tag, BMC, kernel, cgroup version, Secure Boot, hypervisor."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..common.machine import Machine
from .findings import Findings
from .storage import MOUNTS, Mount, parse_mountinfo

DMI = "/sys/class/dmi/id"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
IPMI_DEVICES = ("/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0")
# Text in the DMI vendor or product, and what `systemd-detect-virt` would call it.
HYPERVISORS = (
    ("VMware", "vmware"), ("innotek", "virtualbox"), ("VirtualBox", "virtualbox"), ("Xen", "xen"), ("KVM", "kvm"),
    ("QEMU", "kvm"), ("Google Compute Engine", "kvm"), ("Amazon EC2", "kvm"), ("OpenStack", "kvm"), ("Nutanix", "kvm"),
    ("Virtual Machine", "hyper-v"),
)  # fmt: skip


@dataclass(frozen=True)
class PlatformFacts:
    """What the fields of ``Hardware`` with the same names hold."""

    server_model: str | None = None
    service_tag: str | None = None
    bmc_address: str | None = None
    os: str | None = None
    kernel: str | None = None
    cgroup_version: int | None = None
    secure_boot: bool | None = None
    virtualization: str | None = None


def parse_os_release(text: str) -> str | None:
    """PRETTY_NAME of /etc/os-release."""
    found = re.search(r'^PRETTY_NAME=(["\']?)(.*)\1\s*$', text, re.MULTILINE)
    return found[2] if found else None


def cgroup_version(mounts: tuple[Mount, ...]) -> int | None:
    """2 where the unified hierarchy is mounted at /sys/fs/cgroup itself; a hybrid (below it) counts as 1."""
    if any(mount.kind == "cgroup2" and mount.point == "/sys/fs/cgroup" for mount in mounts):
        return 2
    return 1 if any(mount.kind == "cgroup" for mount in mounts) else None


def parse_secure_boot(variable: bytes) -> bool | None:
    """The EFI variable: four bytes of attributes, then 1 for on."""
    return variable[4] == 1 if len(variable) == 5 else None


def parse_ipmi_lan(text: str) -> str | None:
    """IP address of ``ipmitool lan print``; none where the BMC has 0.0.0.0."""
    found = re.search(r"^IP Address\s+: (\S+)", text, re.MULTILINE)
    return _reachable(found[1]) if found else None


def parse_host_interface(text: str) -> str | None:
    """Redfish service address of ``dmidecode -t 42``.

    Servers often state the link-local address of the USB link between host and BMC there, which no other host
    can use: that one is left out.
    """
    found = re.search(r"^\s*IPv[46] Redfish Service Address: (\S+)", text, re.MULTILINE)
    return _reachable(found[1]) if found else None


def detect_virtualization(vendor: str, product: str, hypervisor_flag: bool, container: str | None) -> str:
    """A container's name, a hypervisor's, "vm" for one that hides its name, or "none"."""
    if container:
        return container
    text = f"{vendor} {product}"
    named = next((name for sign, name in HYPERVISORS if sign in text), None)
    return named or ("vm" if hypervisor_flag else "none")


def probe_platform(machine: Machine, hypervisor_flag: bool) -> Findings[PlatformFacts]:
    """Everything about the machine that is neither processor, memory, accelerator, network nor disk."""
    vendor, product = (_dmi(machine, name) or "" for name in ("sys_vendor", "product_name"))
    bmc, bmc_source = _bmc(machine)
    mounts = parse_mountinfo(machine.read(MOUNTS) or "")
    container = _container(machine, mounts)
    facts = PlatformFacts(
        server_model=" ".join(part for part in (vendor, product) if part) or None,
        service_tag=_dmi(machine, "product_serial"),
        bmc_address=bmc,
        os=parse_os_release(machine.read("/etc/os-release") or ""),
        kernel=machine.read("/proc/sys/kernel/osrelease"),
        cgroup_version=cgroup_version(mounts),
        secure_boot=_secure_boot(machine),
        virtualization=detect_virtualization(vendor, product, hypervisor_flag, container),
    )
    serial = "" if facts.service_tag or machine.is_root else " (the service tag needs root)"
    sources = {
        "server": f"{DMI}{serial}",
        "bmc": bmc_source,
        "os": "/etc/os-release",
        "kernel": "/proc/sys/kernel/osrelease",
        "cgroup": MOUNTS,
        "secure_boot": _secure_boot_source(machine, facts.secure_boot),
        "virtualization": f"{DMI} and the processor's hypervisor flag",
    }
    return Findings(facts, sources=sources)


def _dmi(machine: Machine, name: str) -> str | None:
    text = machine.read(f"{DMI}/{name}")
    return None if not text or text in ("Not Specified", "To Be Filled By O.E.M.", "System Product Name") else text


def _secure_boot(machine: Machine) -> bool | None:
    """A host without EFI has no Secure Boot; an unreadable variable is unknown."""
    if not machine.exists("/sys/firmware"):
        return None
    if not machine.exists("/sys/firmware/efi"):
        return False
    return parse_secure_boot(machine.read_bytes(SECURE_BOOT) or b"")


def _secure_boot_source(machine: Machine, found: bool | None) -> str:
    if found is None:
        return "none: the EFI variable cannot be read"
    return SECURE_BOOT if machine.exists("/sys/firmware/efi") else "/sys/firmware/efi is missing: not started by EFI"


def _container(machine: Machine, mounts: tuple[Mount, ...]) -> str | None:
    """systemd's own note, else the engines' marks; those also stay in virtual machines made from an image."""
    named = machine.read("/run/systemd/container")
    if named:
        return named
    if not any(mount.point == "/" and "overlay" in mount.kind for mount in mounts):
        return None
    signs = (("/run/.containerenv", "podman"), ("/.dockerenv", "docker"))
    return next((name for path, name in signs if machine.exists(path)), None)


def _bmc(machine: Machine) -> tuple[str | None, str]:
    """ipmitool where the kernel has the IPMI device (it would wait for one otherwise), else the DMI table."""
    if not machine.is_root:
        return None, "none: it needs root"
    if any(machine.exists(path) for path in IPMI_DEVICES):
        address = parse_ipmi_lan(machine.run("ipmitool", "lan", "print", timeout=5).stdout)
        if address:
            return address, "ipmitool"
    address = parse_host_interface(machine.run("dmidecode", "-t", "42", timeout=5).stdout)
    return (address, "dmidecode type 42") if address else (None, "none: neither ipmitool nor DMI type 42 names it")


def _reachable(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_link_local else str(address)
