"""What the hosts lack of their weights, as the next copies between them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: weights_wave
short_description: Which host copies weights from which, next
description: >-
  Decides one wave of the tree in which weights spread from the store, from what each host said of its weights. Called
  again with what it returned as C(done), it decides the next wave.
positional: _input
options:
  _input:
    description: "By host, what M(model_copy) found of each of its weights: C(item.name), C(bytes), C(lacks), C(whole)."
    type: dict
    required: true
  done: {description: Copies of earlier waves., type: list, elements: dict, required: true}
  store: {description: Host that has everything., type: str, required: true}
  fanout: {description: "Hosts that one host gives the same weights to; 0: only the store.", type: int, required: true}
  streams: {description: Hosts that copy from one host at once., type: int, required: true}
  forks: {description: Hosts that copy at once., type: int, required: true}
  racks: {description: The rack of each host., type: dict, default: {}}
"""

EXAMPLES = r"""
wave: "{{ looked | weights_wave(done=[], store='r760-1', fanout=4, streams=2, forks=20) }}"
"""

RETURN = r"""
_value:
  description: >-
    copies (by host, the source of each of the weights by its name), relays (by host: names of weights to offer,
    clients, and seconds after which the offer ends by itself), at_once (hosts that copy at once; 0 for all), done (all
    copies, these too) and why.
  type: dict
"""

import importlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ansible.module_utils


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(Path(__file__).resolve().parents[1] / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


def weights_wave(
    looked: dict[str, list[dict[str, Any]]],
    done: list[dict[str, str]],
    store: str,
    fanout: int,
    streams: int,
    forks: int,
    racks: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The next wave. Hosts that are not in ``looked`` any more, because they failed, neither get nor give anything."""
    spread = shared("models.spread")
    found: dict[str, dict[str, Any]] = {}
    for host, results in looked.items():
        for result in results:
            own = found.setdefault(
                str(result["item"]["name"]), {"size": int(result["bytes"]), "lacking": [], "whole": []}
            )
            if result["lacks"]:
                own["lacking"].append(host)
            elif result["whole"]:
                own["whole"].append(host)
    weights = [
        spread.Weights(name, own["size"], tuple(own["lacking"]), tuple(own["whole"])) for name, own in found.items()
    ]
    copied = tuple(spread.Copy(**copy) for copy in done if copy["host"] in looked)
    limits = spread.Limits(store, int(fanout), int(streams), int(forks), {**(racks or {})})
    wave = spread.next_wave(weights, copied, limits)
    sizes = {item.name: item.size for item in weights}
    relays = {}
    for source in wave.relays(store):
        given = [copy for copy in wave.copies if copy.source == source]
        relays[source] = {
            "names": sorted({copy.name for copy in given}),
            "clients": sorted({copy.host for copy in given}),
            "seconds": spread.seconds(wave, source, sizes),
        }
    return {
        "copies": {host: wave.to(host) for host in sorted({copy.host for copy in wave.copies})},
        "relays": relays,
        "at_once": wave.at_once,
        "done": [asdict(copy) for copy in (*copied, *wave.copies)],
        "why": wave.why,
    }


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """By its name."""
        return {"weights_wave": weights_wave}
