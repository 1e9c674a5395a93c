"""The hosts that may copy weights from a host, for its firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
name: weights_takers
short_description: Which hosts may copy weights from a host that is not the store
description: >-
  Hosts that serve a model which this host serves too. None where weights do not spread from host to host, because there
  are few hosts or because the store gives to all.
positional: _input
options:
  _input: {description: Cells of the plan., type: list, elements: dict, required: true}
  host: {description: The host that gives., type: str, required: true}
  store: {description: Host that has everything., type: str, required: true}
  fanout: {description: "Hosts that one host gives the same weights to; 0: only the store.", type: int, required: true}
"""

EXAMPLES = r"""
host_prep_weights_takers: "{{ plan.cells | weights_takers(inventory_hostname, 'r760-1', 4) }}"
"""

RETURN = r"""
_value: {description: Names of hosts., type: list, elements: str}
"""

import importlib
from pathlib import Path
from typing import Any

import ansible.module_utils


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(Path(__file__).resolve().parents[1] / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


def weights_takers(cells: list[dict[str, Any]], host: str, store: str, fanout: int) -> list[str]:
    """Their names, sorted."""
    return list(shared("models.spread").takers(host, cells, store, int(fanout)))


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """By its name."""
        return {"weights_takers": weights_takers}
