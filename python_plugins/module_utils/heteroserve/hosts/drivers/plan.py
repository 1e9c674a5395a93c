"""The plan of a driver: what is written, installed, started and why; or the one sentence that refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .host import Host, User

FAMILIAR = {"nvidia": "NVIDIA", "amd": "AMD"}
ROLES = {"nvidia": "nvidia_driver", "amd": "rocm_driver"}


class Refusal(Exception):
    """Nothing may be changed: the sentence says what was found and what to set."""


@dataclass(frozen=True)
class File:
    """A file that the plan writes, or a key that is fetched (``source`` a URL) or copied (a file of the controller)."""

    path: str
    content: str = ""
    source: str | None = None
    initramfs: bool = False  # a change of it needs a new initramfs


@dataclass(frozen=True)
class Service:
    """A unit that is enabled; it runs only where the driver that it needs is loaded."""

    name: str
    started: bool


@dataclass(frozen=True)
class Plan:
    """What is to be done on one host. A host that is as wanted has no ``missing``, and maybe a ``reboot``."""

    files: tuple[File, ...] = ()
    driver: tuple[str, ...] = ()  # packages whose version is the driver's
    others: tuple[str, ...] = ()  # packages with versions of their own
    versions: tuple[tuple[str, str], ...] = ()  # of some of ``others``: a version, or what it begins or ends with
    branch: str = ""  # versions of ``driver`` begin so, or contain it (AMD)
    at: str = ""  # the driver's version where it is there and only packages beside it are missing
    missing: tuple[str, ...] = ()  # of driver and others, what is not there as wanted
    changes_driver: bool = False
    hold: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    initramfs: tuple[str, ...] = ()
    reboot: str | None = None
    reasons: tuple[str, ...] = ()
    refusal: str | None = None
    busy: tuple[str, ...] = ()  # who uses the GPUs, where that alone is the refusal


@dataclass(frozen=True)
class Policy:
    """What the decisions of both vendors share."""

    vendor: str
    when_busy: str = "stop"

    @property
    def option(self) -> str:
        """Prefix of the role's options."""
        return ROLES[self.vendor]


def upstream(version: str) -> str:
    """A package's version without epoch and revision: "3:580.95.05-1.el9" is 580.95.05."""
    return version.partition(":")[2].partition("-")[0] if ":" in version else version.partition("-")[0]


def newest_first(versions: list[str]) -> list[str]:
    """Versions by their numbers, newest first; enough for the vendors' own versions, which have no letters."""
    return sorted(versions, key=lambda item: [int(part) for part in re.findall(r"\d+", item)], reverse=True)


def check_secure_boot(host: Host, policy: Policy) -> None:
    """Refuse to build modules that the kernel would not load."""
    if not host.secure_boot or host.key_enrolled:
        return
    key = host.module_key or "/var/lib/dkms/mok.pub"
    make = "" if host.module_key else "install the package dkms, which makes it, then "
    raise Refusal(
        f"Secure Boot is on and the key that signs modules built on this host is not enrolled, so the kernel would"
        f" refuse {FAMILIAR[policy.vendor]}'s driver: {make}run `mokutil --import {key}`, restart and confirm at the"
        f" console; or install the distribution's signed driver and set {policy.option}_managed: false;"
        f" or turn Secure Boot off in the BIOS"
    )


def names_of(users: tuple[User, ...]) -> str:
    """ "python3 (process 4242) and VLLM::Worker (process 4311)"; the first five."""
    shown = [f"{user.name} (process {user.pid})" for user in users[:5]]
    if len(users) > 5:
        shown.append(f"{len(users) - 5} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def busy_refusal(host: Host, policy: Policy, what: str) -> str:
    """The sentence for GPUs in use; ``what`` has to be done."""
    advice = (
        "end them or drain the host by hand"
        if policy.when_busy == "drain"
        else f"drain the host, or set {policy.option}_when_busy: drain"
    )
    return f"{what}, and its GPUs are used by {names_of(host.users)}: {advice}"


def guard_busy(plan: Plan, host: Host, policy: Policy, what: str) -> Plan:
    """A GPU in use is never pulled from under a model: the driver's files change only where nobody uses it."""
    if not plan.changes_driver or not host.users:
        return plan
    names = tuple(f"{user.name} (process {user.pid})" for user in host.users)
    return replace(plan, refusal=busy_refusal(host, policy, what), busy=names)


def guard_restarts(plan: Plan, host: Host, policy: Policy, installed: str) -> Plan:
    """A restart that was asked for and changed nothing is not asked for again."""
    asked = host.record.get("restart", {})
    if not plan.reboot or asked.get("installed") != installed or asked.get("boot") in (None, host.boot):
        return plan
    text = (
        f"{plan.reboot}, although the host was restarted for it: look at `dkms status` and `dmesg` for why the module"
        f" is not loaded, or set {policy.option}_managed: false"
    )
    return replace(plan, refusal=text, reboot=None)


def choose_versions(plan: Plan, available: dict[str, list[str]]) -> dict[str, str]:
    """A version for each missing package that has one; the driver's packages get the newest that all of them have.

    Raises ``Refusal`` where the repository has no such version.
    """
    wanted = [name for name in plan.driver if name in plan.missing]
    chosen = {name: _offered(name, want, available) for name, want in plan.versions if name in plan.missing}
    if not wanted:
        return chosen
    offers = {name: {upstream(item): item for item in reversed(available.get(name, []))} for name in wanted}
    common = set.intersection(*(set(found) for found in offers.values()))
    fitting = [item for item in newest_first(list(common)) if fits(item, plan.branch)]
    if plan.at:
        fitting = [item for item in fitting if item == plan.at]
    if not fitting:
        target = f"version {plan.at}" if plan.at else f"a version {plan.branch}"
        seen = "; ".join(f"{name}: {', '.join(newest_first(list(offers[name]))[:4]) or 'none'}" for name in wanted)
        raise Refusal(f"the repository does not have {target} of all packages that are needed ({seen}): mirror it")
    return {**chosen, **{name: offers[name][fitting[0]] for name in wanted}}


def _offered(name: str, want: str, available: dict[str, list[str]]) -> str:
    offers = available.get(name, [])
    found = next((item for item in newest_first(offers) if item == want or fits(upstream(item), want)), None)
    if found is None:
        seen = ", ".join(newest_first(offers)[:4]) or "none"
        raise Refusal(f"the repository does not have {name} {want} (it has {seen}): mirror it, or set another version")
    return found


def fits(version: str, branch: str) -> bool:
    """Whether a version is ``branch`` itself or one of it: 580.95.05 is of 580, and not of 58.

    AMD puts its release behind the module's own version: 6.16.13.30300300 is of ".30300300".
    """
    if branch.startswith("."):
        return version.endswith(branch)
    return version == branch or version.startswith(f"{branch}.")
