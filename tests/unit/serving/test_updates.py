"""The order of updates: a model goes on answering as long as there is a way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from heteroserve.serving.updates import Decision, Running, Step, Wanted, decide, running_cells
from hypothesis import given
from hypothesis import strategies as st

GPUS = "nvidia.com/gpu"


def wanted(name: str, spec: str = "new", model: str = "m", host: str = "", gpus: int = 0) -> Wanted:
    """A cell of the plan."""
    return Wanted(name, model, spec, {host: {GPUS: gpus}} if host else {})


def runs(
    name: str, spec: str = "old", answering: bool = True, model: str = "m", host: str = "", gpus: int = 0
) -> Running:
    """A cell of the cluster."""
    return Running(name, model, spec, answering, {host: {GPUS: gpus}} if host else {})


def said(decision: Decision) -> list[str]:
    """The steps in short."""
    return [f"{step.action} {step.cell}{' last' if step.last else ''}" for step in decision.steps]


@pytest.mark.parametrize(
    ("goal", "now", "expected"),
    [
        ((wanted("a", "s"),), (runs("a", "s"),), []),
        ((wanted("a"), wanted("b")), (), ["create a", "create b"]),
        ((wanted("a"), wanted("b")), (runs("a"), runs("b")), ["update a", "update b"]),
        # The broken one first: when it answers again, the other may go.
        ((wanted("a"), wanted("b")), (runs("a"), runs("b", answering=False)), ["update b", "update a"]),
        # What adds goes before what takes away.
        ((wanted("a"), wanted("b")), (runs("a"),), ["create b", "update a"]),
        ((wanted("b"),), (runs("a"),), ["create b", "remove a"]),
        # A model that nobody wants any more protects nobody.
        ((), (runs("a"),), ["remove a"]),
        # The only cell of a model cannot be spared while it is updated.
        ((wanted("a"),), (runs("a"),), ["update a last"]),
        # Hardware has to be given back before it can be taken.
        (
            (wanted("b", model="n", host="h", gpus=4),),
            (runs("a", host="h", gpus=4),),
            ["remove a", "create b"],
        ),
        # The model moves to the place of another, which goes first although it is the last of a wanted model.
        (
            (wanted("b", host="h", gpus=4), wanted("c", "s", "n", "g", 1)),
            (runs("a", host="h", gpus=4), runs("c", "s", model="n", host="g", gpus=1)),
            ["remove a last", "create b"],
        ),
        # A cell that shrinks makes room for one that grows.
        (
            (wanted("a", host="h", gpus=6), wanted("b", model="n", host="h", gpus=2)),
            (runs("a", host="h", gpus=4), runs("b", model="n", host="h", gpus=4)),
            ["update b last", "update a last"],
        ),
    ],
)
def test_order(goal: tuple[Wanted, ...], now: tuple[Running, ...], expected: list[str]) -> None:
    assert said(decide(goal, now)) == expected


def test_hardware_that_is_given_back_is_waited_for() -> None:
    goal, now = (wanted("b", host="h", gpus=4),), (runs("a", host="h", gpus=4),)
    assert said(decide(goal, now)) == ["remove a last", "create b"]


def test_only_what_answers_is_drained() -> None:
    decision = decide((wanted("a"), wanted("b"), wanted("c")), (runs("a"), runs("b", answering=False)))
    assert {step.cell: step.drain for step in decision.steps} == {"a": True, "b": False, "c": False}


def test_the_last_answering_cell_is_not_risked_while_others_should_answer_too() -> None:
    decision = decide((wanted("a"), wanted("b", "s")), (runs("a"), runs("b", "s", answering=False)))
    assert decision.steps == ()
    assert decision.unchanged == ("b",)
    assert decision.refused == (
        "a is the only cell of m that answers and is left as it is, because b should answer too and does not: repair it"
        " first",
    )


def test_what_is_to_go_stays_while_its_successor_does_not_answer() -> None:
    decision = decide((wanted("b", "s"),), (runs("a"), runs("b", "s", answering=False)))
    assert decision.steps == ()
    assert decision.refused[0].startswith("a is the only cell of m that answers and is left as it is")


def test_who_needs_what_is_not_given_back_waits_too() -> None:
    goal = (wanted("a", host="h", gpus=1), wanted("b", "s"), wanted("c", model="n", host="h", gpus=3))
    now = (runs("a", host="h", gpus=4), runs("b", "s", answering=False))
    decision = decide(goal, now)
    assert decision.steps == ()
    assert decision.refused[1] == "c waits for hardware of a, which is left as it is"


def annotations(spec: str, model: str = "meta/llama") -> dict[str, str]:
    return {
        "heteroserve.io/spec": spec,
        "heteroserve.io/model": model,
        "heteroserve.io/takes": json.dumps({"h": {GPUS: 2}}),
    }


def cluster(owner: str, spec: str, made: str, marked: bool = False, **more: str) -> dict[str, object]:
    """A RayCluster; ``marked`` if the pods that it would make carry the digest."""
    labels = {"heteroserve.io/cell": owner}
    metadata = {"name": f"{owner}-x", "labels": labels, "annotations": annotations(spec), "creationTimestamp": made}
    template = {"metadata": {"annotations": annotations(spec)} if marked else {}}
    return {"metadata": {"uid": owner, **metadata, **more}, "spec": {"headGroupSpec": {"template": template}}}


def of_cluster(owner: str, spec: str = "", **more: str) -> dict[str, object]:
    """A pod of a RayCluster, without a digest if it is of an earlier version."""
    owners = [{"controller": True, "uid": owner}]
    marks = {"annotations": annotations(spec, "meta/small")} if spec else {}
    return {"metadata": {"name": f"{owner}-x-head", "ownerReferences": owners, **marks, **more}}


MADE = "2026-11-24T00:00:01Z"


@pytest.mark.parametrize(
    ("made", "pods", "runs_now"),
    [
        pytest.param(cluster("c", "new", MADE, True), [of_cluster("c", "new")], "new", id="as it was applied"),
        pytest.param(
            cluster("c", "new", MADE, True),
            [of_cluster("c", "old")],
            "",
            id="the RayCluster was rewritten by another version of the operator, the pods were kept",
        ),
        pytest.param(
            cluster("c", "new", MADE, True), [of_cluster("c")], "", id="the same, and the pods carry no digest"
        ),
        pytest.param(
            cluster("c", "old", MADE), [of_cluster("c")], "old", id="of a version whose pods carried no digest"
        ),
        pytest.param(
            cluster("c", "new", MADE, True),
            [of_cluster("c", "old"), of_cluster("c", "new")],
            "",
            id="a worker that was made later is of another",
        ),
        pytest.param(cluster("c", "new", MADE, True), [], "new", id="no pod yet"),
        pytest.param(
            cluster("c", "new", MADE, True),
            [of_cluster("before", "old"), of_cluster("c", "old", deletionTimestamp=MADE)],
            "new",
            id="pods that end, and another RayCluster's, say nothing",
        ),
    ],
)
def test_what_runs_is_what_the_pods_were_made_of(
    made: dict[str, object], pods: list[dict[str, object]], runs_now: str
) -> None:
    service = {"metadata": {"name": "c", "annotations": annotations("new")}}
    (found,) = running_cells([service], [made], pods, set())
    assert found.spec == runs_now
    marked = any("annotations" in pod["metadata"] and "deletionTimestamp" not in pod["metadata"] for pod in pods)
    mine = not any(pod["metadata"]["name"].startswith("before") for pod in pods)
    assert found.model == ("meta/small" if marked and mine else "meta/llama")


def test_what_runs_is_what_the_cluster_was_made_from() -> None:
    services = [
        {"metadata": {"name": name, "annotations": annotations("applied")}} for name in ("half", "none", "going")
    ] + [{"metadata": {"name": "strange"}}]
    clusters = [
        cluster("half", "before", "2026-11-24T00:00:01Z"),
        cluster("half", "long before", "2026-11-24T00:00:00Z"),
        cluster("going", "before", "2026-11-24T00:00:00Z", deletionTimestamp="2026-11-24T00:00:09Z"),
    ]
    found = {cell.name: cell for cell in running_cells(services, clusters, [], {"half"})}
    assert {name: cell.spec for name, cell in found.items()} == {
        "half": "before",  # applied, and broken off before the cluster was replaced
        "none": "applied",
        "going": "applied",
        "strange": "",
    }
    assert [name for name, cell in found.items() if cell.answering] == ["half"]
    assert found["half"].model == "meta/llama"
    assert found["half"].takes == {"h": {GPUS: 2}}


NAMES = st.sampled_from([f"c{number}" for number in range(8)])
HOSTS = st.sampled_from(["h1", "h2"])
MODELS = st.sampled_from(["m", "n"])
WANTED = st.lists(
    st.builds(wanted, NAMES, st.sampled_from(["old", "new"]), MODELS, HOSTS, st.integers(1, 4)),
    unique_by=lambda cell: cell.name,
)
RUNNING = st.lists(
    st.builds(runs, NAMES, st.just("old"), st.booleans(), MODELS, HOSTS, st.integers(1, 4)),
    unique_by=lambda cell: cell.name,
)


def down_after(step: Step, answering: dict[str, str]) -> bool:
    """Whether the step leaves its cell's model without an answer."""
    model = answering.get(step.cell)
    return model is not None and list(answering.values()).count(model) == 1


@given(WANTED, RUNNING)
def test_every_cell_is_seen_once_and_outages_are_marked(goal: list[Wanted], now: list[Running]) -> None:
    decision = decide(tuple(goal), tuple(now))
    again = decide(tuple(reversed(goal)), tuple(reversed(now)))
    assert (again.steps, again.refused) == (decision.steps, decision.refused)
    steps = [step.cell for step in decision.steps]
    assert len(steps) == len(set(steps))
    refused = {text.split()[0] for text in decision.refused}
    names = {cell.name for cell in (*goal, *now)}
    assert names == set(steps) | set(decision.unchanged) | refused
    assert len(names) == len(steps) + len(decision.unchanged) + len(refused)
    needed = {cell.model for cell in goal}
    answering = {cell.name: cell.model for cell in now if cell.answering}
    after = {cell.name: cell.model for cell in goal}
    for step in decision.steps:
        assert step.drain == (step.cell in answering)
        assert step.last == (down_after(step, answering) and answering[step.cell] in needed)
        answering.pop(step.cell, None)
        if step.action != "remove":
            answering[step.cell] = after[step.cell]


@given(WANTED, RUNNING)
def test_without_a_fight_for_hardware_two_answering_cells_are_enough(goal: list[Wanted], now: list[Running]) -> None:
    now = [replace(cell, takes={}) for cell in now]
    # Cells that stay of the model that they were, and take nothing from each other.
    models = {cell.name: cell.model for cell in now}
    kept = tuple(Wanted(cell.name, models.get(cell.name, cell.model), cell.spec) for cell in goal)
    decision = decide(kept, tuple(now))
    for step in decision.steps:
        if step.last:
            # Nobody else could have answered: no other cell of the model is wanted, or is there.
            mine = {cell.name for cell in kept if cell.model == step.model} | {
                cell.name for cell in now if cell.answering and cell.model == step.model
            }
            assert mine == {step.cell}
