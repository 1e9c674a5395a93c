"""K3s's configuration follows from what the inventory says: where it lies, and in which order, changes nothing.

A changed file restarts K3s on the node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SERVERS, AGENTS = ("server-1", "server-2", "server-3"), ("agent-1", "agent-2")
SECRETS = {"k3s-token": "a" * 64, "k3s-agent-token": "b" * 64, "registry-password": "c" * 32}


def rendered(root: Path, folder: Path, backwards: bool, **more: Any) -> dict[str, dict[str, str]]:
    """The files of each host, from an inventory in ``folder`` whose hosts and groups come in one order or the other."""
    program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("ansible-playbook is not in this environment")
    turn = -1 if backwards else 1
    addresses = {host: f"10.9.0.{11 + number}" for number, host in enumerate((*SERVERS, *AGENTS))}
    groups: list[tuple[str, dict[str, Any]]] = [
        (name, {"hosts": {host: {"ansible_host": addresses[host], "own_address": addresses[host]} for host in hosts}})
        for name, hosts in (("serving", (*AGENTS, *SERVERS)[::turn]), ("k3s_server", SERVERS[::turn]))
    ]
    secrets = folder / "state" / "secrets"
    (folder / "inventory").mkdir(parents=True)
    (folder / "files").mkdir()
    secrets.mkdir(parents=True)
    for name, text in SECRETS.items():
        (secrets / name).write_text(f"{text}\n")
    variables = {"runtime": "k3s", "state_dir": str(folder / "state"), "k3s_tls_san": ["api.rack", "10.9.0.100"]}
    everything = {"all": {"vars": variables, "children": dict(groups[::turn])}}
    (folder / "inventory" / "hosts.yml").write_text(yaml.safe_dump(everything, sort_keys=False))
    done = subprocess.run(
        [program, "tests/unit/cluster/configuration.yml", "-i", str(folder / "inventory")]
        + ["-e", json.dumps({"folder": str(folder / "files"), **more})],
        cwd=root,
        env={**os.environ, "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder / "facts"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in (folder / "files").iterdir()}


def test_the_same_inventory_elsewhere_and_in_another_order_gives_the_same_files(root: Path, tmp_path: Path) -> None:
    first = rendered(root, tmp_path / "one", backwards=False)
    second = rendered(root, tmp_path / "a folder" / "elsewhere", backwards=True)
    assert first == second
    assert len(first) == 5
    config = yaml.safe_load(first["server-1"]["config.yaml"])
    assert "embedded-registry" not in config
    assert config["flannel-iface"] == "eth1"
    assert config["tls-san"][:4] == ["10.9.0.11", "10.9.0.12", "10.9.0.13", "server-1"]
    assert "https://10.9.0.11:5000" in first["agent-2"]["registries.yaml"]
    assert SECRETS["registry-password"] in first["agent-2"]["registries.yaml"]
    assert SECRETS["k3s-token"] in first["agent-2"]["tokens"]
    assert "EnvironmentFile" not in first["agent-2"]["k3s.service"]


def test_the_sites_proxy_reaches_k3s_and_leaves_the_cluster_out(root: Path, tmp_path: Path) -> None:
    """Its containerd takes it over from K3s."""
    proxy = {"http": "http://proxy.corp:3128", "no_proxy": "corp.example"}
    every = rendered(root, tmp_path, backwards=False, proxy=proxy, k3s_embedded_registry=True)
    files = every["agent-1"]
    assert "EnvironmentFile=/etc/systemd/system/k3s-agent.service.env\n" in files["k3s.service"]
    lines = files["k3s.service.env"].splitlines()
    assert 'HTTPS_PROXY="http://proxy.corp:3128"' in lines
    (without,) = [line.split('"')[1].split(",") for line in lines if line.startswith("NO_PROXY=")]
    assert {"127.0.0.1", ".svc", "10.42.0.0/16", "10.43.0.0/16", "10.9.0.11", "server-1", "corp.example"} <= set(
        without
    )
    # In the same run: that nodes share images is a server's key, and holds for registries that registries.yaml names.
    assert yaml.safe_load(every["server-2"]["config.yaml"])["embedded-registry"] is True
    assert "embedded-registry" not in files["config.yaml"]
    assert "10.9.0.11:5000" in yaml.safe_load(files["registries.yaml"])["mirrors"]
