"""Open the state directory for this run alone and read its plan. Documented in modules/plan/run_state.py."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


def started_at(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: with its id, that names it for good. None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


class ActionModule(ActionBase):
    """Runs on the controller only; the worker's parent is the ansible-playbook that holds the lock."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "plan_required": {"type": "bool", "default": False},
                "read_only": {"type": "bool", "default": False},
            }
        )
        folder = Path(arguments["path"])
        result["changed"] = not folder.is_dir()
        fault = None
        if arguments["read_only"] or self._task.check_mode:
            result["changed"] = result["changed"] and not arguments["read_only"]
        else:
            fault = self._claim(folder)
        plan, plan_fault = self._plan(folder / "plan.json", arguments["plan_required"])
        result["plan"] = plan
        fault = fault or plan_fault
        if fault:
            result.update(failed=True, msg=fault)
        return result

    def _claim(self, folder: Path) -> str | None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            with (folder / "run.lock").open("a+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                holder = json.loads(stream.read() or "{}")
                own = {"pid": os.getppid(), "started": started_at(os.getppid())}
                if holder and holder != own and started_at(holder["pid"]) == holder["started"]:
                    return (
                        f"another run (process {holder['pid']}) is working with {folder}:"
                        " wait until it has ended, or use another state_dir"
                    )
                stream.truncate(0)
                stream.write(json.dumps(own))
        except OSError as error:
            return (
                f"state_dir: {folder} cannot be written ({error.strerror}): set state_dir to a folder that"
                f" {os.environ.get('USER') or os.getuid()} may write"
            )
        return None

    @staticmethod
    def _plan(path: Path, required: bool) -> tuple[dict[str, Any], str | None]:
        try:
            return dict(json.loads(path.read_text())), None
        except FileNotFoundError:
            fault = f"there is no plan at {path}: run playbooks/plan.yml (or site.yml) first"
            return {}, fault if required else None
        except (OSError, ValueError) as error:
            return {}, f"the plan at {path} cannot be read ({error}): run playbooks/plan.yml again"
