"""playbooks/bare_metal.yml against stand-ins for PowerEdges with their iDRACs (see tests/helpers/idrac.py)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import bare_metal
from tests.helpers.bare_metal import MACS, PASSWORD, Media, Server, free_port
from tests.helpers.playbook_runs import changed, told

pytestmark = pytest.mark.integration
ROCKY = "Rocky-9-x86_64-dvd.iso"
UBUNTU = "ubuntu-24.04-live-server-amd64.iso"
# What the profile has.
TUNED = {"SysProfile": "PerfOptimized", "NodeInterleave": "Disabled", "BootMode": "Uefi"}


@dataclass
class Site:
    """A controller with its inventory, its keys and its images."""

    folder: Path
    media: Media
    key: Path
    public: str

    def run(self, hosts: dict[str, dict[str, Any]], *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook for these hosts."""
        own = {
            "bare_metal_bmc_user": "root",
            "bare_metal_bmc_password": "{{ lookup('ansible.builtin.env', 'BMC_PASSWORD') }}",
            "bare_metal_os": "rocky-9",
            "bare_metal_ssh_keys": [self.public],
            "bare_metal_media_dir": str(self.media.folder),
            "bare_metal_media_url": self.media.url,
            "bare_metal_install_timeout": 60,
            "ansible_ssh_private_key_file": str(self.key),
            **settings,
        }
        inventory = bare_metal.inventory(self.folder / "inventory", hosts, own)
        root = Path(__file__).parents[2]
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "playbooks/bare_metal.yml",
                "-i",
                str(inventory),
                *words,
            ],
            cwd=root,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
                "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.folder / "cache"),
                "ANSIBLE_FORCE_COLOR": "0",
                "BMC_PASSWORD": PASSWORD,
            },
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    key, public = bare_metal.key(tmp_path)
    with bare_metal.media(tmp_path / "media") as media:
        yield Site(tmp_path, media, key, public)


def host(server: Server, **own: Any) -> dict[str, Any]:
    """A host of an inventory, behind a stand-in."""
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": server.settings["ssh_port"],
        "bare_metal_bmc_address": "127.0.0.1",
        "bare_metal_bmc_port": server.settings["port"],
        "bare_metal_nic_mac": MACS[0].lower(),
        "rack": "A1",
        **own,
    }


def test_what_is_refused_ends_with_one_sentence_and_changes_nothing(site: Site, tmp_path: Path) -> None:
    """Three hosts in one run: nobody answers, the password is wrong, and one that says what it lacks."""
    with bare_metal.server(tmp_path / "one") as one:
        hosts = {
            "gone": host(one, bare_metal_bmc_port=free_port()),
            "locked": host(one, bare_metal_bmc_user="admin"),
            "lacking": host(one, bare_metal_firmware={"bios": {"minimum": "2.3.5"}}),
        }
        done = site.run(hosts)
        assert done.returncode == 2
        assert "the BMC at 127.0.0.1 cannot be reached: nothing listens there" in done.stdout
        assert "the BMC at 127.0.0.1 refuses admin: wrong user or password" in done.stdout
        assert (
            "bios firmware is too old: found 2.1.5, wanted 2.3.5 or newer; set bare_metal_firmware_url" in done.stdout
        )
        assert (
            "confirmation missing: rocky-9 is to be installed, which wipes a disk, and the host is off" in done.stdout
        )
        assert "name it with -e bare_metal_confirm_wipe=ABC1234" in done.stdout
        assert done.stdout.count("FAILED") == 3
        assert PASSWORD not in done.stdout + done.stderr
        assert one.read("changes.log") == []


@pytest.mark.long("a minute and a half; units: tests/unit/metal, and what is refused")
def test_a_host_comes_from_power_off_to_ssh_and_is_then_left_alone(site: Site, tmp_path: Path) -> None:
    bare_metal.installer(site.media.folder / ROCKY, "rocky-9")
    (tmp_path / "known_hosts").write_text("")
    with bare_metal.server(tmp_path / "one") as one:
        hosts = {"r760-1": host(one, bare_metal_service_tag="ABC1234", bare_metal_address="10.20.1.11/24")}
        report = site.run(hosts, "-e", "bare_metal_report=true")
        assert report.returncode == 2
        assert "r760-1: PowerEdge R760, service tag ABC1234, power Off, BIOS 2.1.5, iDRAC 7.10.30.00" in report.stdout
        assert "SysProfile is PerfPerWattOptimizedDapc, and the BIOS profile has PerfOptimized" in report.stdout
        assert "next     bios, install" in report.stdout
        assert (one.read("changes.log"), changed(report.stdout)) == ([], 0)

        done = site.run(hosts, "-e", "bare_metal_confirm_wipe=XYZ9999,ABC1234", "-vvv")
        assert done.returncode == 0, told(done)
        assert PASSWORD not in done.stdout + done.stderr
        assert one.read("host.log")[-2:] == ["installed rocky-9 on Dell_BOSS-N1_0123456789", "started"]
        assert one.get("/redfish/v1/Systems/System.Embedded.1/Bios")["Attributes"] == TUNED
        for slot in ("1", "2"):
            assert not one.get(f"/redfish/v1/Systems/System.Embedded.1/VirtualMedia/{slot}")["Inserted"]
        inserts = [line for line in one.read("changes.log") if line.endswith("InsertMedia")]
        assert [line.split("/")[6] for line in inserts] == ["2", "1"]
        known = (tmp_path / "known_hosts").read_text()
        assert known.startswith(f"[127.0.0.1]:{one.settings['ssh_port']} ssh-ed25519 ")
        assert [path.name for path in site.media.folder.iterdir()] == [ROCKY]

        before = one.read("changes.log")
        again = site.run(hosts, "-e", "bare_metal_confirm_wipe=ABC1234")
        assert again.returncode == 0, told(again)
        assert (changed(again.stdout), one.read("changes.log")) == (0, before)
        assert site.run(hosts, "-e", "bare_metal_report=true").returncode == 0
        # A host with another key is not taken for this one, and not wiped for it either.
        (tmp_path / "known_hosts").write_text(
            known.replace(known.split()[2], "AAAAC3NzaC1lZDI1NTE5AAAAIFQM2bTIEC0W15CNiK71EmNCEKCTg6kxbI7avHh+aw3k")
        )
        other = site.run(hosts)
        assert "confirmation missing" in other.stdout
        assert one.read("changes.log") == before


@pytest.mark.skipif(shutil.which("xorriso") is None, reason="xorriso is not installed")
@pytest.mark.long("a minute; units: the answers of installers")
def test_ubuntus_image_is_told_to_begin(site: Site, tmp_path: Path) -> None:
    """A host that runs an older system is wiped once it is named, and the disk is the one with that serial number."""
    bare_metal.installer(site.media.folder / UBUNTU, "ubuntu-24.04")
    installed = {"user": "admin", "key": site.public, "os": "ubuntu-22.04"}
    with bare_metal.server(tmp_path / "one", power="On", bios=TUNED, installed=installed) as one:
        scan = ["ssh-keyscan", "-p", str(one.settings["ssh_port"]), "127.0.0.1"]
        (tmp_path / "known_hosts").write_text(
            subprocess.run(scan, capture_output=True, encoding="utf-8", check=True).stdout
        )
        hosts = {"r760-1": host(one, bare_metal_os="ubuntu-24.04", bare_metal_disk="serial:DATA0001")}
        refused = site.run(hosts)
        assert "which wipes a disk, and the host runs ubuntu-22.04; name it with" in refused.stdout
        done = site.run(hosts, "-e", "bare_metal_confirm_wipe=ABC1234")
        assert done.returncode == 0, told(done)
        assert one.read("host.log")[-2:] == ["installed ubuntu-24.04 on Dell_NVMe_P5600_DATA0001", "started"]
        assert {path.name for path in site.media.folder.iterdir()} == {UBUNTU, f"heteroserve-{UBUNTU}"}
        again = site.run(hosts)
        assert (again.returncode, changed(again.stdout)) == (0, 0), told(again)


@pytest.mark.long("a minute; units: the sentences")
def test_virtual_media_that_are_refused_end_with_one_sentence(site: Site, tmp_path: Path) -> None:
    bare_metal.installer(site.media.folder / ROCKY, "rocky-9")
    with bare_metal.server(tmp_path / "one", bios=TUNED) as one:
        hosts = {"r760-1": host(one, bare_metal_media_url=f"http://127.0.0.1:{free_port()}")}
        done = site.run(hosts, "-e", "bare_metal_confirm_wipe=ABC1234")
        assert done.returncode == 2
        assert "virtual media refused: the BMC at 127.0.0.1 does not take http://127.0.0.1" in done.stdout
        assert "it must reach that address itself (bare_metal_media_url)" in done.stdout
        assert one.read("host.log") == []
        # The image is missing on the controller: said before anything is changed.
        before = one.read("changes.log")
        missing = site.run({"r760-1": host(one)}, "-e", "bare_metal_confirm_wipe=ABC1234", bare_metal_os="rhel-9")
        assert "has no rhel-9-x86_64-dvd.iso: put the distribution's image there" in missing.stdout
        assert one.read("changes.log") == before


@pytest.mark.long("a minute; units: what a running host is not restarted for")
def test_a_running_host_gets_firmware_and_bios_once_it_is_named(site: Site, tmp_path: Path) -> None:
    installed = {"user": "admin", "key": site.public, "os": "rocky-9"}
    with bare_metal.server(tmp_path / "one", power="On", installed=installed) as one:
        scan = ["ssh-keyscan", "-p", str(one.settings["ssh_port"]), "127.0.0.1"]
        (tmp_path / "known_hosts").write_text(
            subprocess.run(scan, capture_output=True, encoding="utf-8", check=True).stdout
        )
        rules = {
            "bios": {"minimum": "2.3.5", "file": "BIOS_2.5.4.EXE"},
            "idrac": {"minimum": "7.20.10.50", "file": "Integrated Dell Remote Access Controller_7.20.10.50.EXE"},
        }
        hosts = {"r760-1": host(one, bare_metal_firmware=rules, bare_metal_firmware_url="http://127.0.0.1:9/firmware")}
        refused = site.run(hosts)
        assert "confirmation missing: the changes restart the host, and it runs rocky-9; drain it" in refused.stdout
        assert one.read("changes.log") == []
        done = site.run(hosts, "-e", "bare_metal_confirm_restart=ABC1234")
        assert done.returncode == 0, told(done)
        assert one.get("/redfish/v1/Systems/System.Embedded.1")["BiosVersion"] == "2.5.4"
        assert one.get("/redfish/v1/Managers/iDRAC.Embedded.1")["FirmwareVersion"] == "7.20.10.50"
        assert one.get("/redfish/v1/Systems/System.Embedded.1/Bios")["Attributes"] == TUNED
        assert not any("VirtualMedia" in line for line in one.read("changes.log"))
        again = site.run(hosts)
        assert (again.returncode, changed(again.stdout)) == (0, 0), told(again)
        # A file that is not what it was said to be: the version afterwards is what counts.
        rules["bios"] = {"minimum": "2.9.0", "file": "BIOS_2.6.0.EXE"}
        hosts = {"r760-1": host(one, bare_metal_firmware=rules, bare_metal_firmware_url="http://127.0.0.1:9/firmware")}
        old = site.run(hosts, "-e", "bare_metal_confirm_restart=ABC1234")
        assert "bios firmware is too old after its update: found 2.6.0, wanted 2.9.0 or newer" in " ".join(
            old.stdout.split()
        )


@pytest.mark.long("half a minute; units: the sentence")
def test_a_bmc_with_another_certificate_gets_no_password(site: Site, tmp_path: Path) -> None:
    with bare_metal.server(tmp_path / "one", bios=TUNED) as one, bare_metal.server(tmp_path / "two", bios=TUNED) as two:
        own = str(one.folder / "cert.pem")
        hosts = {"a": host(one, bare_metal_bmc_ca=own), "b": host(two, bare_metal_bmc_ca=own)}
        done = site.run(hosts, "-e", "bare_metal_report=true")
        assert "confirmation missing" in done.stdout
        assert "the certificate of the BMC at 127.0.0.1 is not of the authority in bare_metal_bmc_ca" in done.stdout
        assert "/redfish" not in (two.folder / "output").read_text()


@pytest.mark.long("half a minute; units: racks")
def test_power_is_changed_alone_and_one_rack_at_a_time(site: Site, tmp_path: Path) -> None:
    with bare_metal.server(tmp_path / "one", bios=TUNED) as one, bare_metal.server(tmp_path / "two", bios=TUNED) as two:
        hosts = {"a": host(one), "b": host(two, rack="B1")}
        refused = site.run(hosts, "-e", "bare_metal_power=on")
        assert "hosts with a BMC are in 2 racks (A1, B1), and one is worked on at a time" in refused.stdout
        done = site.run(hosts, "-e", json.dumps({"bare_metal_power": "on", "bare_metal_rack": "B1"}))
        assert done.returncode == 0, told(done)
        power = [server.get("/redfish/v1/Systems/System.Embedded.1")["PowerState"] for server in (one, two)]
        assert power == ["Off", "On"]
        again = site.run(hosts, "-e", json.dumps({"bare_metal_power": "on", "bare_metal_rack": "B1"}))
        assert (again.returncode, changed(again.stdout)) == (0, 0), told(again)
