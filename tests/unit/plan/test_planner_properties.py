"""What holds for every plan, whatever the hosts and models."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from heteroserve.facts.accelerators import CARDS
from heteroserve.plan.bays import shape_of_host, usable_ram
from heteroserve.plan.fit import fits, want
from heteroserve.plan.model_cards import MODEL_CARDS
from heteroserve.plan.planner import HostEntry, ModelRequest, PlanOptions
from heteroserve.plan.schema import Plan, plan_from_json, plan_to_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.plan.estate import DECLARED, host, model, plan_of, replicas_of, total

settings.register_profile("plan", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plan")

ESTATES = st.lists(st.sampled_from(sorted(DECLARED)), min_size=1, max_size=7).map(
    lambda kinds: {f"{kind}-{number}": host(kind) for number, kind in enumerate(kinds)}
)


@st.composite
def models(draw: st.DrawFn, most: int = 5) -> tuple[ModelRequest, ...]:
    """Distinct cards with wishes."""
    cards = draw(st.lists(st.sampled_from(sorted(MODEL_CARDS)), min_size=1, max_size=most, unique=True))
    out = []
    for card in cards:
        least = draw(st.sampled_from((0, 1, 1, 1, 2)))
        wishes = {
            "share": draw(st.sampled_from((0.5, 1.0, 2.0))),
            "min_replicas": least,
            "max_replicas": draw(st.sampled_from((None, None, max(1, least), 3))),
            "cpu": draw(st.sampled_from((None, None, False))),
            "tensor_parallel_size": draw(st.sampled_from((None, None, None, 1))),
            "quantization": draw(st.sampled_from((None, None, "fp8"))),
        }
        out.append(model(card, **wishes))
    return tuple(out)


def check_memory(plan: Plan, given_hosts: dict[str, HostEntry]) -> None:
    """Nothing is taken twice, nothing is larger than what it lies in."""
    known = {item.name: item for item in plan.models}
    ram: dict[str, float] = defaultdict(float)
    taken: set[tuple[str, int]] = set()
    cores: dict[str, int] = defaultdict(int)
    seats: set[tuple[str, int | None, int]] = set()
    for cell in plan.cells:
        for one in cell.replicas:
            first = one.first_core or 0
            seat = {(one.hosts[0], one.numa_node, core) for core in range(first, first + one.cores)}
            assert not seat & seats
            seats |= seat
            for number, name in enumerate(one.hosts):
                ram[name] += cell.limits.host_memory_bytes / len(one.hosts)
                cores[name] += one.cores
                devices = one.devices[number] if one.devices else ()
                assert not {(name, index) for index in devices} & taken
                taken |= {(name, index) for index in devices}
                by_index = {item.index: item for item in given_hosts[name].hardware.accelerators}
                assert {by_index[index].kind for index in devices} <= {cell.accelerator}
            size = sum(len(devices) for devices in one.devices)
            if size:
                memory = CARDS[cell.accelerator].memory * size
                assert cell.limits.memory_bytes <= memory
                assert known[cell.model].weight_bytes + cell.limits.kv_cache_bytes <= cell.limits.memory_bytes
        assert cell.limits.kv_cache_tokens >= cell.limits.max_model_len
    for name, used in ram.items():
        assert used <= usable_ram(given_hosts[name], PlanOptions(), ours=True)[0]
        assert cores[name] <= given_hosts[name].hardware.cpu.cores


@given(ESTATES, models())
def test_never_over_memory_and_nothing_twice(estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]) -> None:
    check_memory(plan_of(estate, *wanted), estate)


@given(ESTATES, models())
def test_a_pool_has_one_vendor_kind_engine_and_size(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]
) -> None:
    plan = plan_of(estate, *wanted)
    kinds: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for cell in plan.cells:
        own = (cell.model, cell.vendor, cell.accelerator, cell.engine, str(cell.tensor_parallel_size))
        kinds[cell.pool].add(own)
    assert all(len(found) == 1 for found in kinds.values())
    assert {pool.name for pool in plan.pools} == set(kinds)


@given(ESTATES, models())
def test_several_hosts_only_where_no_single_one_can_hold_it(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]
) -> None:
    requests = {item.name: item for item in wanted}
    options = PlanOptions()
    for cell in plan_of(estate, *wanted).cells:
        if len(cell.hosts) > 1:
            request = requests[cell.model]
            item = want(request, MODEL_CARDS[request.card or ""])
            for entry in estate.values():
                assert not fits(item, shape_of_host(entry, options, 1, True), options)[0]


@given(ESTATES, models(), st.randoms(use_true_random=False))
def test_order_of_hosts_and_models_does_not_matter(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...], random: object
) -> None:
    shuffled_hosts, shuffled_models = list(estate.items()), list(wanted)
    random.shuffle(shuffled_hosts)  # type: ignore[attr-defined]
    random.shuffle(shuffled_models)  # type: ignore[attr-defined]
    first = plan_to_json(plan_of(estate, *wanted))
    assert first == plan_to_json(plan_of(dict(shuffled_hosts), *shuffled_models))


@given(ESTATES, models())
def test_planning_again_changes_nothing(estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]) -> None:
    plan = plan_of(estate, *wanted)
    text = plan_to_json(plan)
    assert plan_from_json(text) == plan
    assert plan_to_json(plan_of(estate, *wanted, previous=plan)) == text


@given(ESTATES, models(), st.sampled_from(sorted(DECLARED)))
def test_a_host_more_never_lowers_the_total(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...], kind: str
) -> None:
    before = plan_of(estate, *wanted)
    after = plan_of({**estate, "zz-new": host(kind)}, *wanted, previous=before)
    if before.unplaced != after.unplaced:
        return  # a model that had no place now has one, for which others may give way
    assert total(after) >= total(before) - 0.5
    old = {cell.name: cell.digest for cell in before.cells}
    new = {cell.name: cell.digest for cell in after.cells}
    assert old.items() <= new.items(), "running cells were touched"


def spans_hosts(plan: Plan) -> bool:
    """Whether a cell is carried by several hosts, which is done only for what no single one could hold."""
    return any(len(cell.hosts) > 1 for cell in plan.cells)


@given(ESTATES, models(most=1), st.sampled_from(sorted(DECLARED)))
def test_a_host_more_never_lowers_the_total_of_a_fresh_plan(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...], kind: str
) -> None:
    # Under max_replicas the planner takes the most economical hosts, not the fastest.
    free = [replace(item, max_replicas=None) for item in wanted]
    before, after = plan_of(estate, *free), plan_of({**estate, "zz-new": host(kind)}, *free)
    if spans_hosts(before) and not spans_hosts(after):
        return  # the new host holds alone what others were joined for, so they are not joined any more
    assert total(after) >= total(before) - 0.5


@given(ESTATES, models(), st.integers(0, 6))
def test_a_host_less_moves_only_what_was_on_it(
    estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...], index: int
) -> None:
    before = plan_of(estate, *wanted)
    gone = sorted(estate)[index % len(estate)]
    left = {name: entry for name, entry in estate.items() if name != gone}
    after = plan_of(left, *wanted, previous=before)
    lost = {cell.model for cell in before.cells if gone in cell.hosts}
    if any(replicas_of(before, name) and cell_count(before, name, gone) == 0 for name in lost):
        return  # a model lost all it had: others give way to it
    if after.unplaced != before.unplaced:
        return
    new = {cell.name: cell.digest for cell in after.cells}
    for cell in before.cells:
        if gone not in cell.hosts:
            assert new.get(cell.name) == cell.digest


def cell_count(plan: Plan, name: str, without: str) -> int:
    """Cells of a model elsewhere than on one host."""
    return sum(cell.model == name and without not in cell.hosts for cell in plan.cells)


@given(
    st.integers(1, 6),
    st.lists(st.sampled_from((0.5, 1.0, 2.0, 3.0)), min_size=2, max_size=4),
)
def test_shares_are_kept_within_one_replica(count: int, shares: list[float]) -> None:
    estate = {f"h{number}": host("h100") for number in range(count)}
    names = [f"m{number}" for number in range(len(shares))]
    wanted = [
        model("llama-3.1-8b", name, share=share, tensor_parallel_size=1, min_replicas=0)
        for name, share in zip(names, shares, strict=True)
    ]
    plan = plan_of(estate, *wanted)
    have = [replicas_of(plan, name) for name in names]
    assert sum(have) == 8 * count
    for mine, my_share in zip(have, shares, strict=True):
        for other, other_share in zip(have, shares, strict=True):
            assert (other - 1) / other_share <= mine / my_share + 1e-9


@given(ESTATES, models())
def test_names_ports_and_reasons(estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]) -> None:
    for runtime in ("k3s", "ray"):
        plan = plan_of(estate, *wanted, runtime=runtime)
        names = [cell.name for cell in plan.cells]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?", name) for name in names)
        ports: dict[str, list[int]] = defaultdict(list)
        for cell in plan.cells:
            assert 1 <= cell.weight <= 256
            for name in cell.hosts:
                own = [value for key, value in cell.ports.items() if not key.startswith(("replica_", "worker_"))]
                for kind in ("replica", "worker") if runtime == "ray" else ():
                    own += range(cell.ports[f"{kind}_min"], cell.ports[f"{kind}_max"] + 1)
                ports[name] += own
        assert all(len(set(own)) == len(own) for own in ports.values())
        busy = {name for cell in plan.cells for name in cell.hosts}
        explained = {reason.subject for reason in plan.reasons}
        assert set(estate) - busy <= explained
        assert set(plan.unplaced) <= explained
        for item in wanted:
            have = replicas_of(plan, item.name)
            assert have >= item.min_replicas or item.name in explained
            assert item.max_replicas is None or have <= item.max_replicas
        for reason in plan.reasons:
            assert reason.text
            assert "\n" not in reason.text


@given(ESTATES, models())
def test_a_pool_of_several_hosts_has_two_cells(estate: dict[str, HostEntry], wanted: tuple[ModelRequest, ...]) -> None:
    plan = plan_of(estate, *wanted)
    for pool in plan.pools:
        cells = [cell for cell in plan.cells if cell.pool == pool.name]
        if pool.replicas > 1:
            assert len(cells) > 1
