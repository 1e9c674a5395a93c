"""Which GPU faults mean that a GPU is broken, and what is done about the cell on it. Pure functions.

XID errors: NVIDIA's catalogue (docs.nvidia.com/deploy/xid-errors). Those that an application causes itself (13, 31, 43,
45, ...) are none of these: a cell that has one goes on, or dies and is restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .exposition import Sample

XIDS = {
    48: "an uncorrectable memory error",
    62: "its microcontroller has halted",
    64: "a memory error that could not be mapped out",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an uncontained memory error",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) has failed",
    136: "an NVLink that could not be trained",
    140: "an unrecovered memory error",
    143: "it could not be initialised",
}


@dataclass(frozen=True)
class Fault:
    """A broken GPU, as its exporter shows it."""

    host: str
    gpu: str  # index on the host
    kind: str  # "xid" | "ecc" | "remap" | "health"
    value: int
    text: str  # "XID 79: it has fallen off the bus"
    pod: str = ""  # that has the GPU, where the exporter knows it

    @property
    def id(self) -> str:
        """The same as long as it is the same fault."""
        return f"{self.host}/{self.gpu}/{self.kind}/{self.value}"


def faults(host: str, samples: Iterable[Sample]) -> list[Fault]:
    """What DCGM exporter or AMD's device metrics exporter says is broken."""
    found = []
    for sample in samples:
        if (fault := _fault(sample.name, sample.value)) is not None:
            kind, text = fault
            gpu = sample.labels.get("gpu") or sample.labels.get("gpu_id", "")
            pod = sample.labels.get("pod") or sample.labels.get("exported_pod", "")
            found.append(Fault(host, gpu, kind, int(sample.value), text, pod))
    return sorted(found, key=lambda fault: fault.id)


def _fault(name: str, value: float) -> tuple[str, str] | None:
    if name == "DCGM_FI_DEV_XID_ERRORS" and value in XIDS:
        return "xid", f"XID {value:.0f}: {XIDS[int(value)]}"
    if name == "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL" and value > 0:
        return "ecc", f"{value:.0f} uncorrectable memory errors since its driver was loaded"
    if name == "DCGM_FI_DEV_ROW_REMAP_FAILURE" and value > 0:
        return "remap", "a memory row that could not be remapped"
    if name.lower() == "gpu_health" and value == 0:
        return "health", "AMD's exporter finds it unhealthy (GPU_HEALTH 0)"
    return None


def cells_of(fault: Fault, plan: Mapping[str, Any]) -> list[str]:
    """Cells on a GPU: of its pod where that is known, else by the plan.

    Under k3s the device plugin hands out GPUs, and the plan only says how many: a fault without a pod concerns the
    cells of its host if there is one alone, and nobody otherwise.
    """
    names = sorted((cell["name"] for cell in plan["cells"]), key=len, reverse=True)
    if fault.pod:
        return [name for name in names if fault.pod.startswith(f"{name}-")][:1]
    on_host = [
        (cell["name"], devices)
        for cell in plan["cells"]
        if cell["vendor"] != "cpu"
        for replica in cell["replicas"]
        for host, devices in zip(replica["hosts"], replica["devices"], strict=True)
        if host == fault.host
    ]
    if plan["runtime"] == "ray":
        return sorted({name for name, devices in on_host if fault.gpu in map(str, devices)})
    owners = sorted({name for name, _ in on_host})
    return owners if len(owners) == 1 else []


@dataclass(frozen=True)
class Record:
    """What was done about a cell."""

    cell: str
    faults: tuple[Fault, ...]
    # "drained"; "kept": not, as no other cell answers; "reported": not, as the inventory says so; "returned" by a
    # person although the fault is still shown.
    state: str
    since: float  # seconds since 1970

    @property
    def reason(self) -> str:
        """One sentence for status, journal and alert."""
        first = self.faults[0]
        more = f", and {len(self.faults) - 1} more" if len(self.faults) > 1 else ""
        ending = {
            "drained": f"{self.cell} gets no requests until the fault is gone and it answers rightly, or until you"
            f" return it (playbooks/drain.yml -e drain_host={first.host} -e drain_state=absent)",
            "kept": f"{self.cell} still gets requests, because no other cell of its model answers",
            "reported": f"{self.cell} still gets requests, because monitoring_gpu_faults is reported",
            "returned": f"{self.cell} was returned by hand and gets requests",
        }[self.state]
        return f"GPU {first.gpu} of {first.host} is broken ({first.text}{more}): {ending}"


@dataclass(frozen=True)
class Gateway:
    """What the gateway says of cells."""

    answering: frozenset[str]  # up, and given requests
    drained: frozenset[str]


@dataclass(frozen=True)
class Step:
    """What follows from a look at exporters and gateway."""

    records: tuple[Record, ...]
    drain: tuple[str, ...] = ()  # cells to take out now
    ask: tuple[str, ...] = ()  # cells whose fault is gone: returned once they answer rightly
    said: tuple[str, ...] = ()  # sentences for the journal


def decide(
    before: Sequence[Record],
    shown: Sequence[Fault],
    silent: frozenset[str],
    gateway: Gateway,
    plan: Mapping[str, Any],
    drains: bool,
    now: float,
) -> Step:
    """The next step. ``silent`` are hosts whose exporter does not answer: nothing is known of their GPUs."""
    by_cell: dict[str, list[Fault]] = {}
    for fault in shown:
        for name in cells_of(fault, plan):
            by_cell.setdefault(name, []).append(fault)
    models = {cell["name"]: cell["model"] for cell in plan["cells"]}
    hosts = {cell["name"]: set(cell["hosts"]) for cell in plan["cells"]}
    old = {record.cell: record for record in before if record.cell in models}
    answering = set(gateway.answering)
    records, drain, ask, said = [], [], [], []
    for cell in sorted({*old, *by_cell}):
        record, found = old.get(cell), tuple(by_cell.get(cell, ()))
        if not found and record is not None and hosts[cell] & silent:
            records.append(record)
            continue
        if not found:
            assert record is not None
            if record.state == "drained" and cell in gateway.drained:
                ask.append(cell)
                records.append(record)
            else:
                said.append(f"{cell}: its GPU shows no fault any more")
            continue
        if record is not None and record.state == "drained" and cell not in gateway.drained:
            record = replace(record, state="returned")
            said.append(record.reason)
        known = {fault.id for fault in record.faults} if record else set()
        if record is not None and record.state == "returned" and {fault.id for fault in found} <= known:
            records.append(record)
            continue
        since = record.since if record else now
        if cell in gateway.drained:
            state = "drained"
        elif not drains:
            state = "reported"
        elif any(other != cell and models[other] == models[cell] for other in answering if other in models):
            state = "drained"
            drain.append(cell)
            answering.discard(cell)
        else:
            state = "kept"
        fresh = Record(cell, found, state, since)
        if record is None or (record.state, record.reason) != (fresh.state, fresh.reason):
            said.append(fresh.reason)
        records.append(fresh)
    return Step(tuple(records), tuple(drain), tuple(ask), tuple(said))
