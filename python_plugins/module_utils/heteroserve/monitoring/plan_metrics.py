"""The plan as metrics, so that what is measured can be drawn and judged beside what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .exposition import Sample

HELP = {
    "heteroserve_plan_tokens_per_second": "Tokens a second that the plan expects of a cell that is full.",
    "heteroserve_plan_requests": "Requests at once for which that is expected.",
    "heteroserve_plan_cell_info": "1 for each cell of the plan.",
    "heteroserve_plan_start_seconds": "Seconds that a start of the cell may take.",
    "heteroserve_plan_gpus": "GPUs of a host that cells of the plan use.",
    "heteroserve_gpu_watts_limit": "Power that a GPU may take by its card, in watts.",
    "heteroserve_energy_price_per_kwh": "Price of a kilowatt hour, from the inventory.",
}


def samples(plan: Mapping[str, Any], watts: Mapping[str, Mapping[str, float]], price: float) -> Iterator[Sample]:
    """Everything that the plan says. ``watts`` are limits of GPUs by host and index, as far as they are known."""
    gpus: dict[tuple[str, str], set[int]] = {}
    for cell in plan["cells"]:
        labels = {
            "cell": cell["name"],
            "model": cell["model"],
            "engine": cell["engine"],
            "host": cell["hosts"][0],
            "accelerator": cell["accelerator"],
        }
        about = {"pool": cell["pool"], "build": cell["build"], "hosts": ",".join(cell["hosts"])}
        yield Sample("heteroserve_plan_cell_info", 1, {**labels, **about, "replicas": str(len(cell["replicas"]))})
        yield Sample("heteroserve_plan_start_seconds", cell["start_s"], labels)
        if cell["expected"]:
            full = max(cell["expected"], key=lambda one: one["concurrency"])
            yield Sample("heteroserve_plan_tokens_per_second", full["tokens_per_s"], labels)
            yield Sample("heteroserve_plan_requests", full["concurrency"], labels)
        if cell["vendor"] in ("nvidia", "amd"):
            for replica in cell["replicas"]:
                for host, devices in zip(replica["hosts"], replica["devices"], strict=True):
                    gpus.setdefault((host, cell["vendor"]), set()).update(devices)
    for (host, vendor), devices in sorted(gpus.items()):
        yield Sample("heteroserve_plan_gpus", len(devices), {"host": host, "vendor": vendor})
    for host, limits in sorted(watts.items()):
        for gpu, limit in sorted(limits.items()):
            yield Sample("heteroserve_gpu_watts_limit", limit, {"host": host, "gpu": gpu})
    if price:
        yield Sample("heteroserve_energy_price_per_kwh", price)
