"""What the planner would refuse from the inventory alone, asked of its own functions, for validate to say first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..common.names import node_name_fault
from ..common.records import type_faults
from ..facts.accelerators import CARDS, AcceleratorCard
from ..facts.declared import hardware_of
from ..facts.described import cards_of
from ..inventory.models import ModelRequest
from ..inventory.schema import Fault, Inventory
from .builds import obtainable
from .request import PlanOptions, card_for, faults_of, host_limits, model_entry, options_of, shape_of, shared_cell_name


def refusals(inventory: Inventory, builds: tuple[str, ...]) -> list[Fault]:
    """Faults of options, models and hosts. ``builds`` are those that the inventory's runtime has, see ``builds_of``."""
    cards, faults = _cards(inventory)
    faults += [*_option_faults(inventory), *_models(inventory, builds), *_host_faults(inventory, cards)]
    return faults + _node_names(inventory)


def _cards(inventory: Inventory) -> tuple[dict[str, AcceleratorCard], list[Fault]]:
    """Every card that there is, and what is wrong with those that the inventory describes."""
    given = inventory.values.get("serving_plan_cards")
    try:
        return cards_of([one for one in given if isinstance(one, dict)] if isinstance(given, list) else []), []
    except ValueError as error:
        key, _, found = str(error).partition(": ")
        return dict(CARDS), [Fault(inventory.place(key), key, found, "see docs/add-an-accelerator.md")]


def builds_of(inventory: Inventory) -> tuple[str, ...]:
    """Engine builds that the plan would choose from."""
    images = inventory.values.get("images_references")
    provided = tuple(images) if isinstance(images, dict) else ()
    try:
        options = options_of({"provided": provided, **_options(inventory)})
    except ValueError:  # which ``refusals`` names
        options = PlanOptions(provided=provided)
    return options.builds or obtainable(str(inventory.values.get("runtime")), options.provided)


def _options(inventory: Inventory) -> dict[str, Any]:
    options = inventory.values.get("serving_plan_options")
    return options if isinstance(options, dict) else {}


def _option_faults(inventory: Inventory) -> list[Fault]:
    try:
        options_of(_options(inventory))
    except ValueError as error:
        key, _, found = str(error).partition(": ")
        return [Fault(inventory.place(key), key, found, "see docs/plan.md")]
    return []


def _models(inventory: Inventory, builds: tuple[str, ...]) -> list[Fault]:
    models = inventory.values.get("models")
    faults: list[Fault] = []
    names: list[str] = []
    for index, model in enumerate(models if isinstance(models, list) else ()):
        where = f"models[{index}]"
        if type_faults(ModelRequest, model, where):
            continue  # which the check of types has named
        request = model_entry(model, where)
        if other := shared_cell_name(request.name, names):
            found = f"the cells of {request.name!r} would be called like those of {other!r}"
            faults.append(Fault(inventory.place(f"{where}.name"), f"{where}.name", found, "rename one of them"))
        names.append(request.name)
        if refusal := _refusal(request, builds):
            key, found, fix = refusal
            faults.append(Fault(inventory.place(f"{where}.{key}"), f"{where}.{key}", found, fix))
    return faults


def _refusal(request: ModelRequest, builds: tuple[str, ...]) -> tuple[str, str, str] | None:
    """Key of a model's entry, what was found and what to set. ``inventory.schema`` names engines without a build."""
    try:
        shape = shape_of(request) if request.config or card_for(request) else None
    except ValueError as error:
        if request.config:
            return "config", str(error), "set the contents of a Llama model's config.json"
        return "card", str(error).removeprefix("card: "), "set a known card"
    key, _, found = (faults_of(request, shape, builds) or "").partition(": ")
    return (key, found, "remove it or change it") if key and key != "engine" else None


def _host_faults(inventory: Inventory, cards: dict[str, AcceleratorCard]) -> list[Fault]:
    return [
        Fault(inventory.host_place(host, key), f"{host}: {key}", found, "see docs/inventory.md")
        for host, own in inventory.hosts.items()
        for key, _, found in (error.partition(": ") for error in _errors(own, cards))
    ]


def _errors(own: dict[str, Any], cards: dict[str, AcceleratorCard]) -> Iterator[str]:
    """What of a host's hardware and limits the plan cannot read, each as "KEY: what is wrong"."""
    limits = own.get("serving_limits") or {}
    read: list[tuple[Callable[[Any, str], object], Any, str]] = []
    if "hardware" in own:
        read.append((partial(hardware_of, cards=cards), own["hardware"], "hardware"))
    read += [(host_limits, {key: own[key]}, "") for key in ("rack", "reserved_ports") if key in own]
    each = [{key: value} for key, value in limits.items()] if isinstance(limits, dict) else [limits]
    read += [(host_limits, one, "serving_limits") for one in each]
    for function, given, where in read:
        try:
            function(given, where)
        except ValueError as error:
            yield str(error)


def _node_names(inventory: Inventory) -> list[Fault]:
    if inventory.values.get("runtime") != "k3s":
        return []
    nodes = {*inventory.groups.get("serving", []), *inventory.groups.get("k3s_server", [])}
    return [
        Fault(inventory.lines.get(f"hosts.{host}", "hosts.yml"), host, fault, "rename the host")
        for host in sorted(nodes)
        if (fault := node_name_fault(host))
    ]
