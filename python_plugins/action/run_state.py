"""Open the state directory for this run alone and read its plan. Documented in modules/plan/run_state.py.

The lock is the kernel's (flock): it holds between containers that share the directory and, on NFS, between hosts, and
ends with its holder however that ends. A task's process ends with the task, so a small process holds it for as
long as the ansible-playbook lives.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from ansible.plugins.action import ActionBase

# Waits for the end of the process whose id it is given, with the lock's file open.
HOLDER = """
import os, select, sys, time
pid = int(sys.argv[1])
try:
    end = os.pidfd_open(pid)
    select.select([end], [], [])
except (AttributeError, OSError):
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.2)
"""


def started_at(pid: int) -> str | None:
    """When a process started, in clock ticks since boot: with its id, that names it for good. None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def this_run() -> dict[str, Any]:
    """What names a run among those of all hosts and containers: the worker's parent is the ansible-playbook."""
    pid = os.getppid()
    place = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return {"host": socket.gethostname(), "namespace": place, "pid": pid, "started": started_at(pid)}


def user() -> str:
    """The account's name; its number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"id {os.geteuid()}"


def job_of(variables: dict[str, Any]) -> str:
    """What AWX calls this run; nothing outside of AWX."""
    if "awx_job_id" not in variables:
        return ""
    name, user = variables.get("awx_job_template_name", "a job"), variables.get("awx_user_name", "AWX")
    return f"{name}, job {variables['awx_job_id']} of AWX, started by {user}; "


class ActionModule(ActionBase):
    """Runs on the controller only."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "str", "required": True},
                "plan_required": {"type": "bool", "default": False},
                "read_only": {"type": "bool", "default": False},
            }
        )
        folder = Path(arguments["path"])
        if not folder.is_absolute():
            result["msg"] = f"state_dir: {folder} is not an absolute path: set {folder.expanduser().absolute()}"
            return {**result, "failed": True}
        result["changed"] = not folder.is_dir()
        fault = None
        if arguments["read_only"] or self._task.check_mode:
            result["changed"] = result["changed"] and not arguments["read_only"]
        else:
            fault = self._claim(folder, job_of(task_vars or {}))
        planned = self._planned(task_vars or {})
        plan, plan_fault = (planned, None) if planned else self._plan(folder / "plan.json", arguments["plan_required"])
        result["plan"] = plan
        fault = fault or plan_fault
        if fault:
            result.update(failed=True, msg=fault)
        return result

    def _planned(self, variables: dict[str, Any]) -> dict[str, Any]:
        """In a check run, the plan that the stage plan has made and not written."""
        if not self._task.check_mode or "hostvars" not in variables:
            return {}
        return dict(variables["hostvars"]["localhost"].get("serving_plan_checked", {}))

    def _claim(self, folder: Path, job: str) -> str | None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            with (folder / "run.lock").open("a+") as stream:
                return self._lock(stream, folder, job)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                fix = "set state_dir to a folder elsewhere"
                return f"state_dir: the file system of {folder} has no locks ({error.strerror}): {fix}"
            fix = f"set state_dir to a folder that {user()} may write"
            return f"state_dir: {folder} cannot be written ({error.strerror}): {fix}"

    def _lock(self, stream: IO[str], folder: Path, job: str) -> str | None:
        own = this_run()
        for patience in range(10, -1, -1):
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = self._read(stream)
            if {key: holder.get(key) for key in own} == own:
                return None
            # Without a name it is about to write it; if it is gone, the lock is about to be let go.
            here = all(holder.get(key) == own[key] for key in ("host", "namespace"))
            if not patience or (holder and not (here and started_at(holder["pid"]) != holder["started"])):
                pid, host, since = (holder.get(key, "?") for key in ("pid", "host", "since"))
                who = f"{holder.get('job', '')}process {pid} on {host}, since {since}"
                fix = "wait until it has ended, or use another state_dir"
                return f"another run ({who}) is working with {folder}: {fix}"
            time.sleep(0.1)
        stream.truncate(0)
        stream.write(json.dumps({**own, "job": job, "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}))
        stream.flush()
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(own["pid"])],
            pass_fds=[stream.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return None

    @staticmethod
    def _read(stream: IO[str]) -> dict[str, Any]:
        """What the holder of the lock wrote; nothing while it is about to."""
        stream.seek(0)
        try:
            return dict(json.loads(stream.read()))
        except ValueError:
            return {}

    @staticmethod
    def _plan(path: Path, required: bool) -> tuple[dict[str, Any], str | None]:
        try:
            return dict(json.loads(path.read_text())), None
        except FileNotFoundError:
            fault = f"there is no plan at {path}: run playbooks/plan.yml (or site.yml) first"
            return {}, fault if required else None
        except (OSError, ValueError) as error:
            return {}, f"the plan at {path} cannot be read ({error}): run playbooks/plan.yml again"
