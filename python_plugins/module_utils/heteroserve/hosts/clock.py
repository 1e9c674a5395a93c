"""Whether a host's clock is kept right, from what its time services say."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Units that keep the clock, by the name of the service, in the order in which one would be recommended.
SERVICES = {
    "chrony": ("chrony.service", "chronyd.service"),
    "systemd-timesyncd": ("systemd-timesyncd.service",),
    "ntpd": ("ntpsec.service", "ntp.service", "ntpd.service"),
}
SKEW_S = 30.0  # of the controller's clock; certificates and etcd's leases suffer long before a minute


@dataclass(frozen=True)
class TimeState:
    """What was found of the clock."""

    active: tuple[str, ...]  # keys of SERVICES that run
    synchronised: bool
    evidence: str  # the words from which it follows
    skew_s: float | None = None  # ahead of the controller


def parse_chronyc(text: str) -> tuple[bool, str] | None:
    """``chronyc -n tracking``: synchronised or not, and to what; None if it is something else."""
    fields = dict(re.findall(r"^(\S[^:]*?)\s*: (.*)$", text, re.MULTILINE))
    if "Leap status" not in fields:
        return None
    good = fields["Leap status"] != "Not synchronised"
    source = re.search(r"\((.*)\)", fields.get("Reference ID", ""))
    name = source[1] if source and source[1] else "no source"
    return good, f"chronyc: leap status {fields['Leap status']}, source {name}"


def parse_timedatectl(text: str) -> bool:
    """``timedatectl show``: the kernel's own flag, whoever keeps the clock."""
    return "NTPSynchronized=yes" in text.split()


def parse_ntpq(text: str) -> tuple[bool, str] | None:
    """``ntpq -pn``: the peer that is followed has a star; None if it is something else."""
    if "remote" not in text:
        return None
    peer = re.search(r"^[*o](\S+)", text, re.MULTILINE)
    return peer is not None, f"ntpq: follows {peer[1]}" if peer else "ntpq: follows no peer"


def verdict(state: TimeState) -> str | None:
    """What is wrong with the clock, and what to do; None if it is kept right."""
    if not state.active:
        return (
            "no time service runs (chrony, systemd-timesyncd or ntpd): install one (apt or dnf install chrony) and name"
            " your time servers in it, or set host_prep_time_sync: reported where the machine below keeps the clock"
        )
    if len(state.active) > 1:
        return f"{' and '.join(state.active)} run at once and pull the clock apart: stop all but one"
    if not state.synchronised:
        return (
            f"{state.active[0]} runs but the clock is not synchronised ({state.evidence}): check that the host reaches"
            " its time servers (UDP port 123)"
        )
    if state.skew_s is not None and abs(state.skew_s) > SKEW_S:
        side = "ahead of" if state.skew_s > 0 else "behind"
        return (
            f"the clock is {abs(state.skew_s):.0f} s {side} the controller's though {state.active[0]} calls it"
            " synchronised: check the time servers of both"
        )
    return None
