"""What a host is set to follows from its part and its cells; what was there before can be put back."""

from __future__ import annotations

from typing import Any

import pytest
from heteroserve.hosts.tuning import (
    GOVERNORS,
    HARDENING,
    MODULES,
    NUMA_BALANCING,
    THP,
    Setting,
    change,
    chosen,
    modules_to_load,
    tuning,
)


def cell(vendor: str, host: str = "h", numa_node: int | None = None) -> dict[str, Any]:
    return {"name": f"{vendor}-1", "vendor": vendor, "replicas": [{"hosts": [host], "numa_node": numa_node}]}


def values(*cells: dict[str, Any], node: bool = True, **others: Any) -> dict[str, str]:
    return {item.key: item.value for item in tuning("h", node, list(cells), **others).settings}


def test_every_node_follows_the_hardening_guide() -> None:
    found = values()
    assert HARDENING.items() <= found.items()
    assert not {THP, GOVERNORS, NUMA_BALANCING} & set(found)
    assert values(node=False) == {}


@pytest.mark.parametrize(
    ("cells", "pages", "governor", "balancing", "memlock"),
    [
        ((cell("cpu"),), True, True, False, False),
        ((cell("cpu", numa_node=1),), True, True, True, False),
        ((cell("cpu", "other", numa_node=1),), True, True, False, False),
        ((cell("nvidia"),), False, True, False, True),
        ((cell("amd"),), False, True, True, True),
        ((cell("cpu"), cell("nvidia")), True, True, False, True),
    ],
)
def test_cells_decide(cells: Any, pages: bool, governor: bool, balancing: bool, memlock: bool) -> None:
    found = values(*cells)
    assert (THP in found, GOVERNORS in found, NUMA_BALANCING in found) == (pages, governor, balancing)
    assert tuning("h", True, list(cells)).memlock == memlock


def test_the_inventory_wins() -> None:
    found = values(cell("cpu"), governor="none", huge_pages=64, extra={"vm.swappiness": 1, "kernel.panic": 20})
    assert GOVERNORS not in found
    assert found["vm.nr_hugepages"] == "64"
    assert found["vm.swappiness"] == "1"
    assert found["kernel.panic"] == "20"
    assert values(cell("cpu"), governor="schedutil")[GOVERNORS] == "schedutil"


def test_a_limit_that_is_higher_already_stays() -> None:
    key = "fs.inotify.max_user_watches"
    assert values(now={key: 10**6})[key] == "1000000"
    assert values(now={key: 10**6}) == values(now={key: int(values(now={key: 10**6})[key])})
    assert values(now={key: 1})[key] == "524288"


def test_each_setting_says_why() -> None:
    assert all(item.reason for item in tuning("h", True, [cell("cpu", numa_node=0), cell("amd")]).settings)


def test_where_a_value_is() -> None:
    assert Setting("vm.panic_on_oom", "0", "").path == "/proc/sys/vm/panic_on_oom"
    assert Setting("net.ipv4.conf.eth0/100.rp_filter", "0", "").path == "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
    assert Setting(THP, "madvise", "").path == THP


@pytest.mark.parametrize(
    ("text", "value"),
    [("always [madvise] never\n", "madvise"), ("10\n", "10"), ("4096\t87380\t6291456\n", "4096 87380 6291456")],
)
def test_the_value_of_a_file(text: str, value: str) -> None:
    assert chosen(text) == value


def test_only_what_is_not_built_in_is_loaded() -> None:
    assert modules_to_load(lambda path: True, frozenset()) == ()
    assert modules_to_load(lambda path: True, frozenset({"overlay", "ext4"})) == ("overlay",)
    assert modules_to_load(lambda path: path != MODULES["br_netfilter"], frozenset()) == ("br_netfilter",)


def test_a_change_remembers_what_was_before() -> None:
    first = change({"/a": "1", "/b": "2", "/none": "3"}, {"/a": "0", "/b": "2"}, {})
    assert first.write == {"/a": "1"}
    assert first.record == {"/a": "0"}


def test_a_second_run_changes_nothing() -> None:
    again = change({"/a": "1"}, {"/a": "1"}, {"/a": "0"})
    assert again.write == {}
    assert again.record == {"/a": "0"}


def test_a_value_that_someone_changed_is_set_again_and_the_first_one_remembered() -> None:
    again = change({"/a": "1"}, {"/a": "7"}, {"/a": "0"})
    assert again.write == {"/a": "1"}
    assert again.record == {"/a": "0"}


def test_what_is_wanted_no_longer_goes_back() -> None:
    back = change({"/b": "2"}, {"/a": "1", "/b": "2"}, {"/a": "0", "/b": "9"})
    assert back.write == {"/a": "0"}
    assert back.record == {"/b": "9"}
    assert change({}, {"/a": "0"}, {"/a": "0"}).write == {}
