"""What has to be done to bring K3s on one host to what the inventory says: pure decisions.

K3s's rules behind them: docs.k3s.io/upgrades (no downgrade, no minor version left out),
docs.k3s.io/datastore/ha-embedded (an odd number of servers, the first one starts the cluster and the others join it),
docs.k3s.io/cli/token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..common.web import at

VERSION = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-[\w.]+)?\+k3s(\d+)")


@dataclass(frozen=True)
class HostState:
    """K3s on one host, as it was found."""

    installed: str | None  # version of the binary that is linked into place; None: there is none
    active: bool  # the unit runs
    initialized: bool  # a server with a database, or an agent with certificates: it has been part of a cluster
    server_url: str | None  # of config.yaml: the server that it once joined; None: it has joined none
    changed_since_start: tuple[str, ...] = ()  # files that are newer than the running process


@dataclass(frozen=True)
class Join:
    """How a host comes into the cluster."""

    url: str | None  # of a server that is in it; None: this host starts the cluster
    server: str | None  # name of that server
    fault: str | None = None


def parsed(version: str) -> tuple[int, int, int, int]:
    """A release's numbers, comparable. Raises ``ValueError`` if it is not written as K3s writes it."""
    match = VERSION.fullmatch(version)
    if not match:
        raise ValueError(f"k3s_version: {version} is not a release of K3s: write it as v1.34.2+k3s1")
    first, minor, patch, build = map(int, match.groups())
    return first, minor, patch, build


def upgrade_fault(installed: str | None, wanted: str) -> str | None:
    """Why ``wanted`` must not be put in the place of ``installed``; None if it may."""
    new = parsed(wanted)
    if installed is None:
        return None
    old = parsed(installed)
    if new < old:
        return (
            f"k3s_version: {installed} is installed and {wanted} is older: K3s cannot go back; set k3s_version to"
            f" {installed} or later, or restore a snapshot (playbooks/restore.yml)"
        )
    if new[0] != old[0] or new[1] > old[1] + 1:
        return (
            f"k3s_version: from {installed} to {wanted} a minor version is left out: set k3s_version to a release of"
            f" v{old[0]}.{old[1] + 1} first"
        )
    return None


def join(host: str, is_server: bool, servers: dict[str, str], answering: tuple[str, ...], state: HostState) -> Join:
    """Through which server a host joins, or that it starts the cluster.

    ``servers`` are names and addresses in the inventory's order, ``answering`` those that serve the API now. A host
    that has joined keeps its way in, so that a second run changes nothing; a first server that comes back without
    its database joins the others instead of starting a second cluster.
    """
    urls = {name: f"https://{at(address, 6443)}" for name, address in servers.items()}
    others = [name for name in servers if name != host]
    first = next(iter(servers))
    if state.initialized:
        if is_server and state.server_url is None:
            return Join(None, None)
        # Also while that server is down: a node that has joined knows the others.
        kept = next((name for name in others if urls[name] == state.server_url), None)
        if kept:
            return Join(urls[kept], kept)
    reachable = next((name for name in others if name in answering), None)
    if reachable:
        return Join(urls[reachable], reachable)
    if is_server and host == first and not state.initialized:
        return Join(None, None)
    if state.initialized and others:
        return Join(state.server_url or urls[others[0]], others[0])
    return Join(
        None,
        None,
        f"no server answers at {', '.join(urls[name] for name in others)}: start one of them"
        f" (systemctl status k3s on it), then run this again",
    )
