"""Open the state directory for this run alone and read its plan. Documented in modules/plan/run_state.py.

The lock is the kernel's (flock): it holds between containers that share the directory and, on NFS, between hosts, and
ends with its holder however that ends. A task's process ends with the task, so a small process holds it for as
long as the ansible-playbook lives. Where the inventory has a state host, the same process keeps that up to date.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import pwd
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import ansible.module_utils
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display

ROOT = Path(__file__).resolve().parents[2]
# The program comes with what it is to do, so that no shell reads it.
RUN = "import json, sys; asked = json.load(sys.stdin); exec(asked['program'])"

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


def shared(name: str) -> Any:
    """A file of the shared code, which Ansible only hands to modules."""
    folder = str(ROOT / "python_plugins" / "module_utils")
    if folder not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(folder)
    return importlib.import_module(f"ansible.module_utils.heteroserve.{name}")


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


def opened(sealed: str, secret: VaultSecret) -> bytes | None:
    """What Ansible Vault has encrypted; None with another password."""
    try:
        return bytes(VaultLib([("default", secret)]).decrypt(sealed))
    except AnsibleError:
        return None


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
        fault, host = None, None
        if kept := self._groups(task_vars).get("state"):
            host, fault = self._state_host(kept[0], task_vars or {})
            # The directory is a copy of what the state host has.
            result["changed"] = False
        if fault:
            return {**result, "failed": True, "msg": fault}
        if arguments["read_only"] or self._task.check_mode:
            result["changed"] = result["changed"] and not arguments["read_only"]
            fault = self._copy(folder, host) if host else None
        else:
            fault = self._claim(folder, job_of(task_vars or {}), host)
            result |= {"kept": str(folder)} if host else {}
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

    @staticmethod
    def _groups(variables: dict[str, Any] | None) -> dict[str, list[str]]:
        return dict((variables or {}).get("groups") or {})

    def _state_host(self, name: str, variables: dict[str, Any]) -> tuple[Any, str | None]:
        """The host that keeps the state, not yet connected; or what is missing."""
        own, groups = variables["hostvars"][name], self._groups(variables)
        folder = str(own.get("state_path") or "")
        if not folder.startswith("/"):
            return None, f"state_path: found '{folder}': set it to the folder on {name} that keeps the state, from / on"
        password = str(own.get("backup_password") or "")
        file = own.get("backup_password_file") or os.environ.get("HETEROSERVE_BACKUP_PASSWORD_FILE")
        try:
            password = password or (Path(file).read_text().strip() if file else "")
        except OSError as error:
            return None, f"backup_password_file: {file} cannot be read: {error.strerror}"
        if fault := shared("backup.manifest").password_fault(password):
            return None, f"backup_password: what {name} keeps is encrypted, and {fault}"
        secret, run = VaultSecret(password.encode()), this_run()
        who = f"{job_of(variables)}process {run['pid']} on {run['host']}"
        hosts = [host for group in ("serving", "gateway", "k3s_server") for host in groups.get(group, [])]
        version = re.search(r'(?m)^version = "(.*)"', (ROOT / "pyproject.toml").read_text())
        made = shared("backup.state_host").StateHost(
            call=self._caller(name, own),
            seal=lambda data: VaultLib().encrypt(data, secret).decode(),
            unseal=lambda text: opened(text, secret),
            place=f"{name}:{folder}",
            folder=folder,
            runtime=str(own.get("runtime", "")),
            hosts=tuple(dict.fromkeys(hosts)),
            version=version[1] if version else "",
            lease=shared("backup.lease").Lease(secrets.token_hex(16), who, time.strftime("%Y-%m-%d %H:%M:%S %Z")),
        )
        return made, None

    def _caller(self, name: str, own: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """What runs the state host's program there: over its own connection, as the user who logs in, without sudo."""
        place = self._play_context.copy()
        place.remote_addr = own.get("ansible_host", name)
        kind = own.get("ansible_connection", C.DEFAULT_TRANSPORT)
        connection = connection_loader.get(
            kind, place, new_stdin=None, task_uuid=self._task._uuid, ansible_playbook_pid=str(os.getppid())
        )
        keys = {**self._task.dump_attrs(), "timeout": place.timeout, "password": place.password}
        del keys["retries"]  # the task's
        connection.set_options(task_keys=keys, var_options=connection._resolve_option_variables(own, self._templar))
        python = str(own.get("ansible_python_interpreter", "auto"))
        command = f"{'python3' if python.startswith('auto') else python} -c {shlex.quote(RUN)}"
        program = shared("backup.state_host").PROGRAM

        def call(asked: dict[str, Any]) -> dict[str, Any]:
            sent = json.dumps({**asked, "program": program}).encode()
            try:
                status, out, errors = connection.exec_command(command, in_data=sent, sudoable=False)
                return dict(json.loads(out.decode().splitlines()[-1]))
            except AnsibleError as error:
                raise OSError(str(error).strip()) from None
            except (ValueError, IndexError):
                said = errors.decode(errors="replace").strip().splitlines()
                raise OSError(said[-1] if said else f"{python} ended with status {status}") from None

        return call

    def _copy(self, folder: Path, host: Any) -> str | None:
        """Read what the state host has, unless a run of this machine has the directory: then that is the newest."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / "run.lock").open("a+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                host.unpack(host.read(), folder)
        except BlockingIOError:
            return None
        except OSError as error:
            return (
                f"state_dir: {folder} cannot be written ({error.strerror}): set it to a folder that {user()} may write"
            )
        except shared("backup.state_host").Fault as fault:
            return str(fault)
        return None

    def _claim(self, folder: Path, job: str, host: Any) -> str | None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            with (folder / "run.lock").open("a+") as stream:
                return self._lock(stream, folder, job, host)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                fix = "set state_dir to a folder elsewhere"
                return f"state_dir: the file system of {folder} has no locks ({error.strerror}): {fix}"
            fix = f"set state_dir to a folder that {user()} may write"
            return f"state_dir: {folder} cannot be written ({error.strerror}): {fix}"

    def _lock(self, stream: IO[str], folder: Path, job: str, host: Any) -> str | None:
        own = this_run()
        # Who held it lets go of the state host first.
        for patience in range(300 if host else 10, -1, -1):
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
        if host:
            fault = self._take(host, folder)
            if not fault:
                self._keep(host, folder, own["pid"], stream)
            return fault
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

    def _take(self, host: Any, folder: Path) -> str | None:
        """Take the state host for this run, and copy what it has."""
        try:
            sealed = host.take(self._display.display)
            try:
                host.unpack(sealed, folder)
            except BaseException:
                host.free()
                raise
        except shared("backup.state_host").Fault as fault:
            return str(fault)
        return None

    @staticmethod
    def _keep(host: Any, folder: Path, pid: int, stream: IO[str]) -> None:
        """Start the process that holds the lock, with what it needs to reach the state host."""
        keeper = shared("backup.keeper")
        listener, started = keeper.listening(folder), started_at(pid)
        ended = [os.pidfd_open(pid)] if hasattr(os, "pidfd_open") else []
        if os.fork():
            listener.close()
            return
        try:
            os.setsid()
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            mine = {listener.fileno(), stream.fileno(), *ended}
            for number in [int(name) for name in os.listdir("/proc/self/fd")]:
                if number > 2 and number not in mine:
                    try:
                        os.close(number)
                    except OSError:  # that of the folder just read
                        continue
            # Its way to the run's output was closed with the rest.
            display = Display()
            display._final_q, display.verbosity = None, 0
            keeper.serve(listener, host, folder, lambda: started_at(pid) == started, ended)
        finally:
            os._exit(0)

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
