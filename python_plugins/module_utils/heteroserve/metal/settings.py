"""What of the settings for bare metal cannot work: (key, what was found, what to set)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ..inventory.schema import Fault, Inventory
from .disks import RULE

PREFIX = "bare_metal_"
# A host with a BMC needs these too, its own or of a group.
WITH_BMC = ("bare_metal_bmc_user", "bare_metal_bmc_password")

Found = tuple[str, str, str]
_TAG = re.compile(r"[A-Za-z0-9]{5,10}")
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp\d+|sk-\S+) [A-Za-z0-9+/=]{40,}( .*)?")
_VERSION = re.compile(r"\d+(\.\d+)*")
_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
_FORMS = {
    "service_tag": (_TAG, "set letters and digits, as on the host's label"),
    "nic_mac": (_MAC, "set it as b0:7b:25:00:00:01"),
    "disk": (RULE, "set boss, smallest, largest, serial:NUMBER or model:PATTERN"),
    "media_url": (_URL, "set it as http://10.20.0.5/media"),
    "firmware_url": (_URL, "set it as http://10.20.0.5/firmware"),
    "user": (re.compile(r"[a-z_][a-z0-9_-]{0,30}"), "set an account's name in lower case"),
}


def refusals(inventory: Inventory) -> list[Fault]:
    """Faults of the whole inventory, each with its place."""
    known = [
        Fault(inventory.place(key), key, found, fix)
        for key, found, fix in faults(inventory.values)
        if not key.partition(".")[0].startswith(tuple(inventory.template_faults) or ("-",))
    ]
    for owner, own in inventory.owned.items():
        for key, found, fix in faults(own):
            where = f"{owner}: {key}"
            top = inventory.host_keys.get(f"{owner}: {re.split(r'[.[]', key)[0]}", "the inventory")
            known.append(Fault(inventory.lines.get(where, top), where, found, fix))
    return known + _missing(inventory)


def _missing(inventory: Inventory) -> list[Fault]:
    """What a host with a BMC lacks."""
    found = []
    for host, own in inventory.owned.items():
        if not own.get("bare_metal_bmc_address"):
            continue
        above = [name for name, members in inventory.groups.items() if host in members]
        for name in WITH_BMC:
            places = (own, *(inventory.owned.get(group, {}) for group in above), inventory.values)
            unread = {name, *(f"{owner}: {name}" for owner in (host, *above))} & set(inventory.template_faults)
            if not unread and not any(place.get(name) for place in places):
                where = inventory.host_keys.get(f"{host}: bare_metal_bmc_address", "the inventory")
                fix = "set it, from a vault" if name.endswith("password") else "set it"
                found.append(
                    Fault(where, f"{host}: {name}", "missing, and the host has a BMC", f"{fix}, for it or all hosts")
                )
    return found


def faults(own: Mapping[str, Any]) -> list[Found]:
    """Faults of what one host, one group or all hosts set. What is not set is no fault here."""
    given = {
        key.removeprefix(PREFIX): value
        for key, value in own.items()
        if key.startswith(PREFIX) and value not in (None, "")
    }
    found = [
        (f"{PREFIX}{name}", repr(given[name]), fix)
        for name, (form, fix) in _FORMS.items()
        if name in given and not form.fullmatch(str(given[name]))
    ]
    found += _address(given) + _keys(given) + _firmware(given)
    return found + _network(given)


def _address(given: Mapping[str, Any]) -> list[Found]:
    address = given.get("bmc_address")
    if address is None or _is_address(str(address)) or _NAME.fullmatch(str(address)):
        return []
    return [
        ("bare_metal_bmc_address", repr(address), "set an address or a name alone; its port is bare_metal_bmc_port")
    ]


def _keys(given: Mapping[str, Any]) -> list[Found]:
    keys = given.get("ssh_keys")
    return [
        (f"bare_metal_ssh_keys[{index}]", f"{str(key)[:30]!r}", "set the line of a public key, as in id_ed25519.pub")
        for index, key in enumerate(keys if isinstance(keys, list) else [])
        if not _KEY.fullmatch(str(key).strip())
    ]


def _firmware(given: Mapping[str, Any]) -> list[Found]:
    found = []
    rules = given.get("firmware")
    for name, rule in (rules if isinstance(rules, dict) else {}).items():
        key = f"bare_metal_firmware.{name}"
        if not isinstance(rule, dict) or "minimum" not in rule:
            found.append((key, "no minimum", "set it as {minimum: 7.10.30.00, file: iDRAC.EXE}"))
            continue
        for other in sorted(set(rule) - {"minimum", "file"}):
            found.append((f"{key}.{other}", "unknown key", "known are minimum, file"))
        if not isinstance(rule["minimum"], str):
            found.append((f"{key}.minimum", repr(rule["minimum"]), "put quotes around it: as a number 7.10 is 7.1"))
        elif not _VERSION.fullmatch(rule["minimum"]):
            found.append((f"{key}.minimum", repr(rule["minimum"]), "set numbers with dots between them"))
        if "/" in str(rule.get("file") or ""):
            found.append((f"{key}.file", repr(rule["file"]), "set the file's name in bare_metal_firmware_url"))
    return found


def _network(given: Mapping[str, Any]) -> list[Found]:
    """A static address, its way out and its name servers."""
    address, gateway, found = given.get("address"), given.get("gateway"), []
    network = _network_of(str(address)) if address is not None else None
    if address is not None and network is None:
        found.append(("bare_metal_address", repr(address), "set it with its length, as 10.20.1.11/24"))
    if gateway is not None and not _is_address(str(gateway)):
        found.append(("bare_metal_gateway", repr(gateway), "set an address"))
    elif gateway is not None and network is not None and ipaddress.ip_address(str(gateway)) not in network:
        found.append(("bare_metal_gateway", f"{gateway} is not in {network}", "set an address of that network"))
    servers = given.get("dns")
    for index, server in enumerate(servers if isinstance(servers, list) else []):
        if not _is_address(str(server)):
            found.append((f"bare_metal_dns[{index}]", repr(server), "set an address"))
    return found


def _network_of(address: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """None for what has no length, or is no address."""
    try:
        return ipaddress.ip_interface(address).network if "/" in address else None
    except ValueError:
        return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
