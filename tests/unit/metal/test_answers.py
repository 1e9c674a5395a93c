"""The installers' answers: rendered by Ansible, read by the installers' own validators, and the disk's script run.

Ubuntu's JSON schema is part of subiquity, whose licence does not let it lie here: where HETEROSERVE_AUTOINSTALL_SCHEMA
names the file autoinstall-schema.json of a checkout, the answers are compared with it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from tests.helpers.playbook_runs import run_locally, told

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFQM2bTIEC0W15CNiK71EmNCEKCTg6kxbI7avHh admin@desk"
# All in one call of a module, as each takes a second.
PLAY = """
- hosts: localhost
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.copy:
        dest: "{to}/all.json"
        content: >-
          {{%- set found = {{}} -%}}
          {{%- for name in ['user-data', 'meta-data', 'ks.cfg'] -%}}
          {{%- for way, own in ways.items() -%}}
          {{%- set text = lookup('ansible.builtin.template', '{role}/templates/' ~ name ~ '.j2', template_vars=own) -%}}
          {{%- set _ = found.update({{way ~ name: text}}) -%}}
          {{%- endfor -%}}
          {{%- endfor -%}}
          {{{{ found | to_json }}}}
"""
STATIC = {
    "bare_metal_address": "10.20.1.11/24",
    "bare_metal_gateway": "10.20.1.1",
    "bare_metal_dns": ["10.20.1.2", "10.20.1.3"],
}
SETTINGS = {
    "inventory_hostname": "r760-1",
    "bare_metal_mark": "mark0123456789ab",
    "bare_metal_ssh_keys": [KEY],
    "bare_metal_user": "admin",
    "bare_metal_nic_mac": "B0:7B:25:00:00:01",
    "bare_metal_decision": {"disk": {"by": "serial", "pattern": "*PHYS0001*"}},
}


@pytest.fixture(scope="module")
def answers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    ways = {"": {**SETTINGS, **STATIC}, "dhcp-": SETTINGS}
    done = run_locally(PLAY.format(role=root / "roles" / "bare_metal", to=folder), folder, {"ways": ways})
    assert done.returncode == 0, told(done)
    for name, text in json.loads((folder / "all.json").read_text()).items():
        (folder / name).write_text(text)
    return folder


def autoinstall(path: Path) -> dict[str, Any]:
    text = path.read_text()
    assert text.startswith("#cloud-config\n")
    return dict(yaml.safe_load(text)["autoinstall"])


def test_ubuntus_answers_are_what_the_inventory_says(answers: Path) -> None:
    asked = autoinstall(answers / "user-data")
    (nic,) = asked["network"]["ethernets"].values()
    assert nic["match"] == {"macaddress": "b0:7b:25:00:00:01"}
    assert (nic["addresses"], nic["routes"]) == (["10.20.1.11/24"], [{"to": "default", "via": "10.20.1.1"}])
    assert nic["nameservers"] == {"addresses": ["10.20.1.2", "10.20.1.3"]}
    assert asked["storage"]["layout"]["match"] == {"serial": "*PHYS0001*"}
    cloud = asked["user-data"]
    assert cloud["hostname"] == "r760-1"
    (user,) = cloud["users"]
    assert (user["ssh_authorized_keys"], user["lock_passwd"]) == ([KEY], True)
    # No section is left to a person, and no password is in it.
    assert "interactive-sections" not in asked
    assert "password" not in (answers / "user-data").read_text()
    (nic,) = autoinstall(answers / "dhcp-user-data")["network"]["ethernets"].values()
    assert nic == {"match": {"macaddress": "b0:7b:25:00:00:01"}, "dhcp4": True}
    assert yaml.safe_load((answers / "meta-data").read_text()) == {
        "instance-id": "mark0123456789ab",
        "local-hostname": "r760-1",
    }


@pytest.mark.skipif(
    "HETEROSERVE_AUTOINSTALL_SCHEMA" not in os.environ, reason="HETEROSERVE_AUTOINSTALL_SCHEMA is not set"
)
@pytest.mark.parametrize("name", ["user-data", "dhcp-user-data"])
def test_ubuntus_answers_fit_subiquitys_schema(answers: Path, name: str) -> None:
    schema = json.loads(Path(os.environ["HETEROSERVE_AUTOINSTALL_SCHEMA"]).read_text())
    asked = autoinstall(answers / name)
    jsonschema.validate(asked, schema)
    # It lets pass what it does not know.
    assert set(asked) <= set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**asked, "shutdown": "halt"}, schema)


@pytest.mark.parametrize("name", ["ks.cfg", "dhcp-ks.cfg"])
def test_red_hats_answers_are_read_by_pykickstart(answers: Path, name: str) -> None:
    """As ksvalidator does, for RHEL 9; warnings are errors."""
    parser = KickstartParser(makeVersion("RHEL9"), followIncludes=False)
    parser.readKickstart(str(answers / name))
    handler = parser.handler
    (network,) = handler.network.network
    assert network.device == "b0:7b:25:00:00:01"
    assert (network.bootProto, network.ip) == (("dhcp", "") if "dhcp" in name else ("static", "10.20.1.11"))
    if "dhcp" not in name:
        assert (network.netmask, network.gateway) == ("255.255.255.0", "10.20.1.1")
    (user,) = handler.user.userList
    (key,) = handler.sshkey.sshUserList
    assert (user.name, user.password, key.key) == ("admin", "", KEY)
    assert handler.rootpw.lock
    # What may be written to is decided by the script alone.
    assert not handler.clearpart.seen
    assert not handler.ignoredisk.seen
    assert [script.errorOnFail for script in handler.scripts] == [True, True]


@pytest.mark.parametrize(
    ("disks", "chosen"),
    [
        ({"sda": "Dell_NVMe_DATA0001", "sdb": "Dell_DC_PHYS0001_1"}, "sdb"),
        ({"sda": "Dell_NVMe_DATA0001"}, None),
        ({"sda": "A_PHYS0001", "sdb": "B_PHYS0001"}, None),
    ],
)
def test_the_one_disk_is_chosen_or_none(
    answers: Path, tmp_path: Path, disks: dict[str, str], chosen: str | None
) -> None:
    """The script before the installation, with a stand-in for udevadm."""
    (script,) = re.findall(r"^%pre [^\n]*\n(.*?)^%end", (answers / "ks.cfg").read_text(), re.MULTILINE | re.DOTALL)
    for name in [*disks, "sr0", "loop0"]:
        (tmp_path / "block" / name).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    lines = "".join(f"[[ $* != *--name={name} ]] || echo ID_SERIAL={serial}\n" for name, serial in disks.items())
    udevadm = tmp_path / "bin" / "udevadm"
    udevadm.write_text(f"#!/bin/bash\n{lines}")
    udevadm.chmod(0o755)
    places = {
        "/sys/block": tmp_path / "block",
        "/tmp/disk.cfg": tmp_path / "disk.cfg",
        "/dev/console": tmp_path / "console",
    }
    for before, after in places.items():
        script = script.replace(before, str(after))
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, encoding="utf-8", check=False)
    written = tmp_path / "disk.cfg"
    assert (done.returncode == 0, written.exists()) == (chosen is not None, chosen is not None), done.stderr
    if chosen:
        assert f"ignoredisk --only-use={chosen}\n" in written.read_text()
        assert f"clearpart --all --initlabel --drives={chosen}\n" in written.read_text()
    else:
        assert "disks fit *PHYS0001*" in (tmp_path / "console").read_text()
