"""The rules follow from the hosts' roles and the plan, and cannot lock out who loads them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heteroserve.hosts.firewall import Opening, Role, Rule, Wanted, faults, rules, ruleset

ROLES = {
    "s1": Role(server=True, node=True),
    "s2": Role(server=True, node=True),
    "s3": Role(server=True, node=True),
    "a1": Role(node=True),
    "g1": Role(gateway=True),
    "m1": Role(monitoring=True),
}
ADDRESSES = {host: (f"10.0.0.{number}",) for number, host in enumerate(ROLES, 1)}
NODES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
CELL = {"name": "llama-1", "ports": {"serve": 30000, "dashboard": 30001}}


def wanted(host: str, **others: object) -> Wanted:
    base = Wanted(
        host=host, roles=ROLES, addresses=ADDRESSES, ssh_port=22, client="10.0.9.9", gateway_port=8080,
        monitored_ports=(9100,), registry_host="s1", registry_port=5000,
        weights_host="s2", weights_ports=(8730, 2049),
    )  # fmt: skip
    return replace(base, **others)  # type: ignore[arg-type]


def by_port(wants: Wanted) -> dict[str, Rule]:
    return {rule.port: rule for rule in rules(wants)}


@pytest.mark.parametrize(
    ("host", "ports"),
    [
        ("s1", {"22", "6443", "2379-2380", "10250", "8472", "9100", "5000"}),
        ("s2", {"22", "6443", "2379-2380", "10250", "8472", "9100", "8730", "2049"}),
        ("a1", {"22", "10250", "8472", "9100"}),
        ("g1", {"22", "8080", "9100"}),
        ("m1", {"22", "9100"}),
    ],
)
def test_a_host_opens_what_its_roles_need(host: str, ports: set[str]) -> None:
    assert set(by_port(wanted(host))) == ports


def test_only_those_who_need_a_port_may_use_it() -> None:
    found = by_port(wanted("s1", admin_sources=("10.5.0.0/16",)))
    assert found["6443"].sources == (*NODES, "10.0.9.9", "10.5.0.0/16", "10.0.0.6")
    assert found["2379-2380"].sources == NODES[:3]
    assert found["10250"].sources == (*NODES, "10.0.0.6")
    assert (found["8472"].sources, found["8472"].protocol) == (NODES, "udp")
    assert found["9100"].sources == ("10.0.0.6",)
    assert found["22"].sources is None


def test_weights_pass_from_host_to_host_among_those_of_the_same_models_only() -> None:
    """In one rule with a set of addresses. The store gives to all nodes."""
    takers = {"weights_takers": ("s1", "s3", "unknown"), "weights_ports": (8730,)}
    assert by_port(wanted("a1", **takers))["8730"].sources == ("10.0.0.1", "10.0.0.3")
    assert by_port(wanted("s2", **takers))["8730"].sources == NODES
    text = ruleset(wanted("a1", **takers)).text
    assert [line for line in text.splitlines() if "dport 8730" in line] == [
        '    ip saddr { 10.0.0.1, 10.0.0.3 } tcp dport 8730 accept comment "weights, for hosts of the same models,'
        ' which may copy them from here"'
    ]


def test_nodes_reach_each_others_images_where_they_share_them() -> None:
    agent, server = by_port(wanted("a1", images_shared=True)), by_port(wanted("s1", images_shared=True))
    assert agent["5001"].sources == agent["6443"].sources == server["5001"].sources == NODES
    assert "10.0.9.9" in (server["6443"].sources or ())
    assert "5001" not in by_port(wanted("g1", images_shared=True))


def test_a_single_server_has_no_etcd_to_share() -> None:
    roles = {host: role for host, role in ROLES.items() if host not in ("s2", "s3")}
    addresses = {host: ADDRESSES[host] for host in roles}
    assert "2379-2380" not in by_port(wanted("s1", roles=roles, addresses=addresses))


def test_a_cells_port_is_open_to_the_gateway_and_its_dashboard_to_monitoring() -> None:
    found = by_port(wanted("a1", cells=(CELL,)))
    assert found["30000"].sources == ("10.0.0.5", "10.0.0.6")
    assert found["30001"].sources == ("10.0.0.6",)
    assert found["30000"].node_port
    assert "llama-1" in found["30000"].reason


def test_gateways_read_gpus_too() -> None:
    assert by_port(wanted("a1", gpu_ports=(9400,)))["9400"].sources == ("10.0.0.6", "10.0.0.5")


def test_monitoring_asks_the_endpoint_where_it_is_not_open_to_all() -> None:
    found = by_port(wanted("g1", client_sources=("10.9.0.0/16",)))
    assert found["8080"].sources == ("10.9.0.0/16", "10.0.0.6")
    assert by_port(wanted("g1"))["8080"].sources is None


def test_without_monitoring_nothing_is_open_to_it() -> None:
    roles = {host: role for host, role in ROLES.items() if host != "m1"}
    addresses = {host: ADDRESSES[host] for host in roles}
    assert not {"9100", "30001"} & set(by_port(wanted("a1", roles=roles, addresses=addresses, cells=(CELL,))))


def test_node_ports_are_decided_before_they_are_rewritten() -> None:
    text = ruleset(wanted("a1", cells=(CELL,))).text
    before, _, after = text.partition("chain input")
    assert "hook prerouting priority mangle" in before
    assert before.index("tcp dport 30000 accept") < before.index("th dport 30000-32767 drop")
    assert "dport 30000 accept" not in after
    assert "policy drop" in after


def test_a_cell_without_a_pod_is_refused_at_once() -> None:
    """Before kube-proxy's chain, which answers with ICMP, or not at all, and has a gateway wait for its time-out."""
    reject = "tcp dport 30000-32767 reject with tcp reset"
    _, _, after = ruleset(wanted("a1", cells=(CELL,))).text.partition("chain input")
    assert "priority filter - 1" in after
    assert reject in after
    assert reject not in ruleset(wanted("a1")).text


def test_pods_are_reached_from_outside_by_their_node_ports_alone() -> None:
    tunnelled = ruleset(wanted("a1")).text
    assert "ip daddr { 10.42.0.0/16, 10.43.0.0/16 } drop" in tunnelled
    assert "saddr { 10.42.0.0/16" not in tunnelled
    routed = ruleset(wanted("a1", pods_routed=True)).text
    line = "ip saddr { 10.42.0.0/16, 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 } ip daddr { 10.42.0.0/16, 10.43.0.0/16 }"
    assert routed.index(line) < routed.index("ip daddr { 10.42.0.0/16, 10.43.0.0/16 } drop")
    assert "8472" not in routed


def test_a_host_that_is_no_node_has_no_pods() -> None:
    text = ruleset(wanted("g1")).text
    assert "prerouting" not in text
    assert "cni0" not in text


def test_every_rule_says_why() -> None:
    text = ruleset(wanted("s1", cells=(CELL,), weights_host="s1", weights_ports=(2049,))).text
    accepted = [line for line in text.splitlines() if "dport" in line]
    assert accepted
    assert all('comment "' in line for line in accepted)


def test_both_families_have_their_own_lines() -> None:
    text = ruleset(wanted("s1", admin_sources=("fd00::/8",))).text
    assert 'ip6 saddr { fd00::/8 } tcp dport 6443 accept comment "' in text


def test_a_network_swallows_its_addresses_because_nftables_takes_no_overlaps() -> None:
    found = by_port(wanted("s1", admin_sources=("10.0.0.0/24", "10.0.9.9")))
    assert found["6443"].sources == ("10.0.9.9", "10.0.0.0/24")


def test_the_same_hosts_give_the_same_file_and_others_another() -> None:
    first = ruleset(wanted("s1"))
    again = ruleset(wanted("s1", roles=dict(reversed(ROLES.items())), addresses=dict(reversed(ADDRESSES.items()))))
    assert again.text == first.text
    assert first.digest in first.text
    assert ruleset(wanted("s1", gateway_port=1, client="10.0.9.8")).digest != first.digest


def test_the_port_of_ansible_is_kept() -> None:
    assert by_port(wanted("a1", ssh_port=2222))["2222"].reason == "SSH"


def test_who_loads_the_rules_is_not_locked_out() -> None:
    (fault,) = faults(wanted("a1", ssh_sources=("10.1.0.0/16",)))
    assert "10.0.9.9, from where Ansible is connected, is not in it" in fault
    assert faults(wanted("a1", ssh_sources=("10.0.9.0/24",))) == []
    assert by_port(wanted("a1", ssh_sources=("10.0.9.0/24",)))["22"].sources == ("10.0.9.0/24",)


def test_what_is_no_address_is_named() -> None:
    (fault,) = faults(wanted("a1", client_sources=("office",)))
    assert fault.startswith("host_prep_client_sources: office is no address")


def test_further_ports() -> None:
    page = Opening(443, "the chat page")
    cell = Opening(30500, "a service of ours", sources=("10.8.0.1",))
    found = by_port(wanted("a1", openings=(page, cell)))
    assert found["443"].sources is None
    assert (found["30500"].sources, found["30500"].node_port) == (("10.8.0.1",), True)


def test_a_reason_cannot_end_its_comment() -> None:
    text = ruleset(wanted("a1", openings=(Opening(1, 'x" accept; "' + "ä" * 200),))).text
    (line,) = [line for line in text.splitlines() if "dport 1 " in line]
    assert line.count('"') == 2
    assert len(line.partition('"')[2].encode()) <= 122
