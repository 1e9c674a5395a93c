"""What of a host differs from what is wanted, what has to happen next, and what is refused and why.

Nothing is wiped and no running host is restarted unless the service tag was named. The tag that counts is the one that
the BMC reports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from . import disks
from . import firmware as versions
from . import profile as bios
from .machine import Machine

SYSTEMS = ("ubuntu-22.04", "ubuntu-24.04", "rhel-9", "rocky-9")
# Steps in the order in which they are taken.
STEPS = ("firmware", "bios", "install", "eject")


@dataclass(frozen=True)
class Wanted:
    """What the inventory and the command line ask for."""

    os: str
    service_tag: str = ""  # that the inventory expects; empty: any
    bios: dict[str, Any] = field(default_factory=dict)  # changes of the profile
    firmware: dict[str, versions.Rule] = field(default_factory=dict)
    firmware_url: str = ""
    nic_mac: str = ""
    disk: str = "boss"
    user: str = "admin"
    ssh_keys: tuple[str, ...] = ()
    media_url: str = ""
    images: tuple[str, ...] = ()  # addresses: the installer's image, and the one with its answers
    confirm_wipe: tuple[str, ...] = ()
    confirm_restart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What the host itself said by SSH."""

    os: str = ""  # empty: it did not answer
    why: str = ""  # why it did not


@dataclass(frozen=True)
class Decision:
    """All of it, each as sentences but for what tasks need."""

    differences: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    bios: dict[str, str] = field(default_factory=dict)  # to be set
    firmware: tuple[versions.Old, ...] = ()  # to be updated
    disk: disks.Match | None = None
    images: tuple[str, ...] = ()  # in the order in which they are inserted
    notes: tuple[str, ...] = ()


def release(text: str) -> str:
    """The system that /etc/os-release names, such as ubuntu-24.04 or rocky-9; empty if it names none."""
    found = {key: value.strip("\"'") for key, value in re.findall(r"^(ID|VERSION_ID)=(.*?)\r?$", text, re.MULTILINE)}
    name, version = found.get("ID", ""), found.get("VERSION_ID", "")
    if not name or not version:
        return ""
    return f"{name}-{version if name == 'ubuntu' else version.partition('.')[0]}"


def decide(machine: Machine, wanted: Wanted, answer: Answer) -> Decision:
    """See the module."""
    attributes = bios.differing(machine.bios, bios.profile(wanted.bios))
    aged = tuple(versions.old(machine, wanted.firmware))
    differences = [str(item) for item in aged]
    differences += [
        f"{item.name} is {machine.bios[item.name]}, and the BIOS profile has {item.value}: {item.reason}"
        for item in attributes
    ]
    install = answer.os != wanted.os
    if install:
        differences.append(f"{wanted.os} is wanted, and the host {_state(machine, answer)}")
    inserted = [slot for slot in machine.slots if slot.image and slot.image in wanted.images]
    if inserted and not install:
        differences.append(f"virtual media {', '.join(slot.image for slot in inserted)} is still inserted")
    steps = {
        "firmware": bool(aged),
        "bios": bool(attributes),
        "install": install,
        "eject": bool(inserted) and not install,
    }
    refusals = _identity(machine, wanted) + _firmware(aged, wanted)
    found = disks.choose(machine.drives, wanted.disk) if install else None
    if install:
        refusals += _installable(machine, wanted, found) + _wipe(machine, wanted, answer)
    elif attributes or any(item.restarts for item in aged):
        refusals += _restart(machine, wanted, answer)
    return Decision(
        differences=tuple(differences),
        refusals=tuple(refusals),
        steps=tuple(step for step in STEPS if steps[step]),
        bios={item.name: item.value for item in attributes},
        firmware=aged,
        disk=found if isinstance(found, disks.Match) else None,
        images=in_order(machine, wanted.images) if install else tuple(slot.image for slot in inserted),
        notes=tuple(
            f"{name} firmware is asked for, and the host has none"
            for name in versions.unknown(machine, wanted.firmware)
        ),
    )


def in_order(machine: Machine, images: tuple[str, ...]) -> tuple[str, ...]:
    """Images in the order in which the installer's gets the slot with the lowest number: a host starts from that one.

    A module inserts into the first empty slot of the BMC's own list, which may begin with the second.
    """
    names = [slot.name for slot in machine.slots]
    return images if names == sorted(names) else tuple(reversed(images))


def _state(machine: Machine, answer: Answer) -> str:
    if answer.os:
        return f"runs {answer.os}"
    if machine.power == "Off":
        return "is off, so nobody knows what is on its disks"
    return f"does not answer by SSH ({answer.why or 'no reason is known'})"


def _identity(machine: Machine, wanted: Wanted) -> list[str]:
    if not machine.service_tag:
        return ["the BMC names no service tag, so nothing is changed on this host"]
    if wanted.service_tag and wanted.service_tag.upper() != machine.service_tag.upper():
        return [
            f"the BMC is that of {machine.service_tag}, and bare_metal_service_tag is {wanted.service_tag}: correct one"
            " of them, or bare_metal_bmc_address"
        ]
    return []


def _firmware(aged: tuple[versions.Old, ...], wanted: Wanted) -> list[str]:
    refusals = []
    for item in aged:
        if not wanted.firmware_url:
            refusals.append(
                f"{item}; set bare_metal_firmware_url to a repository that has the file, or update it by hand"
            )
        elif not item.file:
            refusals.append(f"{item}; name its file in bare_metal_firmware, or update it by hand")
    return refusals


def _installable(machine: Machine, wanted: Wanted, found: disks.Match | str | None) -> list[str]:
    """What an installation lacks."""
    refusals = []
    macs = [nic.mac for nic in machine.nics]
    if wanted.nic_mac.lower() not in macs:
        said = f"no NIC has {wanted.nic_mac}" if wanted.nic_mac else "it is not set"
        refusals.append(f"bare_metal_nic_mac: {said}; the BMC lists {', '.join(macs) or 'none'}")
    if isinstance(found, str):
        refusals.append(found)
    if not wanted.ssh_keys:
        refusals.append("bare_metal_ssh_keys: no key, so nobody could log in; set it to the lines of public keys")
    if wanted.user == "root":
        refusals.append(
            "bare_metal_user: root has no login there; set ansible_user to an account that is made, with sudo"
        )
    if not wanted.media_url:
        refusals.append(
            "bare_metal_media_url: not set; set it to the address under which BMCs reach bare_metal_media_dir"
        )
    others = [slot for slot in machine.slots if slot.image and slot.image not in wanted.images]
    if len(machine.slots) < len(wanted.images):
        refusals.append(
            f"virtual media refused: the BMC has {len(machine.slots)} for the host, and two are needed; found iDRAC"
            f" {machine.idrac or 'without a version'}, wanted iDRAC 9 with 6.00 or newer"
        )
    elif others:
        held = ", ".join(f"slot {slot.name} holds {slot.image}" for slot in others)
        refusals.append(f"virtual media refused: {held}; eject it")
    return refusals


def _wipe(machine: Machine, wanted: Wanted, answer: Answer) -> list[str]:
    if _named(machine, wanted.confirm_wipe):
        return []
    return [
        f"confirmation missing: {wanted.os} is to be installed, which wipes a disk, and the host"
        f" {_state(machine, answer)}; name it with -e bare_metal_confirm_wipe={machine.service_tag}"
        + (
            ""
            if answer.os or machine.power != "Off"
            else ", or start it with -e bare_metal_power=on and run this again"
        )
    ]


def _restart(machine: Machine, wanted: Wanted, answer: Answer) -> list[str]:
    if machine.power == "Off" or _named(machine, wanted.confirm_restart + wanted.confirm_wipe):
        return []
    return [
        f"confirmation missing: the changes restart the host, and it {_state(machine, answer)}; drain it, then name it"
        f" with -e bare_metal_confirm_restart={machine.service_tag}"
    ]


def _named(machine: Machine, tags: tuple[str, ...]) -> bool:
    return machine.service_tag.upper() in [tag.strip().upper() for tag in tags]


def report(host: str, machine: Machine, decision: Decision, answer: Answer) -> str:
    """The host in lines: what it is, what differs, what comes next, what is in the way."""
    lines = [
        f"{host}: {machine.model}, service tag {machine.service_tag}, power {machine.power},"
        f" BIOS {machine.firmware.get('BIOS', 'unknown')}, iDRAC {machine.idrac or 'unknown'},"
        f" {'runs ' + answer.os if answer.os else 'no answer by SSH'}"
    ]
    lines += [f"  NIC      {_nic(nic.mac, nic.name, nic.mbits, nic.link)}" for nic in machine.nics]
    lines += [
        f"  disk     {drive.controller}: {drive.model}, {drive.gib} GiB, serial {drive.serial}"
        for drive in machine.drives
    ]
    lines += [f"  note     {note}" for note in decision.notes]
    lines += [f"  differs  {difference}" for difference in decision.differences] or ["  differs  nothing"]
    if decision.steps:
        lines.append(f"  next     {', '.join(decision.steps)}")
    return "\n".join([*lines, *(f"  refused  {refusal}" for refusal in decision.refusals)])


def _nic(mac: str, name: str, mbits: int | None, link: bool | None) -> str:
    state = {True: "link", False: "no link"}.get(link) if link is not None else None
    return ", ".join(filter(None, [mac, name, f"{mbits} Mbit/s" if mbits else None, state]))
