"""Has the state host be up to date before each task: no host is given what would be lost with this run.

Nothing is done where the inventory has no group ``state``. What keeps the host up to date is a process of its own that
the action plugin run_state starts; here it is only asked, and the run ends if it says no.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: state_host
type: aggregate
short_description: Keep the state host up to date
description:
  - Before each task, what has changed in the state directory since the task before is written to the state host.
  - Ends the run at once where that is not possible, and lets other runs work with the state at its end.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.callback import CallbackBase

ROOT = Path(__file__).resolve().parents[2]


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "state_host"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self) -> None:
        super().__init__()
        self._states: set[Path] = set()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Have no part in runs without a state host."""
        plays = playbook.get_plays()
        inventory = plays[0].get_variable_manager()._inventory if plays else None
        group = inventory.groups.get("state") if inventory is not None else None
        self.disabled = group is None or not group.get_hosts()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note that this run has taken the state host."""
        if result._task.action == "run_state" and result._result.get("kept"):
            self._states.add(Path(result._result["kept"]))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """What the tasks before have made is on the state host before this one gives it to a host."""
        self._ask()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """The same for handlers."""
        self._ask()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The last of it, and other runs may work with the state."""
        self._ask(end=True)

    def _ask(self, end: bool = False) -> None:
        for state in self._states:
            keeper = shared("backup.keeper")
            fault = keeper.ask(state, keeper.FREE if end else keeper.KEEP)
            if fault is None:
                fault = f"nothing keeps the state host up to date with {state} any more: run this again"
            if fault:
                # Not an exception of Ansible's: those of a callback are only warned of.
                print(f"heteroserve: {fault}", file=sys.stderr, flush=True)
                raise SystemExit(1)
