"""Hosts and models that the tests plan with."""

from __future__ import annotations

from typing import Any

from heteroserve.facts.accelerators import CARDS
from heteroserve.facts.declared import hardware_of
from heteroserve.facts.hardware import Accelerator, Cpu, Hardware, Problem
from heteroserve.plan.planner import HostEntry, ModelRequest, PlanOptions, PlanRequest, make_plan
from heteroserve.plan.schema import Cell, Plan

GIB = 1024**3
AMX = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")

DECLARED: dict[str, dict[str, Any]] = {
    "h100": {"server": "xe9680", "accelerators": {"kind": "nvidia-h100-sxm-80gb", "count": 8}, "memory_gib": 2048},
    "h200": {"server": "xe9680", "accelerators": {"kind": "nvidia-h200-sxm-141gb", "count": 8}, "memory_gib": 2048},
    "mi300x": {"server": "xe9680", "accelerators": {"kind": "amd-mi300x-192gb", "count": 8}, "memory_gib": 2048},
    "gaudi3": {"server": "xe9680", "accelerators": {"kind": "intel-gaudi3-128gb", "count": 8}, "memory_gib": 2048},
    "a100": {"server": "xe8545", "accelerators": {"kind": "nvidia-a100-sxm-80gb", "count": 4}, "memory_gib": 1024},
    "l40s": {"server": "r760xa", "accelerators": {"kind": "nvidia-l40s-48gb", "count": 4}, "memory_gib": 512},
    "bridged": {
        "server": "r760xa",
        "accelerators": {"kind": "nvidia-h100-pcie-80gb", "count": 4, "link": "nvlink", "pairs": True},
        "memory_gib": 1024,
    },
    "mi210": {"server": "r7625", "accelerators": {"kind": "amd-mi210-64gb", "count": 1}, "memory_gib": 1536},
    "mixed": {
        "server": "r7625",
        "accelerators": [{"kind": "nvidia-l40s-48gb", "count": 1}, {"kind": "amd-mi210-64gb", "count": 1}],
        "memory_gib": 256,
    },
    "amx": {"server": "r760", "memory_gib": 512},
    "zen3": {"cpu": "epyc-7763", "sockets": 1, "memory_gib": 64},
    "small-ram": {"server": "r760xa", "accelerators": {"kind": "nvidia-l40s-48gb", "count": 4}, "memory_gib": 12},
}


def host(kind: str, **more: Any) -> HostEntry:
    """A host of ``DECLARED``."""
    return HostEntry(hardware_of(DECLARED[kind]), **more)


def hosts(*kinds: str) -> dict[str, HostEntry]:
    """Hosts named after their kind and place: hosts("h100", "amx") are h100-1 and amx-2."""
    return {f"{kind}-{number}": host(kind) for number, kind in enumerate(kinds, 1)}


def this_machine(cores: int = 2, memory_gib: float = 24, isa: tuple[str, ...] = AMX, **more: Any) -> Hardware:
    """A small virtual machine without GPU."""
    cpu = Cpu("Intel Xeon Processor", "intel", 1, cores, cores, isa=isa)
    return Hardware(cpu, int(memory_gib * GIB), **more)


def gpu_host(kind: str, count: int, memory_gib: int = 256, problems: tuple[Problem, ...] = (), **more: Any) -> Hardware:
    """A host as a probe reports it; ``more`` goes to each accelerator."""
    card = CARDS[kind]
    given: dict[str, Any] = {"link": card.link, "memory": card.memory, **more}
    cpu = Cpu("Intel Xeon Platinum 8480+", "intel", 2, 112, 224, 2, AMX, 16, 4800, 614.4e9)
    accelerators = tuple(Accelerator(index, card.vendor, card.name, kind, **given) for index in range(count))
    return Hardware(cpu, memory_gib * GIB, accelerators=accelerators, problems=problems)


def model(card: str, name: str | None = None, **more: Any) -> ModelRequest:
    """A model entry with a card; the context is 4,096 where the test says nothing, for all cards know as much."""
    more.setdefault("context", 2048 if card == "tinyllama-1.1b" else 4096)
    return ModelRequest(name or card, card=card, **more)


def plan_of(
    given: dict[str, HostEntry], *models: ModelRequest, runtime: str = "k3s", previous: Plan | None = None, **more: Any
) -> Plan:
    """Plan with everything else at its default; ``replan`` is the request's, the rest goes to the options."""
    replan = more.pop("replan", False)
    return make_plan(PlanRequest(runtime, given, models, (), previous, replan, PlanOptions(**more)))


def total(plan: Plan, name: str | None = None) -> float:
    """Expected tokens/s of a model, or of all."""
    return sum(cell.expected[-1].tokens_per_s for cell in plan.cells if name in (None, cell.model))


def cells_of(plan: Plan, name: str) -> list[Cell]:
    """Cells of a model."""
    return [cell for cell in plan.cells if cell.model == name]


def replicas_of(plan: Plan, name: str) -> int:
    """Replicas of a model."""
    return sum(len(cell.replicas) for cell in cells_of(plan, name))


def reason_of(plan: Plan, subject: str) -> str:
    """Reason and change of a host or model in one text."""
    return " | ".join(f"{reason.text} -> {reason.change}" for reason in plan.reasons if reason.subject == subject)
