"""Notes every call of a module on a host: for tests/bench/bench_calls.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: module_calls
type: aggregate
short_description: Note every module call
description:
  - Writes a line of JSON to E(HETEROSERVE_BENCH_CALLS) for each module that is sent to a host, also for those that an
    action plugin such as M(ansible.builtin.copy) sends beside its own.
"""

import json
import os
import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

execute = ActionBase._execute_module


def noted(self: ActionBase, *words: Any, **named: Any) -> dict[str, Any]:
    """Execute the module, and note it."""
    began = time.monotonic()
    result: dict[str, Any] = execute(self, *words, **named)
    line = {
        "role": self._task._role.get_name() if self._task._role else "-",
        "task": self._task.get_name(),
        "host": (named.get("task_vars") or {}).get("inventory_hostname", "-"),
        "module": named.get("module_name") or self._task.action,
        "seconds": round(time.monotonic() - began, 3),
    }
    with open(os.environ["HETEROSERVE_BENCH_CALLS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return result


class CallbackModule(CallbackBase):
    """Workers are forked from the process that loads this."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_calls"

    def __init__(self) -> None:
        super().__init__()
        ActionBase._execute_module = noted
