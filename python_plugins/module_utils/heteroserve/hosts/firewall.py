"""Which connections a host of the cluster takes, from whom and why; and the nftables file that says so.

The table is HeteroServe's own, so that rules of the distribution, of kube-proxy and of others stay as they are. A
packet must pass every table: what this one accepts another may still drop, never the other way round.

NodePorts are decided before kube-proxy rewrites their destination (dstnat, priority -100): afterwards a packet to a
NodePort is one to a pod, and would pass the forward hook, where nobody knows any more which port was meant.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

TABLE = "heteroserve"
NODE_PORTS = "30000-32767"  # Kubernetes' range, which K3s keeps
# Interfaces of the pods: flannel's bridge, and its tunnel, whose packets come in by port 8472 of cluster hosts alone.
POD_INTERFACES = ("cni0", "flannel.1")


@dataclass(frozen=True)
class Role:
    """What a host does for the others."""

    server: bool = False
    node: bool = False  # runs the kubelet: servers and hosts of models
    gateway: bool = False
    monitoring: bool = False


@dataclass(frozen=True)
class Opening:
    """A port that is open beyond what HeteroServe needs, because the inventory says so."""

    port: int
    reason: str
    protocol: str = "tcp"
    sources: tuple[str, ...] = ()  # addresses or networks; empty: anyone


@dataclass(frozen=True)
class Wanted:
    """All that the rules of one host follow from. Addresses are literal, names are resolved before."""

    host: str
    roles: dict[str, Role]  # of every host of the inventory
    addresses: dict[str, tuple[str, ...]]  # of every host
    ssh_port: int
    client: str | None  # the address from which Ansible is connected now; None: it is on this host itself
    cells: tuple[dict[str, Any], ...] = ()  # of the plan, on this host
    ssh_sources: tuple[str, ...] = ()  # empty: anyone
    admin_sources: tuple[str, ...] = ()  # may use the API beside the cluster's hosts and the client
    gateway_port: int = 0
    client_sources: tuple[str, ...] = ()  # may use the endpoint; empty: anyone
    monitored_ports: tuple[int, ...] = ()
    gpu_ports: tuple[int, ...] = ()  # figures of GPUs, which gateways read too, to drain cells of broken ones
    registry_host: str = ""
    registry_port: int = 0
    weights_host: str = ""
    weights_ports: tuple[int, ...] = ()
    weights_takers: tuple[str, ...] = ()  # hosts that may copy weights from this one, which is not the weights_host
    images_shared: bool = False  # nodes pull images from each other: K3s' embedded registry mirror
    pod_network: str = "10.42.0.0/16"
    service_network: str = "10.43.0.0/16"
    pods_routed: bool = False  # pods' packets come without a tunnel: flannel's host-gw
    openings: tuple[Opening, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Connections that are accepted; ``sources`` None means from anyone, an empty tuple from nobody."""

    port: str  # "6443" or "2379-2380"
    reason: str
    sources: tuple[str, ...] | None
    protocol: str = "tcp"
    node_port: bool = False  # decided before kube-proxy


@dataclass(frozen=True)
class Ruleset:
    """The rules, and the file's text with a digest by which the loaded table is known again."""

    rules: tuple[Rule, ...]
    text: str
    digest: str
    faults: tuple[str, ...] = field(default=())


def rules(wanted: Wanted) -> tuple[Rule, ...]:
    """Every connection from outside that the host takes; the rest is dropped."""
    own = wanted.roles[wanted.host]
    nodes, monitors = _of(wanted, "node"), _of(wanted, "monitoring")
    admins = _unique([*nodes, *([wanted.client] if wanted.client else []), *wanted.admin_sources])
    found = [Rule(str(wanted.ssh_port), "SSH", wanted.ssh_sources or None)]
    if own.server:
        reason = "K3s' API, for its nodes, for monitoring and for whoever runs Ansible"
        found.append(Rule("6443", reason, _unique([*admins, *monitors])))
        servers = _of(wanted, "server")
        if len(servers) > len(wanted.addresses[wanted.host]):
            found.append(Rule("2379-2380", "etcd, between servers", servers))
    if own.node:
        reason = "kubelet, for the API's logs and figures, and for monitoring"
        found.append(Rule("10250", reason, _unique([*nodes, *monitors])))
        if wanted.images_shared:
            found.append(Rule("5001", "which images nodes have, for nodes (K3s' embedded registry)", nodes))
            if not own.server:
                found.append(Rule("6443", "images that this node has, for nodes (K3s' embedded registry)", nodes))
        if not wanted.pods_routed:
            found.append(Rule("8472", "flannel's tunnel between pods of different hosts", nodes, protocol="udp"))
    callers = {"serve": ("gateway", "monitoring"), "dashboard": ("monitoring",)}
    for cell in wanted.cells if own.node else ():
        for name, port in sorted(cell["ports"].items()):
            roles = callers.get(name, ("monitoring",))
            sources = _unique(address for role in roles for address in _of(wanted, role))
            reason = f"{name} port of cell {cell['name']}, for {' and '.join(roles)}"
            found.append(Rule(str(port), reason, sources, node_port=True))
    if own.gateway and wanted.gateway_port:
        # Monitoring asks known questions through it.
        clients = _unique([*wanted.client_sources, *monitors]) if wanted.client_sources else None
        found.append(Rule(str(wanted.gateway_port), "the endpoint", clients))
    for port in wanted.monitored_ports:
        found.append(Rule(str(port), "figures, for monitoring", monitors))
    for port in wanted.gpu_ports if monitors else ():
        readers = _unique([*monitors, *_of(wanted, "gateway")])
        found.append(Rule(str(port), "figures of GPUs, for monitoring and for gateways", readers))
    if wanted.host == wanted.registry_host and wanted.registry_port:
        reason = "the registry, for nodes that pull images and for whoever runs Ansible, which builds them"
        found.append(Rule(str(wanted.registry_port), reason, admins))
    for port in wanted.weights_ports if wanted.host == wanted.weights_host else ():
        found.append(Rule(str(port), "weights, for nodes that copy or mount them", nodes))
    for port in wanted.weights_ports if wanted.host != wanted.weights_host else ():
        takers = _unique(address for host in wanted.weights_takers for address in wanted.addresses.get(host, ()))
        found.append(Rule(str(port), "weights, for hosts of the same models, which may copy them from here", takers))
    for opening in wanted.openings:
        inside = int(NODE_PORTS.split("-")[0]) <= opening.port <= int(NODE_PORTS.split("-")[1])
        sources_or_anyone = opening.sources or None
        found.append(Rule(str(opening.port), opening.reason, sources_or_anyone, opening.protocol, inside and own.node))
    return tuple(rule for rule in found if rule.sources is None or rule.sources)


def faults(wanted: Wanted) -> list[str]:
    """Why these rules must not be loaded: they would lock out whoever loads them, or name what is no address."""
    found = []
    named = {
        "host_prep_ssh_sources": wanted.ssh_sources,
        "host_prep_admin_sources": wanted.admin_sources,
        "host_prep_client_sources": wanted.client_sources,
        "host_prep_open_ports": tuple(source for opening in wanted.openings for source in opening.sources),
    }
    for key, sources in named.items():
        for source in sources:
            if _network(source) is None:
                found.append(f"{key}: {source} is no address and no network: write 10.0.0.5 or 10.0.0.0/24")
    known = [network for source in wanted.ssh_sources if (network := _network(source))]
    client = _network(wanted.client) if wanted.client else None
    if known and client and not any(_within(client, network) for network in known):
        found.append(f"host_prep_ssh_sources: {wanted.client}, from where Ansible is connected, is not in it: add it")
    return found


def ruleset(wanted: Wanted) -> Ruleset:
    """The rules of a host as a file that replaces the table in one step."""
    accepted = rules(wanted)
    body = _body(wanted, accepted)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    # The first line makes the table if there is none, so that the second never fails.
    head = [
        "#!/usr/sbin/nft -f",
        f"# Written by HeteroServe for {wanted.host}: run it again instead of editing this file. Each line says why.",
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
    ]
    return Ruleset(accepted, "\n".join([*head, body.replace("DIGEST", digest), ""]), digest, tuple(faults(wanted)))


def _body(wanted: Wanted, accepted: tuple[Rule, ...]) -> str:
    node = wanted.roles[wanted.host].node
    interfaces = ", ".join(f'"{name}"' for name in POD_INTERFACES)
    lines = [f"table inet {TABLE} {{", '  comment "HeteroServe DIGEST"', ""]
    if node:
        lines += [
            "  # Before kube-proxy sends NodePorts and service addresses on to pods.",
            "  chain services {",
            "    type filter hook prerouting priority mangle; policy accept;",
            "    ct state established,related accept",
            f'    iifname {{ "lo", {interfaces} }} accept comment "this host and its pods"',
            *[line for rule in accepted if rule.node_port for line in _rule(rule)],
            f"    fib daddr type local meta l4proto {{ tcp, udp }} th dport {NODE_PORTS} drop"
            ' comment "no other NodePort"',
            *_pods(wanted),
            "  }",
            "",
        ]
    lines += [
        # Before kube-proxy's own chain, which answers for a service without a pod with ICMP or not at all.
        "  chain input {",
        "    type filter hook input priority filter - 1; policy drop;",
        "    ct state established,related accept",
        '    iifname "lo" accept comment "this host"',
        *([f'    iifname {{ {interfaces} }} accept comment "pods of this host"'] if node else []),
        "    meta l4proto { icmp, ipv6-icmp } accept",
        '    udp sport 67 udp dport 68 accept comment "DHCP"',
        '    ip6 saddr fe80::/10 udp dport 546 accept comment "DHCP"',
        # It has passed the chain before; had the cell a pod that is ready, kube-proxy had sent it on. The gateway
        # takes a reset as an answer and asks another cell at once.
        *(
            [f'    tcp dport {NODE_PORTS} reject with tcp reset comment "a cell that does not run says so"']
            if any(rule.node_port for rule in accepted)
            else []
        ),
        *[line for rule in accepted if not rule.node_port for line in _rule(rule)],
        "  }",
        "}",
    ]
    return "\n".join(lines)


def _pods(wanted: Wanted) -> list[str]:
    """Nobody outside of the cluster routes packets to pods or services through this host."""
    inner = f"{{ {wanted.pod_network}, {wanted.service_network} }}"
    family = "ip6" if ":" in wanted.pod_network else "ip"
    lines = []
    if wanted.pods_routed:
        sources = ", ".join((wanted.pod_network, *_family(_of(wanted, "node"), family)))
        lines.append(
            f'    {family} saddr {{ {sources} }} {family} daddr {inner} accept comment "pods without a tunnel"'
        )
    return [*lines, f'    {family} daddr {inner} drop comment "pods and services, from outside"']


def _rule(rule: Rule) -> list[str]:
    local = "fib daddr type local " if rule.node_port else ""
    end = f'{local}{rule.protocol} dport {rule.port} accept comment "{_comment(rule.reason)}"'
    if rule.sources is None:
        return [f"    {end}"]
    return [
        f"    {family} saddr {{ {', '.join(sources)} }} {end}"
        for family in ("ip", "ip6")
        if (sources := _family(rule.sources, family))
    ]


def _comment(text: str) -> str:
    """nftables takes 128 bytes, and no quotation mark."""
    return text.replace('"', "'").replace("\n", " ").encode()[:120].decode(errors="ignore")


def _family(sources: Iterable[str], family: str) -> list[str]:
    return [source for source in sources if (":" in source) == (family == "ip6")]


def _of(wanted: Wanted, role: str) -> tuple[str, ...]:
    """Addresses of all hosts with a role, smallest first."""
    found = {address for host, has in wanted.roles.items() if getattr(has, role) for address in wanted.addresses[host]}
    return _unique(sorted(found, key=lambda address: (":" in address, ipaddress.ip_address(address).packed)))


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    """Without repetitions and without what a network in the list holds already: nftables takes no overlaps."""
    texts = list(dict.fromkeys(addresses))
    networks = {text: _network(text) for text in texts}
    return tuple(
        text
        for text in texts
        if not any(
            other != text and (inner := networks[text]) and (outer := networks[other]) and _within(inner, outer)
            for other in texts
        )
    )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _within(
    inner: ipaddress.IPv4Network | ipaddress.IPv6Network, outer: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    same = inner.version == outer.version
    return same and inner.prefixlen >= outer.prefixlen and inner.network_address in outer
