"""Which hosts a run is about: those of one rack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A host of the inventory."""

    rack: str = ""
    bmc: str = ""  # address of its BMC


def rack(hosts: Mapping[str, Candidate], asked: str, report: bool) -> list[str] | str:
    """Hosts with a BMC, of the rack that was asked for; or one sentence why not.

    Only a report may be about several racks.
    """
    managed = {name: host for name, host in hosts.items() if host.bmc}
    if not managed:
        return "no host has bare_metal_bmc_address: set it for each host that has a BMC"
    racks = sorted({host.rack for host in managed.values()})
    if asked:
        found = [name for name, host in managed.items() if host.rack == asked]
        named = ", ".join(filter(None, racks)) or "none"
        return found or f"bare_metal_rack: no host with a BMC is in the rack {asked!r}; racks are {named}"
    if len(racks) > 1 and not report:
        return (
            f"hosts with a BMC are in {len(racks)} racks ({', '.join(name or 'one without a name' for name in racks)}),"
            " and one is worked on at a time: name it with -e bare_metal_rack="
        )
    return list(managed)
