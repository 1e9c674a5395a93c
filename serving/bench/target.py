"""What is measured: an endpoint that is named, or the one of an inventory."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from heteroserve.common.web import open_own
from pydantic import BaseModel, ConfigDict, ValidationError

from serving.bench.client import Endpoint, error_text

ROOT = Path(__file__).resolve().parents[2]
KEY_VARIABLE = "API_KEY"


class TargetFile(BaseModel):
    """What playbooks/benchmark.yml writes about an inventory."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    statistics: str = ""
    key_file: str = ""
    state_dir: str
    plan: str = ""  # path of plan.json
    prometheus: str = ""


@dataclass(frozen=True)
class Target:
    """An endpoint with all that is known about it."""

    url: str
    key: str = ""
    folder: Path = Path()  # where results go
    statistics: str = ""
    prometheus: str = ""
    plan: dict[str, Any] = field(default_factory=dict)


def default_folder() -> Path:
    """Where results go that belong to no inventory."""
    return Path(os.environ.get("HETEROSERVE_STATE") or ROOT / ".state") / "benchmarks"


def read_target(path: Path) -> Target:
    """A target file. Raises ``ValueError``."""
    try:
        found = TargetFile.model_validate_json(path.read_text())
        key = Path(found.key_file).read_text().strip() if found.key_file else ""
        plan = json.loads(Path(found.plan).read_text()) if found.plan else {}
    except OSError as fault:
        raise ValueError(f"--target: {fault.filename} cannot be read: {fault.strerror}") from fault
    except ValidationError as fault:
        error = fault.errors()[0]
        raise ValueError(f"--target: {path}: {'.'.join(map(str, error['loc']))}: {error['msg']}") from fault
    folder = Path(found.state_dir) / "benchmarks"
    return Target(found.endpoint.rstrip("/"), key, folder, found.statistics, found.prometheus, plan)


def ask_inventory(inventories: list[str], extra: list[str]) -> Target:
    """The target of an inventory, from its own variables. Raises ``ValueError`` with what Ansible said."""
    with tempfile.TemporaryDirectory(prefix="hs-bench-") as folder:
        file = Path(folder) / "target.json"
        command = ["ansible-playbook", str(ROOT / "playbooks" / "benchmark.yml")]
        command += [word for name in inventories for word in ("-i", name)]
        command += [word for value in extra for word in ("-e", value)]
        command += ["-e", json.dumps({"benchmark_run": False, "benchmark_target": str(file)})]
        # Ansible's own settings are the project's.
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode != 0 or not file.exists():
            raise ValueError(f"the inventory has no endpoint to measure:\n{(done.stdout + done.stderr).strip()}")
        return read_target(file)


def key_of(key_file: str, known: str) -> str:
    """The key: of a file, of the environment, or the installation's own. Raises ``ValueError``."""
    if not key_file:
        return os.environ.get(KEY_VARIABLE) or known
    try:
        return Path(key_file).read_text().strip()
    except OSError as fault:
        raise ValueError(f"--key-file: {key_file} cannot be read: {fault.strerror}") from fault


def models(endpoint: Endpoint) -> dict[str, int | None]:
    """Models of an endpoint, each with its context where the endpoint says. Raises ``ValueError``."""
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    request = urllib.request.Request(f"{endpoint.url}/v1/models", headers=headers)
    try:
        with open_own(request, 30, endpoint.tls()) as answer:
            data = json.loads(answer.read())
        return {entry["id"]: entry.get("max_model_len") for entry in data["data"]}
    except urllib.error.HTTPError as fault:
        said = error_text(fault.read())
        hint = f"; set {KEY_VARIABLE}, or give --key-file" if fault.code == 401 else ""
        raise ValueError(f"{endpoint.url}/v1/models answers {fault.code}: {said}{hint}") from fault
    except OSError as fault:
        reason = getattr(fault, "reason", fault)
        raise ValueError(
            f"{endpoint.url} does not answer ({reason}): start it with ./heteroserve up, or name it"
        ) from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{endpoint.url}/v1/models is no list of models: {fault}") from fault


def is_here(url: str) -> bool:
    """Whether a URL's host is this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):
        return False
