"""Network interfaces, and the one that faces the other hosts: the kernel's own route decides, never a name."""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..common.machine import Machine
from .cards.nic import NICS
from .findings import Findings
from .hardware import Nic, Problem

NET = "/sys/class/net"
ANYWHERE = "192.0.2.1"  # a documentation address (RFC 5737): only the default route leads there


@dataclass(frozen=True)
class Route:
    """How packets to ``target`` leave the host."""

    target: str
    interface: str
    address: str | None
    local: bool = False  # the target is the host's own address


@dataclass(frozen=True)
class NetworkFacts:
    """Interfaces, and the host's address as the other hosts see it."""

    nics: tuple[Nic, ...] = ()
    address: str | None = None


def parse_route(text: str, target: str) -> Route | None:
    """The answer of ``ip -j route get`` (or the first route of ``ip -j route show default``)."""
    first = next(iter(_json_list(text)), {})
    interface = first.get("dev")
    if not interface:
        return None
    return Route(target, interface, first.get("prefsrc"), first.get("type") == "local")


def parse_addresses(text: str) -> dict[str, str]:
    """First address of each interface that other hosts can reach, from ``ip -j addr``; IPv4 before IPv6."""
    found: dict[str, str] = {}
    for link in _json_list(text):
        wide = [item for item in link.get("addr_info", []) if item.get("scope") == "global"]
        wide.sort(key=lambda item: item.get("family") != "inet")
        if wide and link.get("ifname"):
            found[link["ifname"]] = str(wide[0].get("local"))
    return found


def parse_proc_route(text: str, target: str) -> str | None:
    """Interface of the longest prefix in /proc/net/route that holds ``target`` (IPv4), smallest metric first."""
    if ":" in target:
        return None
    wanted = int(ipaddress.IPv4Address(target))
    fits: list[tuple[int, int, str]] = []
    for line in text.splitlines()[1:]:
        cells = line.split()
        if len(cells) < 8:
            continue
        prefix, mask = (int.from_bytes(bytes.fromhex(cells[column]), "little") for column in (1, 7))
        if wanted & mask == prefix:
            fits.append((-bin(mask).count("1"), int(cells[6]), cells[0]))
    return min(fits)[2] if fits else None


def choose(routes: list[Route]) -> tuple[Route | None, Problem | None]:
    """The interface through which most of the other hosts are reached; of several the first by name."""
    remote = [route for route in routes if not route.local]
    if not remote:
        return None, None
    counts = Counter(route.interface for route in remote)
    # Of two that lead to as many hosts always the same one, in whatever order the hosts were given.
    chosen = min(
        remote, key=lambda route: (-counts[route.interface], route.interface, route.address or "", route.target)
    )
    if len(counts) == 1:
        return chosen, None
    others = ", ".join(f"{name} ({count})" for name, count in counts.items())
    text = f"the other hosts are reached through several interfaces: {others}; {chosen.interface} was chosen"
    fix = "give the hosts addresses of one network (`ansible_host` or the host's `address`)"
    return chosen, Problem("several-cluster-interfaces", text, fix)


def probe_network(machine: Machine, cluster_addresses: tuple[str, ...] = ()) -> Findings[NetworkFacts]:
    """Interfaces with hardware behind them, and whichever faces ``cluster_addresses`` (else the default route's)."""
    addresses = parse_addresses(machine.run("ip", "-j", "addr", timeout=5).stdout)
    problems: list[Problem] = []
    routes = []
    for name in cluster_addresses:
        found = [route for target in _resolve(machine, name) if (route := _route(machine, target, addresses))]
        routes.extend(found[:1])
        if not found:
            text = f"no route leads from this host to {name}"
            problems.append(Problem("no-route", text, "correct that host's address, or this host's routes"))
    chosen, several = choose(routes)
    source = f"route to {chosen.target}" if chosen else "default route"
    chosen = chosen or _default(machine, addresses)
    problems.extend([several] if several else [])
    nics = _nics(machine, chosen, addresses)
    if chosen is None:
        source = "none: no default route"
        text = (
            "no interface faces the other hosts: there is no default route, and no route to an address that was given"
        )
        fix = "give the host a default route, or list the other hosts in cluster_addresses"
        problems.append(Problem("no-cluster-interface", text, fix))
    address = chosen.address if chosen else None
    return Findings(NetworkFacts(nics, address), tuple(problems), {"nics": NET, "address": source})


def _resolve(machine: Machine, name: str) -> tuple[str, ...]:
    """Addresses of ``name``; names go through getent, which a time-out can stop where a resolver hangs."""
    try:
        return (str(ipaddress.ip_address(name)),)
    except ValueError:
        lines = machine.run("getent", "ahosts", name, timeout=5).stdout.splitlines()
        return tuple(dict.fromkeys(line.split()[0] for line in lines if line.strip()))


def _route(machine: Machine, target: str, addresses: dict[str, str]) -> Route | None:
    result = machine.run("ip", "-j", "route", "get", target, timeout=5)
    if result.fault is None:
        return parse_route(result.stdout, target)
    interface = parse_proc_route(machine.read("/proc/net/route") or "", target)
    if interface is None:
        return None
    own = machine.source_address(target)
    return Route(target, interface, own or addresses.get(interface), own == target)


def _default(machine: Machine, addresses: dict[str, str]) -> Route | None:
    """The default route's interface, IPv4 before IPv6; without ``ip`` the kernel's table of IPv4."""
    for family in ("-4", "-6"):
        route = parse_route(machine.run("ip", "-j", family, "route", "show", "default", timeout=5).stdout, "default")
        if route:
            return Route("default", route.interface, route.address or addresses.get(route.interface))
    interface = parse_proc_route(machine.read("/proc/net/route") or "", ANYWHERE)
    if interface is None:
        return None
    return Route("default", interface, addresses.get(interface) or machine.source_address(ANYWHERE))


def _nics(machine: Machine, chosen: Route | None, addresses: dict[str, str]) -> tuple[Nic, ...]:
    names = [name for name in machine.names(NET) if _is_hardware(machine, name)]
    if chosen and chosen.interface not in names and machine.exists(f"{NET}/{chosen.interface}"):
        names.append(chosen.interface)  # a bond, bridge or VLAN
    return tuple(_nic(machine, name, chosen, addresses) for name in sorted(names))


def _is_hardware(machine: Machine, name: str) -> bool:
    """Has a device that is not a virtual function meant for guests."""
    return machine.exists(f"{NET}/{name}/device") and not machine.exists(f"{NET}/{name}/device/physfn")


def _nic(machine: Machine, name: str, chosen: Route | None, addresses: dict[str, str]) -> Nic:
    faces = chosen is not None and chosen.interface == name
    below = _lower(machine, name)
    speed = machine.read_int(f"{NET}/{name}/speed")
    return Nic(
        name=name,
        speed_mbits=speed if speed and speed > 0 else None,
        driver=_first(machine.link_name(f"{NET}/{part}/device/driver") for part in below),
        model=_first(_model(machine, part) for part in below),
        rdma_device=_first(next(iter(machine.names(f"{NET}/{part}/device/infiniband")), None) for part in below),
        address=addresses.get(name) or (chosen.address if chosen and faces else None),
        faces_cluster=faces,
    )


def _lower(machine: Machine, name: str) -> tuple[str, ...]:
    """The interfaces with hardware under a bond, bridge or VLAN, itself where it has its own."""
    if machine.exists(f"{NET}/{name}/device"):
        return (name,)
    links = [entry.removeprefix("lower_") for entry in machine.names(f"{NET}/{name}") if entry.startswith("lower_")]
    return tuple(found for link in links for found in _lower(machine, link))


def _model(machine: Machine, name: str) -> str | None:
    ids = [(machine.read(f"{NET}/{name}/device/{key}") or "").removeprefix("0x") for key in ("vendor", "device")]
    return NICS.get(":".join(ids), ":".join(ids)) if all(ids) else None


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _json_list(text: str) -> list[dict[str, Any]]:
    try:
        data = json.loads(text)
    except ValueError:
        return []
    return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
