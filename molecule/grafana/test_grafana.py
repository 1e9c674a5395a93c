"""Grafana's files, its password and its version on a host; the program itself is a stand-in."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import testinfra.host
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STATE = ROOT / ".cache/testcluster" / f"state-{os.environ.get('HETEROSERVE_TEST_SET', '0')}"
FOLDER = "/etc/heteroserve/grafana"
Host = testinfra.host.Host


@pytest.fixture(autouse=True)
def only_its_host(host: Host) -> None:
    if host.backend.get_hostname() != "server-1":
        pytest.skip("another host's test")


def converge(*options: str) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", f"--inventory={ROOT}/molecule/inventory", str(HERE / "converge.yml"), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


def secret(name: str) -> str:
    return (STATE / "secrets" / name).read_text().strip()


def asked(host: Host, path: str, key: str = "$(cat /etc/heteroserve/grafana/admin-password)") -> tuple[str, Any]:
    """Status and answer. The host itself reads the password: what Ansible runs there is in its journal."""
    user = f'--user "admin:{key}"' if key else ""
    said = host.check_output(f"curl --silent --write-out '\\n%{{http_code}}' {user} http://127.0.0.1:3000{path}")
    body, _, status = said.rpartition("\n")
    return status, json.loads(body)


def test_nobody_gets_in_without_the_password(host: Host) -> None:
    assert asked(host, "/api/search", "")[0] == "401"
    assert asked(host, "/api/search", "admin")[0] == "401"
    assert asked(host, "/api/search")[0] == "200"
    _, settings = asked(host, "/api/admin/settings")
    assert settings["auth.anonymous"]["enabled"] == "false"
    assert stat.S_IMODE((STATE / "secrets" / "grafana-admin-password").stat().st_mode) == 0o600


def test_dashboards_come_from_the_project_with_their_links(host: Host) -> None:
    _, found = asked(host, "/api/search")
    wanted = [path.read_text() for path in sorted((ROOT / "roles/grafana/files").glob("*.json"))]
    assert found == [
        json.loads(text.replace("https://docs.invalid/heteroserve", "https://docs.example/pages")) for text in wanted
    ]


def test_the_datasource_reads_with_its_own_user(host: Host) -> None:
    _, found = asked(host, "/api/datasources")
    (source,) = yaml.safe_load(found["files"][0])["datasources"]
    assert (source["url"], source["basicAuthUser"], source["editable"]) == ("http://127.0.0.1:9090", "reader", False)
    assert found["password"] == "only-for-reading"


def test_it_listens_on_loopback_only_and_the_packages_service_is_off(host: Host) -> None:
    listening = host.check_output("ss --no-header --listening --tcp --numeric 'sport = :3000'")
    assert [line.split()[3] for line in listening.splitlines()] == ["127.0.0.1:3000"]
    assert not host.service("grafana-server").is_running
    assert not host.service("grafana-server").is_enabled
    assert host.service("heteroserve-grafana").is_running


def test_secrets_are_in_no_other_file_and_in_no_command_line(host: Host) -> None:
    """Nor in the journal, where Ansible leaves what it ran: so the search itself must not have them in its text."""
    files = {"admin-password": secret("grafana-admin-password"), "secret-key": secret("grafana-secret-key")}
    for name, text in {**files, "prometheus-password": "only-for-reading"}.items():
        place = host.file(f"{FOLDER}/{name}")
        assert (place.content_string, place.mode, place.user) == (text, 0o640, "root")
        assert place.group == "heteroserve-grafana"
        pattern = f"[{text[0]}]{text[1:]}"
        found = host.check_output(f"grep --recursive --files-with-matches '{pattern}' /etc /var/log /var/lib || true")
        assert found.split() == [f"{FOLDER}/{name}"]
        assert text not in host.check_output("ps -ef")


def test_an_upgrade_of_the_host_changes_nothing(host: Host) -> None:
    """Neither Grafana, of which there is a newer version, nor the other package that its repository has."""
    host.check_output("apt-get update")
    assert "grafana" not in host.check_output("apt-get --simulate dist-upgrade")
    assert "99.0" in host.check_output("apt-cache madison hello")
    assert "Candidate: 99.0" not in host.check_output("apt-cache policy hello")


def test_another_version_is_installed_and_restarted(host: Host) -> None:
    started = host.check_output("systemctl show --property MainPID heteroserve-grafana")
    done = converge("-e", "grafana_version=12.4.6")
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.file("/usr/share/grafana/VERSION").content_string == "12.4.6"
    assert host.check_output("systemctl show --property MainPID heteroserve-grafana") != started
    back = converge()
    assert back.returncode == 0, back.stdout[-3000:]
    assert host.file("/usr/share/grafana/VERSION").content_string == "12.4.5"
    assert not host.service("grafana-server").is_running


def test_plain_http_is_refused_elsewhere_than_on_loopback() -> None:
    done = converge("-e", "grafana_address=0.0.0.0", "--check")
    assert done.returncode != 0
    assert "grafana_address: 0.0.0.0 is not loopback: set grafana_tls_certificate and grafana_tls_key" in done.stdout


def test_with_a_certificate_it_speaks_tls(host: Host, tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=grafana"]
    files = {name: str(tmp_path / name) for name in ("key", "crt")}
    subprocess.run([*make, "-keyout", files["key"], "-out", files["crt"]], check=True, capture_output=True)
    given = {"grafana_tls_certificate": files["crt"], "grafana_tls_key": files["key"], "grafana_address": "0.0.0.0"}
    done = converge("-e", json.dumps(given))
    assert done.returncode == 0, done.stdout[-3000:]
    assert host.check_output("curl --silent --insecure https://127.0.0.1:3000/api/health") == '{"database": "ok"}'
    back = converge()
    assert back.returncode == 0, back.stdout[-3000:]
    assert not host.file(f"{FOLDER}/tls.key").exists
