"""Settings that cannot work are refused with their place, before any BMC is asked."""

from __future__ import annotations

from typing import Any

import pytest
from heteroserve.inventory.schema import Inventory
from heteroserve.metal.settings import faults, refusals

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFQM2bTIEC0W15CNiK71EmNCEKCTg6kxbI7avHh admin@desk"
GOOD = {
    "bare_metal_bmc_address": "idrac-r760-1.example.org",
    "bare_metal_service_tag": "ABC1234",
    "bare_metal_nic_mac": "b0:7B:25:00:00:01",
    "bare_metal_address": "10.20.1.11/24",
    "bare_metal_gateway": "10.20.1.1",
    "bare_metal_dns": ["10.20.1.2", "fd00::2"],
    "bare_metal_disk": "model:PERC H755*",
    "bare_metal_user": "admin",
    "bare_metal_ssh_keys": [KEY],
    "bare_metal_media_url": "http://10.20.0.5:8000/media",
    "bare_metal_firmware": {"bios": {"minimum": "2.3.5", "file": "BIOS.EXE"}},
    "gateway_port": 8080,
}


def test_what_works_has_no_fault() -> None:
    assert faults(GOOD) == []
    assert faults({"bare_metal_bmc_address": "", "bare_metal_gateway": "", "bare_metal_ssh_keys": []}) == []


@pytest.mark.parametrize(
    ("key", "value", "at", "words"),
    [
        ("bare_metal_bmc_address", "https://10.20.0.11", "", "its port is bare_metal_bmc_port"),
        ("bare_metal_bmc_address", "10.20.0.11:443", "", "its port is bare_metal_bmc_port"),
        ("bare_metal_service_tag", "ABC-1234", "", "as on the host's label"),
        ("bare_metal_nic_mac", "b07b25000001", "", "b0:7b:25:00:00:01"),
        ("bare_metal_address", "10.20.1.11", "", "10.20.1.11/24"),
        ("bare_metal_address", "10.20.1.300/24", "", "10.20.1.11/24"),
        ("bare_metal_gateway", "10.20.2.1", "", "of that network"),
        ("bare_metal_dns", ["ns.example.org"], "[0]", "set an address"),
        ("bare_metal_disk", "sda", "", "boss, smallest, largest"),
        ("bare_metal_disk", "model:*", "", "boss, smallest, largest"),
        ("bare_metal_user", "Admin User", "", "in lower case"),
        ("bare_metal_ssh_keys", ["-----BEGIN OPENSSH PRIVATE KEY-----"], "[0]", "public key"),
        ("bare_metal_media_url", "/srv/media", "", "http://10.20.0.5/media"),
        ("bare_metal_firmware_url", "ftp://10.20.0.5", "", "http://10.20.0.5/firmware"),
        ("bare_metal_firmware", {"bios": {"file": "BIOS.EXE"}}, ".bios", "minimum: 7.10.30.00"),
        ("bare_metal_firmware", {"bios": {"minimum": 2.3}}, ".bios.minimum", "quotes"),
        ("bare_metal_firmware", {"bios": {"minimum": "new"}}, ".bios.minimum", "numbers with dots"),
        ("bare_metal_firmware", {"bios": {"minimum": "2", "path": "x"}}, ".bios.path", "known are minimum, file"),
        ("bare_metal_firmware", {"bios": {"minimum": "2", "file": "a/b"}}, ".bios.file", "the file's name"),
    ],
)
def test_what_cannot_work_is_named(key: str, value: Any, at: str, words: str) -> None:
    ((place, _, fix),) = faults({**GOOD, key: value})
    assert place == f"{key}{at}"
    assert words in fix


def test_faults_have_file_and_line() -> None:
    inventory = Inventory(
        values={"bare_metal_disk": "sda", "bare_metal_bmc_user": "root"},
        places={"bare_metal_disk": "group_vars/all/metal.yml:3"},
        groups={"serving": ["r760-1", "r760-2"], "rack": ["r760-2"]},
        plain_secrets={},
        template_faults={},
        host_keys={
            "r760-1: bare_metal_bmc_address": "hosts.yml:7",
            "r760-1: bare_metal_nic_mac": "hosts.yml:8",
            "r760-2: bare_metal_bmc_address": "hosts.yml:12",
        },
        owned={
            "r760-1": {"bare_metal_bmc_address": "10.20.0.11", "bare_metal_nic_mac": "x"},
            "r760-2": {"bare_metal_bmc_address": "10.20.0.12"},
            "rack": {"bare_metal_bmc_password": "hidden"},
        },
    )
    assert [str(fault).partition(";")[0] for fault in refusals(inventory)] == [
        "group_vars/all/metal.yml:3: bare_metal_disk: 'sda'",
        "hosts.yml:8: r760-1: bare_metal_nic_mac: 'x'",
        "hosts.yml:7: r760-1: bare_metal_bmc_password: missing, and the host has a BMC",
    ]
