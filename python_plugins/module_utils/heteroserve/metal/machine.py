"""A host as its BMC describes it, from what ``community.general.redfish_info`` returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

IDRAC = "Integrated Dell Remote Access Controller"


@dataclass(frozen=True)
class Nic:
    """A port of the host."""

    mac: str
    name: str = ""
    mbits: int | None = None
    link: bool | None = None  # None: the BMC does not say


@dataclass(frozen=True)
class Drive:
    """A drive, as the BMC sees it: behind a RAID controller the operating system sees a volume instead."""

    controller: str
    model: str
    serial: str
    gib: int


@dataclass(frozen=True)
class Slot:
    """One of the host's virtual media."""

    name: str
    image: str = ""  # its address; empty if nothing is inserted


@dataclass(frozen=True)
class Machine:
    """All that decisions need to know."""

    service_tag: str
    model: str = ""
    power: str = ""  # On or Off, or on the way
    bios: Mapping[str, Any] = field(default_factory=dict)
    firmware: Mapping[str, str] = field(default_factory=dict)  # component -> version
    nics: tuple[Nic, ...] = ()
    drives: tuple[Drive, ...] = ()
    slots: tuple[Slot, ...] = ()

    @property
    def idrac(self) -> str:
        """Version of the iDRAC."""
        return self.firmware.get(IDRAC, "")


def machine(facts: Mapping[str, Any]) -> Machine:
    """From all ``redfish_facts`` together."""
    system = _first(facts, "system") or {}
    return Machine(
        # Dell's service tag is the SKU; SerialNumber is the board's.
        service_tag=str(system.get("SKU") or system.get("ServiceTag") or system.get("SerialNumber") or ""),
        model=str(system.get("Model") or ""),
        power=str(system.get("PowerState") or ""),
        bios=_first(facts, "bios_attribute") or {},
        firmware=dict(_firmware(facts.get("firmware", {}).get("entries", []))),
        nics=tuple(map(_nic, _first(facts, "nic") or [])),
        drives=tuple(_drives(_first(facts, "disk") or [])),
        slots=tuple(
            Slot(str(item.get("Id", "")), str(item.get("Image") or item.get("ImageName") or ""))
            for item in _first(facts, "virtual_media") or []
        ),
    )


def _first(facts: Mapping[str, Any], name: str) -> Any:
    """What was read of the one system: each entry is its address and what stands there."""
    entries = facts.get(name, {}).get("entries") or []
    return entries[0][1] if entries else None


def _firmware(entries: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """What runs: an iDRAC also lists what it could go back to."""
    for entry in entries:
        if not str(entry.get("Id", "")).startswith(("Previous", "Available")) and entry.get("Version"):
            yield str(entry.get("Name", "")), str(entry["Version"])


def _nic(entry: Mapping[str, Any]) -> Nic:
    link = {"LinkUp": True, "LinkDown": False, "NoLink": False}.get(str(entry.get("LinkStatus")))
    mac = str(entry.get("PermanentMACAddress") or entry.get("MACAddress") or "").lower()
    return Nic(mac, str(entry.get("Id", "")), entry.get("SpeedMbps"), link)


def _drives(controllers: Iterable[Mapping[str, Any]]) -> Iterable[Drive]:
    for controller in controllers:
        for entry in controller.get("Drives") or []:
            yield Drive(
                str(controller.get("Controller", "")),
                str(entry.get("Model") or "").strip(),
                str(entry.get("SerialNumber") or "").strip(),
                round((entry.get("CapacityBytes") or 0) / 2**30),
            )
