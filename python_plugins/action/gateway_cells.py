"""Run the module of the same name; where it waits for requests to end, show what it is doing."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash

QUICK = ("looked_at", "kept")


class ActionModule(ActionBase):
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._task.args.get("state", "looked_at") in QUICK:
            return merge_hash(super().run(tmp, task_vars), self._execute_module(task_vars=task_vars))
        plugin = self._shared_loader_obj.action_loader.get(
            "with_progress",
            task=self._task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return dict(plugin.run(task_vars=task_vars))
