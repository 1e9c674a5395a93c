#!/usr/bin/python
"""Plan which model runs where: a thin shell around heteroserve.plan.planner."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_plan
short_description: Plan which model runs on which host, with which engine, and what to expect
description:
  - Reads hosts and models, writes C(plan.json), and explains every host and model that it leaves out.
  - Runs on the controller and touches no host. The same input gives the same bytes.
options:
  hosts:
    description:
      - Hosts that may carry models, by name.
      - "Each has C(hardware) (the fact C(host_hardware), as accelerator_facts returns it or as the inventory declares
        it, short or full), and optionally C(rack), C(address) (on which its cells listen), C(reserved_ports),
        C(memory_gib), C(cores) and C(accelerators) (indices that may be used)."
    type: dict
    required: true
  models:
    description: The entries of C(models) in the inventory.
    type: list
    elements: dict
    required: true
  gateways:
    description: Hosts that run the gateway.
    type: list
    elements: str
    default: []
  runtime:
    description: What carries the cells.
    type: str
    choices: [ray, k3s]
    required: true
  path:
    description: Where plan.json is, and is written. Replicas of the plan found there stay where they are.
    type: path
    required: true
  page:
    description: Where to write the plan as an HTML page. Not written where left out.
    type: path
  replan:
    description: Re-plan, even if running replicas move.
    type: bool
    default: false
  options:
    description: "Settings of the whole plan: port_base, reserve_memory_gib, allow_cpu, drivers_managed, prompt_tokens,
      output_tokens, stream_gap_ms (longest wait for the next piece of text), token_ms (longest that a token may take),
      builds (engine builds that can be had), provided (those whose image the site provides)."
    type: dict
    default: {}
  cards:
    description: Accelerators that HeteroServe has no card of, as C(serving_plan_cards) of the role serving_plan.
    type: list
    elements: dict
    default: []
  hub:
    description:
      - Address of the Hugging Face hub, or of a mirror. C(config.json) of models that come from it is read there, for
        their dimensions and their format. It is asked by the proxy that the environment names.
      - Not asked where left out or empty.
    type: str
  hub_token: {description: The hub's token, for gated repositories., type: str}
  configs:
    description: Folder where what the hub said is kept, and where the stage models keeps config.json of weights.
    type: path
  allow_unplaced:
    description: Write the plan and succeed although a model has no replica.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
"""

EXAMPLES = r"""
- name: Ensure the plan is written
  serving_plan:
    hosts:
      gpu1: {hardware: {server: xe9680, accelerators: {kind: nvidia-h100-sxm-80gb, count: 8}, memory_gib: 2048}}
    models:
      - {name: llama-3.1-8b, card: llama-3.1-8b, context: 8192, source: {path: /models/llama-3.1-8b}}
    runtime: k3s
    path: /var/lib/heteroserve/plan.json
"""

RETURN = r"""
plan:
  description: The plan as in plan.json.
  returned: always
  type: dict
report:
  description: The plan as text for a terminal.
  returned: always
  type: str
summary:
  description: The plan in short, for the statistics of a run (C(headline), C(models), C(hosts), C(unplaced)).
  returned: success
  type: dict
difference:
  description: What changes against the plan found at C(path), a line each; empty when nothing does.
  returned: always
  type: str
"""

import json
import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.hub import Hub
from ansible.module_utils.heteroserve.facts.accelerators import AcceleratorCard
from ansible.module_utils.heteroserve.facts.declared import hardware_of
from ansible.module_utils.heteroserve.facts.described import cards_of
from ansible.module_utils.heteroserve.plan.descriptions import HUB, describe, kept
from ansible.module_utils.heteroserve.plan.page import plan_page
from ansible.module_utils.heteroserve.plan.planner import HostEntry, PlanRequest, make_plan
from ansible.module_utils.heteroserve.plan.report import diff_in_words, plan_report, plan_summary, why_unplaced
from ansible.module_utils.heteroserve.plan.request import host_limits, model_entry, options_of
from ansible.module_utils.heteroserve.plan.schema import Plan, plan_from_json, plan_to_json

HOST_KEYS = ("hardware", "rack", "address", "reserved_ports", "memory_gib", "cores", "accelerators")


def host_entry(name: str, given: dict[str, Any], cards: dict[str, AcceleratorCard]) -> HostEntry:
    """One host of the argument ``hosts``. Raises ``ValueError`` with a sentence."""
    unknown = sorted(set(given) - set(HOST_KEYS))
    if unknown:
        raise ValueError(f"hosts.{name}.{unknown[0]}: unknown key; known are {', '.join(HOST_KEYS)}")
    if not given.get("hardware"):
        raise ValueError(f"{name}: its hardware is unknown; run the facts stage first or declare `hardware:`")
    limits = host_limits({key: value for key, value in given.items() if key != "hardware"}, name)
    return HostEntry(
        hardware=hardware_of(given["hardware"], f"{name}: hardware", cards),
        rack=str(limits.rack or ""),
        address=limits.address or "",
        reserved_ports=limits.reserved_ports or (),
        memory_gib=limits.memory_gib,
        cores=limits.cores,
        accelerators=limits.accelerators,
    )


def read_previous(path: str) -> tuple[str, Plan | None]:
    """The text at ``path`` and the plan in it; a plan of another version counts as none."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return "", None
    try:
        return text, plan_from_json(text)
    except ValueError:
        return text, None


def write_if_new(path: str, text: str) -> bool:
    """Replace ``path`` in one step, only if its bytes change."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return False
    except FileNotFoundError:
        pass
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".plan-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def differs(path: str, text: str) -> bool:
    """Whether writing would change ``path``."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read() != text
    except FileNotFoundError:
        return True


def main() -> None:
    """Read the arguments, plan, write, report."""
    module = AnsibleModule(
        argument_spec={
            "hosts": {"type": "dict", "required": True},
            "models": {"type": "list", "elements": "dict", "required": True},
            "gateways": {"type": "list", "elements": "str", "default": []},
            "runtime": {"type": "str", "choices": ["ray", "k3s"], "required": True},
            "path": {"type": "path", "required": True},
            "page": {"type": "path"},
            "replan": {"type": "bool", "default": False},
            "options": {"type": "dict", "default": {}},
            "cards": {"type": "list", "elements": "dict", "default": []},
            "hub": {"type": "str"},
            "hub_token": {"type": "str", "no_log": True},
            "configs": {"type": "path"},
            "allow_unplaced": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        text, previous = read_previous(given["path"])
        cards = cards_of(given["cards"])
        hosts = {name: host_entry(name, entry or {}, cards) for name, entry in given["hosts"].items()}
        hub = Hub(given["hub"], given["hub_token"] or "") if given["hub"] else None
        described = describe(given["models"], hub, given["configs"] or "")
        models = tuple(model_entry(one.entry, f"models[{number}]") for number, one in enumerate(described))
        options = options_of(given["options"])
    except (OSError, ValueError) as fault:
        module.fail_json(msg=str(fault))
    request = PlanRequest(
        runtime=given["runtime"],
        hosts=hosts,
        models=models,
        gateways=tuple(given["gateways"]),
        previous=previous,
        replan=given["replan"],
        options=options,
        cards=cards,
        described={str(one.entry.get("name")): one.origin for one in described if one.origin},
        problems={str(one.entry.get("name")): one.problem for one in described if one.problem},
    )
    try:
        plan = make_plan(request)
    except ValueError as fault:
        module.fail_json(msg=str(fault))
    new_text, report = plan_to_json(plan), plan_report(plan)
    difference = diff_in_words(previous, plan)
    if plan.unplaced and not given["allow_unplaced"]:
        module.fail_json(msg=why_unplaced(plan), report=report, unplaced=list(plan.unplaced))
    files = {given["path"]: new_text}
    for one in [*described, *(one.draft for one in described if one.draft)]:
        if one.fresh is not None and given["configs"]:
            text_kept = json.dumps(one.fresh, indent=1, sort_keys=True) + "\n"
            files[kept(given["configs"], str(one.entry["name"]), HUB)] = text_kept
    if given["page"]:
        files[given["page"]] = plan_page(plan, hosts)
    try:
        if given["configs"] and not module.check_mode:
            os.makedirs(given["configs"], mode=0o700, exist_ok=True)
        act = differs if module.check_mode else write_if_new
        changed = True in [act(path, content) for path, content in files.items()]
    except OSError as fault:
        module.fail_json(msg=f"{fault.filename}: {fault.strerror}: the plan cannot be written there")
    result: dict[str, Any] = {
        "changed": changed,
        "plan": json.loads(new_text),
        "report": report,
        "summary": plan_summary(plan, hosts),
        "difference": difference,
    }
    if module._diff and new_text != text:
        result["diff"] = {"prepared": difference or "only expectations and reasons changed\n"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
