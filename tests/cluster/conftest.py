"""Real clusters on hosts that are podman containers with systemd, made by molecule/hosts, one set for each module.

The K3s is the test cluster's (upstream Kubernetes in one binary): what is shown here is shown for it, not for K3s.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.playbook_runs import kill_at, told

DISCOVER = "validate,facts,plan"
STAGES = f"{DISCOVER},hosts,cluster"
SERVE = f"{DISCOVER},images,models,serving,gateway,health"
LIMIT_S = 900.0  # no playbook takes longer, on the slowest machine
ROOT = Path(__file__).parents[2]
TESTCLUSTER = Path(os.environ.get("HETEROSERVE_TESTCLUSTER", ROOT.parent / "shared" / "testcluster"))
TEST_IMAGE = "docker.io/rancher/mirrored-library-busybox:1.37.0"


@dataclass
class Cluster:
    """An inventory of test hosts, and what can be done with it."""

    number: int  # of the set of hosts
    folder: Path  # of the inventory
    servers: list[str]
    agents: list[str]
    retired: list[str] = field(default_factory=list)
    ever: set[str] = field(default_factory=set)  # hosts that were in the inventory at some time
    settings: dict[str, Any] = field(default_factory=dict)  # variables beyond molecule/inventory's
    servers_serve: bool = False  # whether servers carry cells too

    @property
    def state(self) -> Path:
        return ROOT / ".cache" / "testcluster" / f"state-{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HETEROSERVE_TEST_SET": str(self.number),
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.folder.parent / "facts"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        }

    def address(self, host: str) -> str:
        kind, _, number = host.partition("-")
        return f"10.77.{self.number}.{(10 if kind == 'server' else 20) + int(number)}"

    def write(self) -> None:
        """Write the inventory as the lists above say."""
        self.ever |= {*self.servers, *self.agents, *self.retired}
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "molecule/inventory/group_vars", self.folder / "group_vars", dirs_exist_ok=True)
        # Group variables are read in the order of their files' names.
        (self.folder / "group_vars" / "all" / "zz-test.yml").write_text(yaml.safe_dump(self.settings))
        groups: dict[str, Any] = {
            "serving": [*self.agents, *(self.servers if self.servers_serve or not self.agents else [])],
            "k3s_server": self.servers,
            "gateway": self.servers[:1],
        }
        if self.retired:
            groups["retired"] = self.retired
        shared = yaml.safe_load((ROOT / "molecule/inventory/hosts.yml").read_text())
        variables = shared["all"]["children"]["machines"]["vars"]
        variables["ansible_ssh_private_key_file"] = str(ROOT / ".cache/testcluster/ssh_key")
        children = {
            name: {"hosts": {host: {"ansible_host": self.address(host)} for host in hosts}}
            for name, hosts in groups.items()
        }
        text = yaml.safe_dump({"all": {"children": {"machines": {"vars": variables, "children": children}}}})
        (self.folder / "hosts.yml").write_text(text)

    def command(self, playbook: str, *words: str) -> list[str]:
        program = shutil.which("ansible-playbook")
        assert program
        return [program, str(ROOT / playbook), "-i", str(self.folder), *words]

    def try_play(self, playbook: str, *words: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run a playbook and keep what it printed."""
        return subprocess.run(
            self.command(playbook, *words),
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=limit_s,
            cwd="/",
        )

    def play(self, playbook: str, *words: str, limit_s: float = LIMIT_S) -> str:
        """Run a playbook that has to succeed; what it printed."""
        done = self.try_play(playbook, *words, limit_s=limit_s)
        assert done.returncode == 0, told(done)
        return done.stdout

    def up(self, *words: str, batch: str = "100%") -> str:
        """Hosts to a cluster; ``batch`` is how many agents at once, all where nothing runs on them."""
        return self.play("site.yml", "--tags", STAGES, "-e", f"batch={batch}", *words)

    def serve(self, *words: str) -> str:
        """What follows ``up``."""
        return self.play("site.yml", "--tags", SERVE, *words)

    def serve_only(self, *more: str) -> str:
        """The cells alone, where images and weights are the same, and what is named of the stages after them."""
        return self.play("site.yml", "--tags", ",".join([DISCOVER, "serving", *more]))

    def serve_elsewhere(self) -> str:
        """The same where a host gets a cell that had none: its firewall opens for it in the stage hosts."""
        return self.serve("--tags", "hosts", "-e", "batch=100%")

    def all_of_it(self, *words: str) -> str:
        """site.yml, as an operator runs it."""
        return self.play("site.yml", "-e", "batch=100%", *words)

    def kill_at(self, text: str, *words: str) -> None:
        """Start ``up`` and kill it, and all that it waits for, with SIGKILL when it prints ``text``."""
        kill_at(text, self.command("site.yml", "--tags", STAGES, *words), self.environment)

    def make_hosts(self, *hosts: str) -> None:
        limit = ["--limit", ",".join(["localhost", *hosts])] if hosts else []
        self.play("molecule/hosts/create.yml", *limit)

    def remove_hosts(self) -> None:
        """Also those that have left the inventory."""
        self.agents[:] = sorted(self.ever - set(self.servers))
        self.write()
        self.play("molecule/hosts/destroy.yml")

    def container(self, host: str) -> str:
        return f"hs{self.number}-{host}"

    def run_on(self, host: str, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as root and keep what it printed."""
        return subprocess.run(
            # kubectl keeps what it learns in a home folder: here it must not, hosts are compared with what they were.
            ["podman", "exec", "-i", "-e", "KUBECACHEDIR=/tmp/kube", self.container(host), *words],
            capture_output=True,
            encoding="utf-8",
            timeout=180,
            input=text,
        )

    def on(self, host: str, *words: str, text: str | None = None, check: bool = True) -> str:
        """What a command printed that ran on a host as root."""
        done = self.run_on(host, *words, text=text)
        assert done.returncode == 0 or not check, f"{host}: {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *words: str, text: str | None = None, host: str | None = None, check: bool = True) -> str:
        return self.on(host or self.servers[0], "k3s", "kubectl", *words, text=text, check=check)

    def nodes(self, host: str | None = None) -> dict[str, dict[str, Any]]:
        found = json.loads(self.kubectl("get", "nodes", "-o", "json", host=host))
        return {item["metadata"]["name"]: item for item in found["items"]}

    def ready(self, host: str | None = None) -> dict[str, bool]:
        return {
            name: any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
            for name, node in self.nodes(host).items()
        }


def missing() -> str | None:
    """What this machine lacks for clusters."""
    if os.geteuid() != 0:
        return "hosts with systemd in podman need root"
    for program in ("podman", "runc", "ssh"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not (TESTCLUSTER / "unpack.sh").exists():
        return f"there is no test cluster (HETEROSERVE_TESTCLUSTER, here {TESTCLUSTER.name})"
    return None


def keep_bridge_address(network: str) -> None:
    """Set the address that the network's bridge has.

    By itself a bridge takes the lowest address of its ports, and so another one when a host goes: what the hosts then
    send to this machine is lost until they ask for its address again, a minute later.
    """
    told = subprocess.run(["podman", "network", "inspect", network], check=True, capture_output=True, text=True).stdout
    bridge = json.loads(told)[0]["network_interface"]
    address = Path(f"/sys/class/net/{bridge}/address").read_text().strip()
    subprocess.run(["ip", "link", "set", "dev", bridge, "address", address], check=True)


def clusters(number: int, servers: list[str], agents: list[str], folder: Path) -> Iterator[Cluster]:
    """A cluster's hosts, bare, for the tests of one module."""
    fault = missing()
    if fault:
        pytest.skip(fault)
    cluster = Cluster(number, folder / "inventory", servers, list(agents))
    cluster.write()
    if not os.environ.get("HETEROSERVE_TEST_REUSE"):
        shutil.rmtree(cluster.state, ignore_errors=True)
        cluster.remove_hosts()
        cluster.agents[:] = agents
        cluster.write()
        cluster.make_hosts()
    keep_bridge_address(f"hs{number}")
    yield cluster
    if not os.environ.get("HETEROSERVE_TEST_KEEP"):
        cluster.remove_hosts()
        shutil.rmtree(cluster.state, ignore_errors=True)
