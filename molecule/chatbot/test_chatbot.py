"""The chatbot as a service of a host: who it is, what it may read, and what it shows."""

from __future__ import annotations

import json

import pytest
import testinfra.host

Host = testinfra.host.Host
UNIT = "heteroserve-chatbot"
FOLDER = "/var/lib/heteroserve/chatbot"
KEY = "sk-for-everyone"


@pytest.fixture(autouse=True)
def chatbot(host: Host) -> None:
    """All tests are those of the host that has it."""
    if host.backend.get_hostname() != "server-1":
        pytest.skip("another host's test")


def pid(host: Host) -> str:
    return host.check_output(f"systemctl show -p MainPID --value {UNIT}")


def test_the_page_is_served_on_loopback(host: Host) -> None:
    assert host.service(UNIT).is_running
    assert host.service(UNIT).is_enabled
    assert host.socket("tcp://127.0.0.1:7860").is_listening
    assert not host.socket("tcp://0.0.0.0:7860").is_listening
    page = host.check_output("curl -s http://127.0.0.1:7860/")
    assert "<gradio-app" in page
    assert json.loads(host.file(f"{FOLDER}/chatbot.json").content_string) == {"url": "http://127.0.0.1:7860"}


def test_it_is_nobodys_account_and_writes_nowhere(host: Host) -> None:
    status = host.file(f"/proc/{pid(host)}/status").content_string
    (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert len(set(uids)) == 1
    assert 61184 <= int(uids[0]) <= 65519  # systemd's range for accounts that exist while a service runs
    (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    assert int(effective, 16) == 0


def test_the_key_is_read_by_it_alone(host: Host) -> None:
    assert host.file(f"{FOLDER}/key").content_string == KEY
    assert host.file(f"{FOLDER}/key").mode == 0o600
    assert host.file(f"{FOLDER}/key").user == "root"
    assert KEY not in host.check_output("ps -ef")
    assert KEY not in host.check_output(f"systemctl cat {UNIT}")
    assert KEY not in host.check_output(f"journalctl -u {UNIT} --no-pager")
    # It started with it: without one the page would show a field for people's own.
    page = host.check_output("curl -s http://127.0.0.1:7860/config")
    (field,) = (part["props"] for part in json.loads(page)["components"] if part["props"].get("elem_id") == "key")
    assert field["visible"] is False


def test_it_is_restarted_when_it_dies(host: Host) -> None:
    before = pid(host)
    host.check_output(f"kill -KILL {before}")
    host.check_output("for i in $(seq 60); do curl -sf http://127.0.0.1:7860/health && exit; sleep 1; done; exit 1")
    assert pid(host) not in (before, "0")
