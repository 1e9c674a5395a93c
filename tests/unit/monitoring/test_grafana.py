"""The role grafana in check mode on this machine, which has no Grafana: what it would write is read back."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.panels import DOCS

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{layout}]
  roles: [grafana]
"""
FOLDER = "/etc/heteroserve/grafana"


def run(root: Path, tmp: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the role in check mode; its results are JSON."""
    play = tmp / "play.yml"
    play.write_text(PLAY.format(layout=root / "playbooks/vars/layout.yml"))
    (tmp / "key.asc").touch()
    given = {
        "runtime": "k3s",
        "state_dir": str(tmp / "state"),
        "state": {"plan": {}},
        "ansible_python_interpreter": sys.executable,
        "grafana_repository_keyring": str(tmp / "key.asc"),
        **settings,
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run(
        [program, str(play), "-i", "localhost,", "--check", "--diff", "-e", json.dumps(given)],
        cwd=root,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_CACHE_PLUGIN": "memory"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def written(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Path -> content of every file that the run would write and may show."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found: dict[str, str] = {}
    for task in json.loads(done.stdout)["plays"][0]["tasks"]:
        result = task["hosts"].get("localhost", {})
        for one in result.get("results", [result]):
            diff = one.get("diff")
            for part in diff if isinstance(diff, list) else [diff] if diff else []:
                if isinstance(part.get("after"), str):
                    found[str(one.get("invocation", {}).get("module_args", {}).get("dest") or part["after_header"])] = (
                        part["after"]
                    )
    return found


KEPT = "a-password-that-an-earlier-run-has-made"


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    tmp = tmp_path_factory.mktemp("plain")
    secrets = tmp / "state" / "secrets"
    secrets.mkdir(parents=True, mode=0o700)
    (secrets / "grafana-admin-password").write_text(f"{KEPT}\n")
    return tmp, run(root, tmp, grafana_docs_url="https://docs.example", grafana_prometheus_interval="20")


def of(files: dict[str, str], end: str) -> str:
    """The one file whose path ends so."""
    (text,) = [text for path, text in files.items() if path.endswith(end)]
    return text


def test_settings_keep_strangers_out(plain: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    config = configparser.RawConfigParser()
    config.read_string(of(written(plain[1]), "grafana.ini"))
    assert config["auth.anonymous"]["enabled"] == "false"
    assert config["users"]["allow_sign_up"] == "false"
    assert (config["server"]["protocol"], config["server"]["http_addr"]) == ("http", "127.0.0.1")
    assert config["security"]["admin_password"] == f"$__file{{{FOLDER}/admin-password}}"
    assert config["security"]["secret_key"] == f"$__file{{{FOLDER}/secret-key}}"
    assert config["paths"]["provisioning"] == f"{FOLDER}/provisioning"
    assert config["dashboards"]["default_home_dashboard_path"] == f"{FOLDER}/dashboards/fleet.json"
    outwards = ("reporting_enabled", "check_for_updates", "check_for_plugin_updates")
    assert {config["analytics"][name] for name in outwards} == {"false"}


def test_a_password_is_kept_and_shown_nowhere(plain: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """One that is not there yet is made by a run that changes something, not by a check run."""
    folder = plain[0] / "state" / "secrets"
    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == {"grafana-admin-password": KEPT}
    assert KEPT not in plain[1].stdout + plain[1].stderr


def test_the_datasource_and_the_dashboards_are_provisioned(
    plain: tuple[Path, subprocess.CompletedProcess[str]], root: Path
) -> None:
    files = written(plain[1])
    (source,) = yaml.safe_load(of(files, "datasources/prometheus.yml"))["datasources"]
    assert source["url"] == "http://127.0.0.1:9090"
    assert source["jsonData"]["timeInterval"] == "20s"
    assert source["editable"] is False
    assert "basicAuth" not in source
    (provider,) = yaml.safe_load(of(files, "dashboards/dashboards.yml"))["providers"]
    assert provider["options"]["path"] == f"{FOLDER}/dashboards"
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    for path in sorted((root / "roles/grafana/files").glob("*.json")):
        assert of(files, f"dashboards/{path.name}") == path.read_text().replace(DOCS, "https://docs.example")


def test_the_version_is_pinned_and_nothing_else_is_taken(
    plain: tuple[Path, subprocess.CompletedProcess[str]], root: Path
) -> None:
    files = written(plain[1])
    version = yaml.safe_load((root / "roles/grafana/defaults/main.yml").read_text())["grafana_version"]
    pins = [
        dict(line.split(": ", 1) for line in part.splitlines() if ": " in line)
        for part in of(files, "preferences.d/heteroserve-grafana").split("\n\n")
    ]
    assert {"Package": "grafana", "Pin": f"version {version}", "Pin-Priority": "1001"} in pins
    assert {"Package": "*", "Pin": "origin apt.grafana.com", "Pin-Priority": "-1"} in pins
    assert "Signed-By: /etc/apt/keyrings/heteroserve-grafana.asc" in of(files, "heteroserve-grafana.sources")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"grafana_address": "0.0.0.0"},
            "grafana_address: 0.0.0.0 is not loopback: set grafana_tls_certificate and grafana_tls_key, or 127.0.0.1",
        ),
        (
            {"grafana_tls_certificate": "/nowhere/crt"},
            "grafana_tls_key is missing: set both grafana_tls_certificate and grafana_tls_key, or none",
        ),
    ],
)
def test_a_wrong_setting_ends_the_run_before_anything(
    root: Path, tmp_path: Path, settings: dict[str, str], sentence: str
) -> None:
    done = run(root, tmp_path, **settings)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Install the package" not in done.stdout
