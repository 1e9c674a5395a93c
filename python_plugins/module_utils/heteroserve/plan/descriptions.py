"""Where the shape of each model comes from: the inventory, its folder, the hub, the store, or a card.

What the hub said is kept beside the plan, so that a run without it plans the same; the stage models keeps the
config.json of weights that it has fetched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..common.hub import Hub, HubError
from ..common.names import weights_folder

HUB, STORE = "hub", "store"


@dataclass(frozen=True)
class Description:
    """A model's entry with what is known of its checkpoint; ``origin`` says where from, ``problem`` what was tried."""

    entry: dict[str, Any]
    origin: str = ""
    problem: str = ""
    fresh: dict[str, Any] | None = None  # to be kept: see ``kept``
    draft: Description | None = None


def describe(entries: list[dict[str, Any]], hub: Hub | None, folder: str) -> list[Description]:
    """Read what can be read of each model. The hub is not asked again once it did not answer."""
    silent: list[str] = []

    def ask(source: dict[str, Any]) -> tuple[dict[str, Any], str]:
        if hub is None:
            raise HubError("the hub is not asked")
        if silent:
            raise HubError(silent[0])
        try:
            return hub.config(str(source["hub"]), source.get("revision"))
        except HubError as error:
            if error.silent:
                silent.append(str(error))
            raise

    every = [{key: value for key, value in one.items() if value is not None} for one in entries]
    return [_with_beside(_describe(one, ask, folder), ask, folder) for one in every]


def _with_beside(
    found: Description, ask: Callable[[dict[str, Any]], tuple[dict[str, Any], str]], folder: str
) -> Description:
    """The shape of a draft model, and the ranks of adapters whose folder the controller can read."""
    entry, draft = dict(found.entry), None
    if isinstance(entry.get("draft"), dict):
        draft = _describe({**entry["draft"], "name": f"{entry.get('name')}+draft"}, ask, folder)
        entry["draft"] = {key: value for key, value in draft.entry.items() if key != "name"}
    if isinstance(entry.get("lora_adapters"), list):
        entry["lora_adapters"] = [_with_rank(one) if isinstance(one, dict) else one for one in entry["lora_adapters"]]
    return replace(found, entry=entry, draft=draft)


def _with_rank(adapter: dict[str, Any]) -> dict[str, Any]:
    source = adapter.get("source")
    path = source.get("path") if isinstance(source, dict) else None
    config = _read(os.path.join(path, "adapter_config.json")) if isinstance(path, str) else None
    return {**adapter, "rank": config["r"]} if config and "r" in config and not adapter.get("rank") else adapter


def _describe(
    entry: dict[str, Any], ask: Callable[[dict[str, Any]], tuple[dict[str, Any], str]], folder: str
) -> Description:
    source, name = entry.get("source"), entry.get("name")
    source = {key: value for key, value in source.items() if value is not None} if isinstance(source, dict) else {}
    if entry.get("config"):
        return Description(entry, "config.json of the inventory")
    path = source.get("path")
    if isinstance(path, str) and not entry.get("card"):
        config = _read(os.path.join(path, "config.json"))
        if config is not None:
            return Description({**entry, "config": config}, f"config.json of {path}")
    problem, known = "", read_kept(folder, str(name), source)
    if source.get("hub"):
        try:
            config, commit = ask(source)
            fresh = {"source": source, "config": config, "commit": commit}
            return Description({**entry, "config": config}, _of_hub(source, commit), fresh=fresh)
        except HubError as error:
            problem = str(error)
    for kind in (HUB, STORE) if source.get("hub") or not entry.get("card") else ():
        if kind in known:
            config = known[kind]["config"]
            origin = _of_hub(source, known[kind].get("commit", "")) if kind == HUB else "config.json of the weights"
            return Description({**entry, "config": config}, origin, problem)
    return Description(entry, "", problem)


def _of_hub(source: dict[str, Any], commit: str) -> str:
    return f"config.json of {source['hub']}, {commit[:12]}"


def kept(folder: str, name: str, kind: str) -> str:
    """The file that holds a config.json with its source, on the controller."""
    return os.path.join(folder, f"{weights_folder(name)}.{kind}.json")


def read_kept(folder: str, name: str, source: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was kept of a model's source, by kind; of another source nothing is."""
    found = {}
    for kind in (HUB, STORE):
        data = _read(kept(folder, name, kind)) if folder else None
        if data is not None and _given(data.get("source")) == source and isinstance(data.get("config"), dict):
            found[kind] = data
    return found


def _given(source: Any) -> dict[str, Any]:
    return {key: value for key, value in source.items() if value is not None} if isinstance(source, dict) else {}


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
