"""The guide's rows for processors in inventory/dell, which are comments there until somebody asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from heteroserve.facts.declared import hardware_of
from heteroserve.plan.planner import HostEntry, PlanRequest, make_plan
from heteroserve.plan.request import model_entry


def hosts_of(group: Any) -> dict[str, Any]:
    """Hosts of a group and of its children, with their own variables."""
    found = {name: own or {} for name, own in (group.get("hosts") or {}).items()}
    for child in (group.get("children") or {}).values():
        found.update({name: own for name, own in hosts_of(child or {}).items() if own or name not in found})
    return found


def test_they_are_planned_with_the_engines_of_the_guide(root: Path) -> None:
    text = (root / "inventory" / "dell" / "group_vars" / "all" / "models.yml").read_text()
    block = text[text.index("  # - name: llama-2-7b-chat-xeon") :]
    entries = yaml.safe_load("\n".join(line[4:] for line in block.splitlines()))
    hosts = hosts_of(yaml.safe_load((root / "inventory" / "dell" / "hosts.yml").read_text())["all"])
    entered = {name: HostEntry(hardware_of(own["hardware"])) for name, own in hosts.items() if "hardware" in own}
    models = tuple(model_entry(entry, f"models[{index}]") for index, entry in enumerate(entries))
    for runtime in ("ray", "k3s"):
        plan = make_plan(PlanRequest(runtime, entered, models))
        found = {(cell.model, cell.engine, host.partition("-")[0]) for cell in plan.cells for host in cell.hosts}
        assert found == {("llama-2-7b-chat-xeon", "bigdl", "r760"), ("llama-2-7b-chat-epyc", "onnx", "r7615")}
        assert {cell.engine_args["quantization"] for cell in plan.cells} == {"sym_int8", "int8"}
