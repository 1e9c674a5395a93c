"""Weights reach every host in few waves, and no host gives them to more than it is asked to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from heteroserve.models.spread import FEW, LONGEST_S, Copy, Limits, Wave, Weights, next_wave, seconds, takers

from python_plugins.filter.weights_takers import weights_takers
from python_plugins.filter.weights_wave import weights_wave

GB = 1_000_000_000


def hosts(number: int, first: int = 1) -> tuple[str, ...]:
    return tuple(f"h{index:03}" for index in range(first, first + number))


def limits(**changes: object) -> Limits:
    return Limits(**{"store": "store", "fanout": 4, "streams": 2, **changes})  # type: ignore[arg-type]


def waves(weights: Iterable[Weights], bounds: Limits, lost: Iterable[str] = ()) -> list[Wave]:
    """All waves until nobody lacks anything; hosts in ``lost`` fail in the wave in which they copy."""
    kept, found, done = list(weights), [], ()
    while (wave := next_wave(kept, done, bounds)).copies:
        assert len(found) < 50
        found.append(wave)
        failed = {copy.host for copy in wave.copies} & set(lost)
        done = tuple(copy for copy in (*done, *wave.copies) if copy.host not in failed)
        kept = [
            Weights(item.name, item.size, tuple(set(item.lacking) - failed), tuple(set(item.whole) - failed))
            for item in kept
        ]
    return found


def copies(found: list[Wave]) -> list[Copy]:
    return [copy for wave in found for copy in wave.copies]


@pytest.mark.parametrize(
    ("number", "streams", "fanout", "sizes"),
    [
        (12, 1, 3, [1, 2, 4, 5]),
        (12, 2, 4, [2, 6, 4]),
        (12, 3, 3, [3, 9]),
        (40, 2, 4, [2, 6, 16, 16]),
        (300, 2, 4, [2, 6, 16, 44, 120, 112]),
        (5, 1, 1, [1, 1, 1, 1, 1]),  # a chain
    ],
)
def test_each_wave_has_more_sources(number: int, streams: int, fanout: int, sizes: list[int]) -> None:
    found = waves([Weights("m", GB, hosts(number))], limits(streams=streams, fanout=fanout))
    assert [len(wave.copies) for wave in found] == sizes
    assert sorted(copy.host for copy in copies(found)) == list(hosts(number))
    given = Counter(copy.source for copy in copies(found))
    assert max(given.values()) <= fanout
    for wave in found:
        assert max(Counter(copy.source for copy in wave.copies).values()) <= streams


def test_only_who_has_weights_gives_them() -> None:
    has = {"store"}
    for wave in waves([Weights("m", GB, hosts(40))], limits()):
        assert {copy.source for copy in wave.copies} <= has
        has |= {copy.host for copy in wave.copies}


@pytest.mark.parametrize("number", range(1, FEW + 1))
def test_few_hosts_need_no_tree(number: int) -> None:
    (wave,) = waves([Weights("m", GB, hosts(number))], limits(streams=1))
    assert {copy.source for copy in wave.copies} == {"store"}
    assert wave.why.endswith("too few for a tree")
    assert wave.relays("store") == ()


def test_one_host_more_is_served_by_the_store_though_others_have_all() -> None:
    (wave,) = waves([Weights("m", GB, ("h013",), hosts(12))], limits())
    assert wave.copies == (Copy("m", "h013", "store"),)


def test_hosts_that_have_weights_already_give_them_too() -> None:
    wave = next_wave([Weights("m", GB, hosts(6, first=10), hosts(5))], (), limits(streams=1))
    assert len(wave.copies) == 6
    assert set(wave.relays("store")) == set(hosts(5))


def test_without_a_fanout_the_store_gives_to_all_as_many_at_once_as_it_may() -> None:
    (wave,) = waves([Weights("m", GB, hosts(12))], limits(fanout=0, streams=8))
    assert {copy.source for copy in wave.copies} == {"store"}
    assert (len(wave.copies), wave.at_once) == (12, 8)


def test_nobody_lacks_anything() -> None:
    wave = next_wave([Weights("m", GB, (), hosts(12))], (), limits())
    assert (wave.copies, wave.why) == ((), "every host has its weights")


def test_models_of_different_hosts_start_together() -> None:
    """The store's two places go to two models, not to the larger one alone."""
    large, small = Weights("large", 9 * GB, hosts(6)), Weights("small", GB, hosts(6, first=7))
    found = waves([large, small], limits())
    assert Counter(copy.name for copy in found[0].copies) == {"large": 1, "small": 1}
    for copy in copies(found):
        assert copy.source == "store" or (copy.source in large.lacking) == (copy.name == "large")


def test_an_adapter_comes_along_with_its_model() -> None:
    """From the same host in the same wave, so that it needs no wave of its own."""
    found = waves([Weights("m", GB, hosts(12)), Weights("adapter", GB // 100, hosts(12))], limits())
    assert [len(wave.copies) for wave in found] == [4, 12, 8]
    assert all(len(set(wave.to(copy.host).values())) == 1 for wave in found for copy in wave.copies)


def test_a_host_that_fails_gives_nothing_and_the_others_get_all() -> None:
    found = waves([Weights("m", GB, hosts(20))], limits(), lost=("h001", "h006"))
    assert {copy.host for copy in copies(found)} == set(hosts(20))
    assert not {"h001", "h006"} & {copy.source for copy in copies(found)}


def test_even_if_all_of_the_first_wave_fail_the_store_goes_on() -> None:
    found = waves([Weights("m", GB, hosts(8))], limits(), lost=("h001", "h002"))
    assert {copy.source for copy in found[1].copies} == {"store"}


def test_a_wave_is_no_larger_than_ansible_can_run() -> None:
    found = waves([Weights("m", GB, hosts(40))], limits(most=5))
    assert max(len({copy.host for copy in wave.copies}) for wave in found) == 5


def test_racks_are_reached_first_and_then_copy_within() -> None:
    racks = {host: f"rack-{index % 3}" for index, host in enumerate(hosts(30))}
    found = waves([Weights("m", GB, hosts(30))], limits(streams=3, fanout=3, racks=racks))
    assert {racks[copy.host] for copy in found[0].copies} == {"rack-0", "rack-1", "rack-2"}
    between = [copy for copy in copies(found) if racks.get(copy.source) != racks[copy.host]]
    assert len(between) == 3


def test_a_wave_says_why() -> None:
    found = waves([Weights("m", GB, hosts(12))], limits())
    assert [wave.why for wave in found] == [
        "1 host gives to 2; 10 wait for the next wave",
        "3 hosts give to 6; 4 wait for the next wave",
        "4 hosts give to 4; 0 wait for the next wave",
    ]


def test_an_offer_that_nobody_ends_ends_by_itself() -> None:
    wave = Wave((Copy("m", "b", "a"), Copy("m", "c", "a"), Copy("n", "d", "e")), "")
    assert seconds(wave, "a", {"m": 2 * GB, "n": 7}) == 600 + 4000
    assert seconds(wave, "a", {"m": 900 * GB, "n": 7}) == LONGEST_S


CELLS = [
    {"model": "m", "hosts": ["h001", "h002"]},
    {"model": "m", "hosts": ["h003"]},
    {"model": "n", "hosts": ["h003", "h004"]},
    {"model": "o", "hosts": ["h005", "store"]},
]


def test_only_hosts_that_serve_the_same_models_copy_from_each_other() -> None:
    assert takers("h001", CELLS, "store", 4) == ("h002", "h003")
    assert takers("h003", CELLS, "store", 4) == ("h001", "h002", "h004")
    assert takers("h005", CELLS, "store", 4) == ()
    assert takers("store", CELLS, "store", 4) == ()
    assert takers("h001", CELLS, "store", 0) == ()
    assert takers("h001", CELLS[:2], "store", 4) == ()  # too few for a tree
    assert weights_takers(CELLS, "h001", "store", "4") == ["h002", "h003"]  # type: ignore[arg-type]


def test_takers_are_all_whom_a_wave_may_send_to_a_host() -> None:
    found = waves([Weights("m", GB, ("h001", "h002", "h003")), Weights("n", GB, ("h003", "h004"))], limits(streams=1))
    for copy in copies(found):
        assert copy.source == "store" or copy.host in takers(copy.source, CELLS, "store", 4)


def looked(
    lacks: Iterable[str], whole: Iterable[str] = (), own: Iterable[str] = ()
) -> dict[str, list[dict[str, object]]]:
    """What the module says: own weights are neither lacking nor to be given."""
    said = dict.fromkeys(lacks, (True, False)) | dict.fromkeys(whole, (False, True))
    said |= dict.fromkeys(own, (False, False))
    return {
        host: [{"item": {"name": "m"}, "bytes": 2 * GB, "lacks": lack, "whole": good}]
        for host, (lack, good) in said.items()
    }


def test_the_filter_returns_what_the_role_prints() -> None:
    found = looked(hosts(4), whole=["h009"], own=["h010"])
    wave = weights_wave(found, [], "store", 4, 1, 20)
    assert wave["copies"] == {"h001": {"m": "h009"}, "h002": {"m": "store"}}
    assert wave["relays"] == {"h009": {"names": ["m"], "clients": ["h001"], "seconds": 600 + 2000}}
    second = weights_wave(found, wave["done"], "store", 4, 1, 20)
    assert set(second["copies"]) == {"h003", "h004"}
    assert "h010" not in second["relays"]
    assert weights_wave(found, second["done"], "store", 4, 1, 20)["copies"] == {}


def test_a_host_that_left_the_run_is_no_source() -> None:
    found = looked(hosts(8))
    wave = weights_wave(found, [], "store", 4, 2, 20)
    del found["h001"]
    second = weights_wave(found, wave["done"], "store", 4, 2, 20)
    assert "h001" not in second["relays"]
    assert "h001" not in second["copies"]
    assert second["relays"]
