"""Run the module of the same name and show what it is doing while it runs.

The plugins that are links lead here. The module is started as an asynchronous job; it writes one line of text to
``progress_path`` whenever there is news, and this plugin shows each new line as it reads it. In check mode, and at the
end, it is an ordinary module call.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import merge_hash
from ansible.vars.clean import remove_internal_keys

MARK = "==progress=="
POLL_S = 1.0
FIRST_POLL_S = 0.1  # most calls find that there is nothing to do
SHOW_EVERY_S = 5.0
# The modules have time-outs of their own, which explain; this one only ends a job that hangs.
LIMIT_S = 6 * 3600


class ActionModule(ActionBase):
    """See the module documentation of each module that is run this way."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        name = self._task.action
        if self._task.check_mode:
            return merge_hash(result, self._execute_module(module_name=name, task_vars=task_vars))
        folder = self._connection._shell.tmpdir = self._make_tmp_path()
        progress = self._connection._shell.join_path(folder, "progress")
        # Results lie beside the module's folder, which goes with the job. Not in ~/.ansible_async: whose home that is
        # depends on who looks, the shell, the module or Ansible.
        self._connection._shell.set_option("async_dir", folder.rstrip("/").rpartition("/")[0])
        arguments = {**self._task.args, "progress_path": progress}
        self._task.async_val = LIMIT_S
        try:
            job = self._execute_module(module_name=name, module_args=arguments, task_vars=task_vars, wrap_async=True)
        finally:
            self._task.async_val = 0
        if job.get("failed") or "ansible_job_id" not in job:
            return merge_hash(result, job)
        finished = self._follow(progress, job["results_file"], to_text((task_vars or {}).get("inventory_hostname", "")))
        # As async_status parses it, without two more module calls.
        status = self._parse_returned_data({"stdout": finished}, "legacy")
        self._low_level_execute_command(f"rm -f {self._connection._shell.quote(job['results_file'])}")
        self._remove_tmp_path(folder, force=True)
        remove_internal_keys(status)
        for key in ("ansible_job_id", "started", "finished", "results_file", "stdout", "stderr"):
            status.pop(key, None)
        return merge_hash(result, status)

    def _follow(self, progress: str, results: str, host: str) -> str:
        """Show progress until the job's result file no longer says that it runs; the result, as JSON."""
        display = Display()
        shown, shown_at, pause = "", 0.0, FIRST_POLL_S
        quote = self._connection._shell.quote
        while True:
            output = self._low_level_execute_command(
                f"echo {MARK}; cat {quote(progress)} 2>/dev/null; echo; echo {MARK}; cat {quote(results)}"
            )["stdout"]
            # The module's folder goes with the job, and becoming root strips white space: both parts may be empty.
            _, line, state = (part.strip() for part in to_text(output).split(MARK, 2))
            if line and line != shown and time.monotonic() - shown_at >= SHOW_EVERY_S:
                display.display(f"           {host}: {line}", color="bright gray")
                shown, shown_at = line, time.monotonic()
            try:
                if json.loads(state).get("finished", 1):
                    return state
            except ValueError:
                pass  # caught in the middle of being written
            time.sleep(pause)
            pause = min(2 * pause, POLL_S)
