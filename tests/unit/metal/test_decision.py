"""What happens to a host that a BMC describes: nothing without its service tag, and each refusal in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from heteroserve.metal.decision import Answer, Decision, Wanted, decide, in_order, release, report
from heteroserve.metal.disks import Match, choose
from heteroserve.metal.firmware import Rule, old, parts
from heteroserve.metal.machine import IDRAC, Drive, Machine, Nic, Slot, machine
from heteroserve.metal.profile import PROFILE, differing, profile
from heteroserve.metal.rack import Candidate, rack

MAC = "b0:7b:25:00:00:01"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFQM2bTIEC0W15CNiK71EmNCEKCTg6kxbI7avHh admin"
BOOT = Drive("BOSS-N1 Monolithic", "Dell DC NVMe", "PHYS0001", 447)
DATA = Drive("PCIe SSD", "Dell NVMe P5600", "DATA0001", 2981)
IMAGES = ("http://10.20.0.5/rocky.iso", "http://10.20.0.5/answers.iso")
HOST = Machine(
    service_tag="ABC1234",
    model="PowerEdge R760",
    power="Off",
    bios={item.name: item.value for item in PROFILE},
    firmware={"BIOS": "2.5.4", IDRAC: "7.10.30.00"},
    nics=(Nic(MAC),),
    drives=(BOOT, DATA),
    slots=(Slot("2"), Slot("1")),
)
WANTED = Wanted(os="rocky-9", nic_mac=MAC.upper(), ssh_keys=(KEY,), media_url="http://10.20.0.5", images=IMAGES)
NAMED = replace(WANTED, confirm_wipe=("ABC1234",))
UP = Answer(os="rocky-9")


def refused(host: Machine = HOST, wanted: Wanted = NAMED, answer: Answer | None = None) -> list[str]:
    return list(decide(host, wanted, answer or Answer()).refusals)


def test_a_host_that_is_as_it_should_be_is_left_alone() -> None:
    assert decide(replace(HOST, power="On"), WANTED, UP) == Decision()


def test_a_host_that_is_off_is_installed_once_it_is_named() -> None:
    decision = decide(HOST, NAMED, Answer())
    assert (decision.steps, decision.refusals) == (("install",), ())
    assert decision.disk == Match("model", "*BOSS*")
    # The installer's image comes second, because the module fills slot 2 first, and hosts start from slot 1.
    assert decision.images == tuple(reversed(IMAGES))
    assert in_order(replace(HOST, slots=(Slot("1"), Slot("2"))), IMAGES) == IMAGES


@pytest.mark.parametrize("tags", [(), ("",), ("ABC123",), ("XYZ9999", "ABC12345")])
def test_nothing_is_wiped_without_its_service_tag(tags: tuple[str, ...]) -> None:
    (sentence,) = refused(wanted=replace(WANTED, confirm_wipe=tags, service_tag="abc1234"))
    assert sentence.startswith("confirmation missing: rocky-9 is to be installed, which wipes a disk")
    assert "-e bare_metal_confirm_wipe=ABC1234" in sentence
    assert refused(wanted=replace(WANTED, confirm_wipe=("XYZ9999", " abc1234"))) == []


def test_the_tag_that_counts_is_the_bmcs() -> None:
    (first, second) = refused(wanted=replace(WANTED, service_tag="DEF5678", confirm_wipe=("DEF5678",)))
    assert first.startswith("the BMC is that of ABC1234, and bare_metal_service_tag is DEF5678")
    assert "confirmation missing" in second
    assert "no service tag" in refused(replace(HOST, service_tag=""))[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(), "is off, so nobody knows what is on its disks"),
        (Answer(os="ubuntu-22.04"), "runs ubuntu-22.04"),
        (Answer(why="Host key verification failed"), "does not answer by SSH (Host key verification failed)"),
    ],
)
def test_the_sentence_says_what_the_host_is_doing(answer: Answer, words: str) -> None:
    host = replace(HOST, power="Off" if answer == Answer() else "On")
    (sentence,) = refused(host, WANTED, answer)
    assert words in sentence


def test_a_running_host_is_not_restarted_for_its_settings() -> None:
    host = replace(HOST, power="On", bios={**HOST.bios, "SysProfile": "Custom"})
    decision = decide(host, WANTED, UP)
    assert decision.steps == ("bios",)
    assert "SysProfile is Custom, and the BIOS profile has PerfOptimized" in decision.differences[0]
    (sentence,) = decision.refusals
    assert "the changes restart the host" in sentence
    assert "-e bare_metal_confirm_restart=ABC1234" in sentence
    assert refused(host, replace(WANTED, confirm_restart=("ABC1234",)), UP) == []
    assert refused(replace(host, power="Off"), replace(WANTED, os="rocky-9"), UP) == []


def test_old_firmware_is_named_with_found_and_wanted() -> None:
    rules = {"bios": Rule("2.6.0", "BIOS_2.6.1.EXE"), "idrac": Rule("7.20.10.50"), "Broadcom": Rule("1.0")}
    wanted = replace(WANTED, firmware=rules)
    decision = decide(replace(HOST, power="On"), wanted, UP)
    assert [item.component for item in decision.firmware] == ["idrac", "bios"]
    assert decision.notes == ("Broadcom firmware is asked for, and the host has none",)
    assert (
        "idrac firmware is too old: found 7.10.30.00, wanted 7.20.10.50 or newer; set bare_metal_firmware_url"
        in str(decision.refusals)
    )
    reachable = decide(replace(HOST, power="On"), replace(wanted, firmware_url="http://10.20.0.5/fw"), UP)
    # The BIOS has a file and needs a restart; the iDRAC has none.
    assert [sentence.partition(":")[0] for sentence in reachable.refusals] == [
        "idrac firmware is too old",
        "confirmation missing",
    ]


def test_an_idrac_is_updated_under_a_running_host() -> None:
    rules = {"idrac": Rule("7.20.10.50", "iDRAC.EXE")}
    wanted = replace(WANTED, firmware=rules, firmware_url="http://10.20.0.5/fw")
    decision = decide(replace(HOST, power="On"), wanted, UP)
    assert (decision.steps, decision.refusals) == (("firmware",), ())


def test_versions_are_compared_as_numbers() -> None:
    assert parts("7.00.00.00") == parts("7.0") < parts("7.00.30.00") < parts("7.10") < parts("10.0")
    assert list(old(HOST, {"bios": Rule("2.5.4")})) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nic_mac": ""}, "bare_metal_nic_mac: it is not set; the BMC lists b0:7b:25:00:00:01"),
        ({"nic_mac": "00:00:00:00:00:09"}, "no NIC has 00:00:00:00:00:09; the BMC lists b0:7b:25:00:00:01"),
        ({"ssh_keys": ()}, "bare_metal_ssh_keys: no key"),
        ({"user": "root"}, "bare_metal_user: root has no login there"),
        ({"media_url": ""}, "bare_metal_media_url: not set"),
        ({"disk": "serial:NOBODYS"}, "no drive has the serial number NOBODYS"),
    ],
)
def test_what_an_installation_lacks_is_named(change: dict[str, object], words: str) -> None:
    (sentence,) = refused(wanted=replace(NAMED, **change))  # type: ignore[arg-type]
    assert words in sentence


def test_virtual_media_that_are_taken_or_missing_are_refused() -> None:
    (sentence,) = refused(replace(HOST, slots=(Slot("1", "nfs://other/tools.iso"), Slot("2"))))
    assert sentence == "virtual media refused: slot 1 holds nfs://other/tools.iso; eject it"
    (sentence,) = refused(replace(HOST, slots=(Slot("CD"),)))
    assert "virtual media refused: the BMC has 1 for the host, and two are needed; found iDRAC 7.10.30.00" in sentence


def test_images_that_were_left_inserted_are_ejected() -> None:
    host = replace(HOST, power="On", slots=(Slot("1", IMAGES[0]), Slot("2")))
    decision = decide(host, WANTED, UP)
    assert (decision.steps, decision.images, decision.refusals) == (("eject",), (IMAGES[0],), ())


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("boss", Match("model", "*BOSS*")),
        ("smallest", Match("serial", "*PHYS0001*")),
        ("largest", Match("serial", "*DATA0001*")),
        ("serial:DATA0001", Match("serial", "*DATA0001*")),
        ("model:PERC H755*", Match("model", "PERC_H755*")),
    ],
)
def test_the_disk_is_found_by_its_rule(rule: str, found: Match) -> None:
    assert choose([BOOT, DATA], rule) == found


def test_a_disk_is_never_guessed() -> None:
    twins = [DATA, replace(DATA, serial="DATA0002")]
    assert choose(twins, "largest") == (
        "bare_metal_disk is largest, and 2 drives have 2981 GiB; set serial:DATA0001 or serial:DATA0002"
    )
    assert "the BMC lists no BOSS controller; it lists Dell NVMe P5600 2981 GiB serial:DATA0001" in str(
        choose([DATA], "boss")
    )
    assert "no drives" in str(choose([], "smallest"))


def test_the_profile_is_changed_by_the_inventory() -> None:
    changed = profile({"SysProfile": "Custom", "NodeInterleave": "", "ProcVirtualization": "Disabled"})
    assert {item.name: item.value for item in changed} == {
        "BootMode": "Uefi",
        "SysProfile": "Custom",
        "ProcVirtualization": "Disabled",
    }
    page = (Path(__file__).parents[3] / "docs" / "bare-metal.md").read_text()
    for item in PROFILE:
        assert f"| `{item.name}` | `{item.value}` | {item.reason} | {item.source} |" in page
    # Attributes that a model does not have are left out.
    assert differing({"SysProfile": "Custom"}, changed) == ()


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n', "ubuntu-24.04"),
        ('ID="rocky"\r\nVERSION_ID="9.4"\r\n', "rocky-9"),
        ('ID="rhel"\nVERSION_ID="9.6"\n', "rhel-9"),
        ("sh: cat: not found", ""),
    ],
)
def test_the_system_is_read(text: str, system: str) -> None:
    assert release(text) == system


def test_a_run_is_about_one_rack() -> None:
    hosts = {"a": Candidate("A1", "10.0.0.1"), "b": Candidate("B1", "10.0.0.2"), "c": Candidate("B1")}
    assert "2 racks (A1, B1), and one is worked on at a time" in str(rack(hosts, "", False))
    assert rack(hosts, "", True) == ["a", "b"]
    assert rack(hosts, "B1", False) == ["b"]
    assert "no host with a BMC is in the rack 'C1'; racks are A1, B1" in str(rack(hosts, "C1", False))
    assert "bare_metal_bmc_address" in str(rack({"c": Candidate("B1")}, "", False))


def test_what_redfish_info_returns_is_read() -> None:
    where = {"system_uri": "/redfish/v1/Systems/System.Embedded.1"}
    drive = {"Model": "Dell DC NVMe", "SerialNumber": "PHYS0001", "CapacityBytes": 480103981056}
    nic = {"Id": "NIC.1", "MACAddress": "B0:7B:25:00:00:01", "SpeedMbps": 25000, "LinkStatus": "LinkUp"}
    entries = {
        "system": {"SKU": "ABC1234", "SerialNumber": "CNX", "Model": "PowerEdge R760", "PowerState": "On"},
        "nic": [nic],
        "disk": [{"Controller": "BOSS", "Drives": [drive]}],
        "bios_attribute": {"SysProfile": "Custom"},
        "virtual_media": [{"Id": "1", "Image": None}, {"Id": "2", "Image": "http://x/y.iso"}],
    }
    facts = {name: {"ret": True, "entries": [[where, value]]} for name, value in entries.items()}
    versions = [("Installed-1", "BIOS", "2.1"), ("Previous-1", "BIOS", "2.0"), ("Installed-2", IDRAC, "7.1")]
    facts["firmware"] = {"ret": True, "entries": [{"Id": a, "Name": b, "Version": c} for a, b, c in versions]}
    found = machine(facts)
    assert found == Machine(
        "ABC1234",
        "PowerEdge R760",
        "On",
        {"SysProfile": "Custom"},
        {"BIOS": "2.1", IDRAC: "7.1"},
        (Nic(MAC, "NIC.1", 25000, True),),
        (Drive("BOSS", "Dell DC NVMe", "PHYS0001", 447),),
        (Slot("1"), Slot("2", "http://x/y.iso")),
    )
    assert machine({}).service_tag == ""
    lines = report("r760-1", found, decide(found, WANTED, Answer()), Answer())
    assert "NIC      b0:7b:25:00:00:01, NIC.1, 25000 Mbit/s, link" in lines
    assert "refused  confirmation missing" in lines
