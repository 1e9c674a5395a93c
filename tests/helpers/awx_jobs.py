"""Jobs as AWX runs them, without AWX: its folder for a job, its environment, and ansible-runner on them.

From AWX's source (awx/main/tasks/jobs.py): the job's folder holds a copy of the project, the inventory as a script,
extra variables and the command line; ansible-runner runs the playbook there. Here, as in a container, it is run by an
account that has no name and whose home is the job's folder; the project belongs to another, so it cannot be written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
UID = 54321  # that no account has
AS_NOBODY_KNOWN = ["setpriv", f"--reuid={UID}", "--regid=0", "--clear-groups", "--inh-caps=-all"]
# The interpreter may lie in root's home, which others may not enter. In a mount namespace it then has nothing else,
# and may be entered.
SHOWN = """
set -e
shown=$1 folder=$2; shift 2
work=$(mktemp -d); mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir -p "$work$shown"; mount --bind "$shown" "$work$shown"
mount --rbind "$work$folder" "$folder"; umount --lazy "$work"; rmdir "$work"
exec "$@"
"""
# What AWX calls: https://ansible.readthedocs.io/projects/runner/en/stable/python_interface/
RUN = "import ansible_runner, json, sys; sys.exit(ansible_runner.run(**json.loads(sys.argv[1])).rc)"
STATE_PASSWORD = "correct horse battery staple"
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@cache
def templates() -> dict[str, dict[str, Any]]:
    """The job templates of awx/config, by name without "HeteroServe "."""
    found = yaml.safe_load((ROOT / "awx" / "config" / "all" / "controller_templates.yml").read_text())
    return {one["name"].removeprefix("HeteroServe "): one for one in found["controller_templates"]}


def failure_message(part: str) -> str:
    """What AWX is given to tell of a failed job with: the ``message``, or the ``body`` of a webhook."""
    found = yaml.safe_load((ROOT / "awx" / "config" / "all" / "controller_notifications.yml").read_text())
    name = found["_awx_webhook"]["messages"]["error"][part].strip("{ }")
    return str(found[name]).removeprefix("{% raw %}").removesuffix("{% endraw %}")


def image_variables() -> dict[str, str]:
    """What the execution environment's image sets."""
    made = yaml.safe_load((ROOT / "awx" / "execution-environment.yml").read_text())
    steps = "\n".join(made["additional_build_steps"]["append_final"])
    return dict(re.findall(r"([A-Z_]+)=(\S+)", "".join(re.findall(r"^ENV .*$", steps, re.MULTILINE))))


def outside_of_homes() -> list[str]:
    """What a command starts with that is to find this interpreter, whoever runs it."""
    base = Path(sys.base_prefix)
    closed = [path for path in reversed(base.parents) if not path.stat().st_mode & 1]
    return ["unshare", "--mount", "sh", "-c", SHOWN, "sh", str(base), str(closed[0])] if closed else []


@dataclass
class Job:
    """A job that runs, or has run."""

    template: str
    folder: Path
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    took_s: float = 0.0

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts" / "1"

    @property
    def status(self) -> str:
        """As AWX has it: successful, failed, canceled."""
        return (self.artifacts / "status").read_text()

    @property
    def stdout(self) -> str:
        """What AWX shows of it, without colours."""
        file = self.artifacts / "stdout"
        return ESCAPES.sub("", file.read_text()).replace("\r", "") if file.exists() else ""

    def events(self) -> Iterator[dict[str, Any]]:
        """What AWX is told, in order."""
        files = (self.artifacts / "job_events").glob("[0-9]*-*.json")
        for path in sorted(files, key=lambda one: int(one.name.partition("-")[0])):
            if path.suffix == ".json":
                yield json.loads(path.read_text())

    @property
    def statistics(self) -> dict[str, Any]:
        """What AWX keeps as the job's artifacts: set_stats of the run."""
        (last,) = (one for one in self.events() if one["event"] == "playbook_on_stats")
        return dict(last["event_data"].get("artifact_data", {}))

    def wait(self, limit_s: float = 1500) -> Job:
        """Until it has ended."""
        self.process.wait(limit_s)
        self.took_s = time.monotonic() - self.began
        for path in self.folder.iterdir():  # AWX keeps what it was told, and removes the folder
            if path.is_dir() and path.name != "artifacts":
                shutil.rmtree(path, ignore_errors=True)  # a program that a canceled job started may still write there
        return self

    def wait_for(self, text: str, limit_s: float = 600) -> None:
        """Until it prints ``text`` (a regular expression)."""
        until = time.monotonic() + limit_s
        while not re.search(text, self.stdout):
            assert self.process.poll() is None, f"the job ended without printing {text!r}:\n{self.stdout[-4000:]}"
            assert time.monotonic() < until, f"the job did not print {text!r}:\n{self.stdout[-4000:]}"
            time.sleep(0.1)

    def cancel(self) -> None:
        """As AWX does: ansible-runner is told to end, and kills the job's process group with SIGKILL."""
        os.kill(self.process.pid, signal.SIGTERM)
        self.wait(60)

    def told(self) -> str:
        """The end of what it printed, for a failed test."""
        ended = self.status if (self.artifacts / "status").exists() else "did not begin"
        return f"{self.template}: {ended}\n{self.stdout[-5000:]}{(self.folder / 'stderr').read_text()[-2000:]}"


@dataclass
class Node:
    """An execution node: a folder for the jobs, which are thrown away, and one that AWX mounts into all of them.

    With ``kept``, a folder of the host of the group state, each job has a state directory of its own instead.
    """

    folder: Path
    inventory: Path
    variables: dict[str, Any] = field(default_factory=dict)  # that the inventory of a test adds: ports
    kept: Path | None = None
    jobs: int = 0

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True)
        os.chown(self.state, UID, 0)
        project = self.folder / "project"
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        for name in filter(None, files.decode().split("\0")):
            if os.path.lexists(ROOT / name):
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, project / name, follow_symlinks=False)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def seen(self, path: Path) -> Path:
        """Where a job sees a folder of the node."""
        return path

    def command(self, folder: Path, sent: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        """What runs a job, and its environment."""
        known = {
            name: value for name, value in os.environ.items() if name.startswith("PIP_")
        }  # where packages come from
        known["PATH"] = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        known |= {**image_variables(), "HOME": str(folder), "LANG": "C.UTF-8"}
        known["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = f"{folder}/facts"  # a container has a /tmp of its own
        return [*outside_of_homes(), *AS_NOBODY_KNOWN, sys.executable, "-c", RUN, json.dumps(sent)], known

    def start(self, template: str, verbosity: int = 0, artifacts: dict[str, Any] | None = None, **answers: Any) -> Job:
        """Launch a template with answers to its survey; those that are left out are its defaults.

        In a workflow a job is also given the artifacts of those before it.
        """
        self.jobs += 1
        asked = templates()[template]
        folder = self.folder / f"awx_{self.jobs}"
        shutil.copytree(self.folder / "project", folder / "project", symlinks=True, copy_function=os.link)
        words = ["-u", "root", *(["--tags", asked["job_tags"]] if asked.get("job_tags") else [])]
        files = {
            "inventory/hosts": self._script(),
            "env/extravars": yaml.safe_dump(self._variables(asked, folder) | (artifacts or {}) | answers),
            "env/cmdline": " ".join([*words, *(["-" + "v" * verbosity] if verbosity else [])]),
            "env/settings": json.dumps({"suppress_ansible_output": True}),
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
            (folder / name).chmod(0o700)
        for path in (folder / "artifacts", folder / "cp"):
            path.mkdir()
        own = [
            folder,
            *(path for path in folder.iterdir() if path.name != "project"),
            *(folder / name for name in files),
        ]
        for path in own:
            os.chown(path, UID, 0)
        inside = self.seen(folder)
        sent = {
            "private_data_dir": str(inside),
            "ident": "1",
            "playbook": asked["playbook"],
            "inventory": f"{inside}/inventory/hosts",
            "envvars": self._environment(inside),
            "fact_cache_type": "",
        }
        command, environment = self.command(folder, sent)
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "stderr").open("w"),
            start_new_session=True,
        )
        return Job(template, folder, process)

    def run(self, template: str, verbosity: int = 0, artifacts: dict[str, Any] | None = None, **answers: Any) -> Job:
        """Launch a template, and wait for its end."""
        return self.start(template, verbosity, artifacts, **answers).wait()

    def succeed(self, template: str, artifacts: dict[str, Any] | None = None, **answers: Any) -> Job:
        """The same for one that must succeed; says how long it took, and what AWX keeps of it."""
        job = self.run(template, 0, artifacts, **answers)
        assert job.status == "successful", job.told()
        sizes = {name: len(json.dumps(value)) for name, value in job.statistics.items()}
        print(f"{template}: {job.status}, {job.took_s:.0f} s, artifacts in bytes: {sizes}", flush=True)
        return job

    def refuse(self, template: str, *sentences: str, **answers: Any) -> Job:
        """The same for one that must fail with these words in one place."""
        job = self.run(template, **answers)
        said = " ".join(job.stdout.split())
        assert job.status == "failed", job.told()
        assert said.count("FAILED") == 1, job.told()
        for words in sentences:
            assert words in said, job.told()
        assert sentences[0][:300] in job.statistics["heteroserve_failure"], job.told()
        print(f"{template}: {job.status}, {job.took_s:.0f} s: {' ... '.join(sentences)}", flush=True)
        return job

    def _script(self) -> str:
        """The inventory as AWX imports it and hands it to a job."""
        sources = [self.inventory]
        if self.kept:
            sources.append(self.folder / "state.yml")
            group = {"hosts": {"keeper": {"ansible_connection": "local"}}, "vars": {"state_path": str(self.kept)}}
            sources[1].write_text(yaml.safe_dump({"all": {"children": {"state": group}}}))
        words = [word for source in sources for word in ("-i", str(source))]
        asked = ["ansible-inventory", *words, "--list", "--export", "--playbook-dir", str(ROOT)]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
        data = json.loads(done.stdout)
        for number, host in enumerate(data["_meta"]["hostvars"].values(), 1):
            host |= {"remote_tower_enabled": "true", "remote_tower_id": number}
        del data["_meta"]["profile"]  # of Ansible's own, which AWX does not keep
        return f"#! /usr/bin/env python3\n# -*- coding: utf-8 -*-\nprint({json.dumps(data)!r})\n"

    def _variables(self, template: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Extra variables: the template's, the defaults of its survey, and AWX's own."""
        survey = template.get("survey_spec", {}).get("spec", [])
        own = {
            "job_id": self.jobs,
            "job_launch_type": "manual",
            "job_template_name": template["name"],
            "user_name": "operator",
            "inventory_id": 1,
            "inventory_name": self.inventory.name,
            "project_revision": "0" * 40,
        }
        return {
            "state_dir": f"{self.seen(folder)}/state" if self.kept else str(self.seen(self.state)),
            **({"backup_password": STATE_PASSWORD} if self.kept else {}),  # from a credential
            **self.variables,
            **{item["variable"]: item["default"] for item in survey if "default" in item},
            **{f"{of}_{name}": value for of in ("awx", "tower") for name, value in own.items()},
        }

    def _environment(self, folder: Path) -> dict[str, str]:
        """What AWX sets for every job."""
        roles = "roles:~/.ansible/roles:/usr/share/ansible/roles:/etc/ansible/roles"
        collections = "~/.ansible/collections:/usr/share/ansible/collections"
        return {
            "ANSIBLE_COLLECTIONS_PATH": f"{folder}/requirements_collections:{collections}",
            "ANSIBLE_FORCE_COLOR": "True",
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
            "ANSIBLE_PARAMIKO_RECORD_HOST_KEYS": "False",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_ROLES_PATH": f"{folder}/requirements_roles:{roles}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/cp",
            "AWX_HOST": "https://awx.example.org",
            "AWX_PRIVATE_DATA_DIR": str(folder),
            "INVENTORY_ID": "1",
            "JOB_ID": str(self.jobs),
            "MAX_EVENT_RES": "700000",
            "PROJECT_REVISION": "0" * 40,
        }


@dataclass
class ContainerNode(Node):
    """The same with a container for each job, of the execution environment's image, and no network."""

    image: str = ""

    def seen(self, path: Path) -> Path:
        """A job's folder is /runner, as in AWX; the node's is a path that AWX exposes to jobs."""
        return Path("/var/lib/heteroserve") if path == self.state else Path("/runner")

    def command(self, folder: Path, sent: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        """AWX, too, starts a container as an account of the node's, or Kubernetes', choice, in the group 0."""
        limits = ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=10000:10000"]
        words = ["podman", "--runtime", "runc", "run", "--rm", "--network", "none", *limits, f"--user={UID}:0"]
        words += ["-e", "HOME=/runner", "-v", f"{folder}:/runner", "-v", f"{self.state}:{self.seen(self.state)}"]
        return [*words, self.image, "python3.11", "-c", RUN, json.dumps(sent)], dict(os.environ)
