"""Which interface faces the other hosts: the routes decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heteroserve.facts.hardware import Hardware
from heteroserve.facts.network import Route, choose, parse_addresses, parse_proc_route, parse_route

Replay = Callable[..., Hardware]
TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eno1\t00000000\t0128A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eno2\t00000000\t0129A8C0\t0003\t0\t0\t50\t00000000\t0\t0\t0
ib0\t0001140A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def route_to(target: str, dev: str, source: str, kind: str = "") -> dict[str, Any]:
    extra = f'"type":"{kind}",' if kind else ""
    return {"stdout": f'[{{{extra}"dst":"{target}","dev":"{dev}","prefsrc":"{source}","flags":[]}}]'}


def facing(facts: Hardware) -> list[str]:
    return [nic.name for nic in facts.nics if nic.faces_cluster]


def test_the_route_to_the_others_wins_over_the_default_route(replay: Replay) -> None:
    facts = replay("r760-amx")
    assert (facing(facts), facts.address) == (["ens3f0np0"], "10.20.1.18")
    assert facts.sources["address"] == "route to 10.20.1.12"


def test_without_other_hosts_the_default_route_decides(replay: Replay) -> None:
    facts = replay("r760-amx", peers=())
    assert (facing(facts), facts.address) == (["eno8303"], "192.168.40.21")


def test_the_hosts_own_address_among_the_others_does_not_count(replay: Replay) -> None:
    own = {"ip -j route get 10.20.1.18": route_to("10.20.1.18", "lo", "10.20.1.18", "local")}
    facts = replay("r760-amx", peers=("10.20.1.18", "10.20.1.12"), commands=own)
    assert facing(facts) == ["ens3f0np0"]
    assert facing(replay("r760-amx", peers=("10.20.1.18",), commands=own)) == ["eno8303"]


def test_hosts_behind_several_interfaces_are_a_problem(replay: Replay) -> None:
    other = {"ip -j route get 172.16.0.5": route_to("172.16.0.5", "eno8303", "192.168.40.21")}
    facts = replay("r760-amx", peers=("172.16.0.5", "10.20.1.12", "10.20.1.13"), commands=other)
    assert facing(facts) == ["ens3f0np0"]
    assert [item.text for item in facts.problems if item.code == "several-cluster-interfaces"] == [
        "the other hosts are reached through several interfaces: eno8303 (1), ens3f0np0 (2); ens3f0np0 was chosen"
    ]


def test_names_are_resolved_with_a_time_out(replay: Replay) -> None:
    names = {"getent ahosts gpu2": {"stdout": "10.20.1.12      STREAM gpu2\n10.20.1.12      DGRAM\n"},
             "getent ahosts gone": {"hang": True}}  # fmt: skip
    facts = replay("r760-amx", peers=("gpu2", "gone"), commands=names)
    assert facing(facts) == ["ens3f0np0"]
    assert [item.text for item in facts.problems] == ["no route leads from this host to gone"]


def test_a_bond_shows_what_is_below_it(replay: Replay) -> None:
    bond = next(nic for nic in replay("r7615-cpu").nics if nic.faces_cluster)
    assert (bond.name, bond.speed_mbits, bond.driver, bond.model) == (
        "bond0",
        50000,
        "mlx5_core",
        "NVIDIA ConnectX-6 Dx",
    )
    assert (bond.rdma_device, bond.address) == ("mlx5_bond_0", "10.20.1.17")


def test_without_the_ip_tool_the_kernels_table_decides(replay: Replay) -> None:
    facts = replay("vm-h100", peers=("172.16.0.9",))
    assert (facing(facts), facts.address) == (["eth0"], "172.16.0.2")
    assert facing(replay("vm-h100", peers=())) == ["eth0"]


def test_a_host_without_routes_says_so(replay: Replay) -> None:
    facts = replay("r760-amx", peers=(), commands={"ip -j -4 route show default": {"stdout": "[]"}})
    assert facts.address is None
    assert [item.code for item in facts.problems] == ["no-cluster-interface"]


def test_virtual_functions_and_containers_interfaces_are_left_out(replay: Replay) -> None:
    assert [nic.name for nic in replay("r760-amx").nics] == ["eno8303", "eno8403", "ens3f0np0"]


def test_longest_prefix_then_smallest_metric() -> None:
    assert parse_proc_route(TABLE, "10.20.1.9") == "ib0"
    assert parse_proc_route(TABLE, "8.8.8.8") == "eno2"
    assert parse_proc_route(TABLE.replace("eno2", "tun0", 0).splitlines()[0], "8.8.8.8") is None
    assert parse_proc_route(TABLE, "fd00::1") is None


def test_garbage_is_no_route_and_no_address() -> None:
    for text in ("", "not json", "{}", "[]", "[3]"):
        assert parse_route(text, "x") is None
        assert parse_addresses(text) == {}


def test_a_tie_goes_to_the_first_by_name_in_whatever_order_the_hosts_were_given() -> None:
    """K3s is configured by it, and a changed configuration restarts K3s."""
    routes = [Route("a", "eth1", None), Route("b", "eth0", None)]
    for given in (routes, routes[::-1]):
        chosen, problem = choose(given)
        assert chosen is not None
        assert chosen.interface == "eth0"
        assert problem is not None
