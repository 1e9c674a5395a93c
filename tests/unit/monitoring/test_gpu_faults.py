"""Which faults mean a broken GPU, whose cell is on it, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heteroserve.monitoring.exposition import parse
from heteroserve.monitoring.gpu_faults import Fault, Gateway, Record, Step, cells_of, decide, faults

NOW = 1000.0


def cell(name: str, host: str, devices: list[int], model: str = "llama") -> dict[str, Any]:
    replicas = [{"hosts": [host], "devices": [devices]}]
    return {"name": name, "model": model, "vendor": "nvidia", "hosts": [host], "replicas": replicas}


PLAN = {"runtime": "ray", "cells": [cell("llama-0", "gpu-1", [0, 1]), cell("llama-1", "gpu-2", [0, 1])]}
XID = Fault("gpu-1", "1", "xid", 79, "XID 79: it has fallen off the bus")
BOTH = Gateway(frozenset({"llama-0", "llama-1"}), frozenset())
OUT = Gateway(frozenset({"llama-1"}), frozenset({"llama-0"}))
DRAINED = Record("llama-0", (XID,), "drained", NOW)


def step(
    before: tuple[Record, ...] = (),
    shown: tuple[Fault, ...] = (),
    silent: frozenset[str] = frozenset(),
    gateway: Gateway = BOTH,
    drains: bool = True,
) -> Step:
    return decide(before, shown, silent, gateway, PLAN, drains, NOW)


def test_faults_that_mean_a_broken_gpu() -> None:
    text = """
DCGM_FI_DEV_XID_ERRORS{gpu="0",pod="llama-0-x2x9k-head-7cqjd"} 79
DCGM_FI_DEV_XID_ERRORS{gpu="1"} 31
DCGM_FI_DEV_XID_ERRORS{gpu="2"} 0
DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu="3"} 2
DCGM_FI_DEV_ROW_REMAP_FAILURE{gpu="4"} 1
DCGM_FI_DEV_GPU_TEMP{gpu="4"} 99
"""
    found = {fault.gpu: fault for fault in faults("gpu-1", parse(text))}
    assert {gpu: fault.kind for gpu, fault in found.items()} == {"0": "xid", "3": "ecc", "4": "remap"}
    assert found["0"].pod == "llama-0-x2x9k-head-7cqjd"
    assert found["0"].text == "XID 79: it has fallen off the bus"
    amd = parse('gpu_health{gpu_id="2",pod=""} 0\ngpu_health{gpu_id="3"} 1')
    assert [(fault.gpu, fault.kind) for fault in faults("amd-1", amd)] == [("2", "health")]


def test_the_cell_on_a_gpu() -> None:
    assert cells_of(XID, PLAN) == ["llama-0"]
    assert cells_of(replace(XID, gpu="7"), PLAN) == []
    assert cells_of(replace(XID, host="gpu-2"), PLAN) == ["llama-1"]


def test_under_k3s_the_pod_says_whose_a_gpu_is() -> None:
    plan = {"runtime": "k3s", "cells": [cell("a", "gpu-1", [0]), cell("a-b", "gpu-1", [1])]}
    assert cells_of(replace(XID, pod="a-b-x2x9k-head-7cqjd"), plan) == ["a-b"]
    assert cells_of(replace(XID, pod="a-x2x9k-head-7cqjd"), plan) == ["a"]
    assert cells_of(replace(XID, pod="something-else"), plan) == []
    assert cells_of(XID, plan) == []  # one of two, nobody knows which
    assert cells_of(XID, {"runtime": "k3s", "cells": plan["cells"][:1]}) == ["a"]


def test_a_cell_on_a_broken_gpu_is_drained() -> None:
    found = step(shown=(XID,))
    assert found.drain == ("llama-0",)
    assert found.records == (DRAINED,)
    assert "GPU 1 of gpu-1 is broken (XID 79: it has fallen off the bus): llama-0 gets no requests" in found.said[0]


def test_it_is_told_once() -> None:
    found = step((DRAINED,), (XID,), gateway=OUT)
    assert (found.drain, found.said, found.records) == ((), (), (DRAINED,))


def test_the_last_cell_of_a_model_stays() -> None:
    alone = Gateway(frozenset({"llama-0"}), frozenset())
    found = step(shown=(XID,), gateway=alone)
    assert (found.drain, found.records[0].state) == ((), "kept")
    assert "no other cell of its model answers" in found.said[0]
    later = step(found.records, (XID,))
    assert (later.drain, later.records[0].state) == (("llama-0",), "drained")


def test_two_at_once_leave_one() -> None:
    other = replace(XID, host="gpu-2")
    found = step(shown=(XID, other))
    assert found.drain == ("llama-0",)
    assert {record.cell: record.state for record in found.records} == {"llama-0": "drained", "llama-1": "kept"}


def test_the_inventory_may_want_no_drain() -> None:
    found = step(shown=(XID,), drains=False)
    assert (found.drain, found.records[0].state) == ((), "reported")
    assert "monitoring_gpu_faults is reported" in found.said[0]


def test_a_cell_comes_back_when_the_fault_has_gone() -> None:
    found = step((DRAINED,), gateway=OUT)
    assert (found.ask, found.records) == (("llama-0",), (DRAINED,))
    assert step((DRAINED,)).records == ()  # somebody was quicker


def test_a_silent_exporter_says_nothing() -> None:
    found = step((DRAINED,), silent=frozenset({"gpu-1"}), gateway=OUT)
    assert (found.ask, found.records) == ((), (DRAINED,))


def test_a_person_may_return_it() -> None:
    found = step((DRAINED,), (XID,))
    assert (found.drain, found.records[0].state) == ((), "returned")
    assert "was returned by hand" in found.said[0]
    assert step(found.records, (XID,)).said == ()
    again = step(found.records, (XID, replace(XID, kind="ecc", value=1)))
    assert again.drain == ("llama-0",)


def test_a_cell_that_an_operator_drained_is_recorded_and_left_drained() -> None:
    found = step(shown=(XID,), gateway=OUT)
    assert (found.drain, found.records[0].state) == ((), "drained")


def test_a_cell_that_is_planned_no_more_is_forgotten() -> None:
    assert step((replace(DRAINED, cell="gone"),)).records == ()
