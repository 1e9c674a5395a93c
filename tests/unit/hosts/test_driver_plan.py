"""Which plan, or which sentence, follows from a host: NVIDIA and AMD, four distributions, idle and busy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from heteroserve.common.records import from_dict
from heteroserve.hosts.drivers import nvidia, rocm
from heteroserve.hosts.drivers.architecture import architecture_of, choose_modules
from heteroserve.hosts.drivers.host import Gpu, Host, Module, System, User, gpus_of, parse_dpkg, parse_rpm, parse_system
from heteroserve.hosts.drivers.plan import Plan, Refusal, choose_versions, fits, upstream

ROLES = Path(__file__).parents[3] / "roles"
UBUNTU = System("ubuntu-24.04", "24.04", "noble", "6.8.0-60-generic")
JAMMY = System("ubuntu-22.04", "22.04", "jammy", "5.15.0-139-generic")
DEBIAN = System("debian-12", "12", "bookworm", "6.1.0-40-amd64")
ROCKY = System("el-9", "9.6", "", "5.14.0-570.12.1.el9_6.x86_64")
H100 = Gpu("nvidia-h100-pcie-80gb", "10de:2331")
HGX = tuple(Gpu("nvidia-h100-sxm-80gb", "10de:2330", "nvswitch") for _ in range(8))
B200 = tuple(Gpu("nvidia-b200-sxm-180gb", "10de:2901", "nvswitch") for _ in range(8))
V100 = Gpu("nvidia-v100-pcie-32gb", "10de:1db6")
MI300X = Gpu("amd-mi300x-192gb", "1002:74a1", "xgmi")
MODEL = User(4242, "VLLM::Worker_TP")


def tables(role: str) -> dict[str, Any]:
    """The role's own table of distributions, as the module gets it."""
    values = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text())
    templar = Templar(loader=DataLoader(), variables=values)
    return dict(templar.template(values[f"_{role}_distributions"]))


NVIDIA = from_dict(dict[str, nvidia.Table], tables("nvidia_driver"), "distributions")
AMD = from_dict(dict[str, rocm.Table], tables("rocm_driver"), "distributions")
WANTED = nvidia.Wanted("580", toolkit_version="1.18.1-1")
ROCM = rocm.Wanted("30.30.3", "7.2.3", ("amd-smi-lib", "rocminfo"))
TOOLKIT = dict.fromkeys(nvidia.TOOLKIT, "1.18.1-1")


def nvidia_plan(host: Host, **changes: Any) -> Plan:
    return nvidia.decide(host, replace(WANTED, **changes), NVIDIA)


def amd_plan(host: Host, **changes: Any) -> Plan:
    return rocm.decide(host, replace(ROCM, **changes), AMD)


def driven(system: System = DEBIAN, version: str = "580.95.05", **changes: Any) -> Host:
    """A host whose driver is as the defaults want it, and runs."""
    bare = Host(system, changes.pop("gpus", (H100,)))
    wanted = nvidia_plan(bare)
    packages = {**dict.fromkeys(wanted.driver, f"{version}-1"), **dict.fromkeys(wanted.others, "1.0"), **TOOLKIT}
    return replace(bare, packages=packages, loaded=Module(version, "open"), **changes)


def text_of(plan: Plan, path: str) -> str:
    return next(file.content for file in plan.files if file.path == path)


@pytest.mark.parametrize(
    ("system", "driver", "stream"),
    [
        (UBUNTU, {"libnvidia-compute-580", "nvidia-utils-580", "libnvidia-cfg1-580", "nvidia-dkms-580-open"}, None),
        (JAMMY, {"libnvidia-compute-580", "nvidia-utils-580", "libnvidia-cfg1-580", "nvidia-dkms-580-open"}, None),
        (DEBIAN, {"nvidia-driver-cuda", "nvidia-kernel-open-dkms"}, None),
        (ROCKY, {"nvidia-driver-cuda", "kmod-nvidia-open-dkms"}, "stream=580-open\n"),
    ],
)
def test_a_bare_host_gets_the_branch_of_its_distribution(system: System, driver: set[str], stream: str | None) -> None:
    plan = nvidia_plan(Host(system, (H100,)))
    assert plan.refusal is None
    assert set(plan.driver) == {*driver, "nvidia-persistenced"}
    assert set(plan.missing) == {*plan.driver, *plan.others}
    assert {*nvidia.TOOLKIT} <= set(plan.others)
    assert any(system.kernel in name for name in plan.others)  # DKMS builds for the kernel that runs
    assert plan.changes_driver
    assert plan.reboot
    if stream:
        assert stream in text_of(plan, "/etc/dnf/modules.d/nvidia-driver.module")
        assert "rhel9/x86_64\n" in text_of(plan, "/etc/yum.repos.d/heteroserve-nvidia.repo")
    else:
        assert "Pin: version 580.*\n" in text_of(plan, "/etc/apt/preferences.d/heteroserve-nvidia")
        source = text_of(plan, "/etc/apt/sources.list.d/heteroserve-nvidia.sources")
        assert f"{system.name.replace('-', '').replace('.', '')}/x86_64\n" in source


def test_a_host_as_wanted_is_left_alone() -> None:
    plan = nvidia_plan(driven())
    assert (plan.missing, plan.changes_driver, plan.reboot, plan.refusal) == ((), False, None, None)
    assert [service.started for service in plan.services] == [True]


@pytest.mark.parametrize(
    ("ids", "branch", "modules"),
    [
        (("10de:1db6",), 580, "proprietary"),  # V100
        (("10de:1eb8",), 580, "open"),  # T4
        (("10de:20b5", "10de:26b9"), 580, "open"),  # A100, L40S
        (("10de:2330",), 580, "open"),
        (("10de:2342",), 590, "open"),  # GH200
        (("10de:2901",), 580, "open"),  # B200
        (("10de:2bb5",), 580, "open"),  # RTX PRO 6000
        (("10de:3182",), 580, "open"),  # B300
        (("10de:1db6", "10de:20b5"), 580, "proprietary"),  # V100 beside A100
        (("10de:5fff",), 580, "open"),  # newer than the table
    ],
)
def test_kernel_modules_fit_all_gpus(ids: tuple[str, ...], branch: int, modules: str) -> None:
    assert choose_modules(tuple(Gpu(f"kind-{item}", item) for item in ids), branch, "auto")[0] == modules


@pytest.mark.parametrize(
    ("gpus", "changes", "sentence"),
    [
        ((V100, B200[0]), {}, "one kernel module cannot drive all GPUs"),
        ((V100,), {"branch": "590"}, "driven by branches up to 580 and nvidia_driver_branch is 590: set it to 580"),
        ((V100,), {"kernel_modules": "open"}, "nvidia_driver_kernel_modules is open"),
        ((B200[0],), {"kernel_modules": "proprietary"}, "needs the open one: set it to auto"),
        ((H100,), {"branch": "550"}, "set it to 580 or newer"),
        ((H100,), {"branch": "latest"}, "set it to 580 or newer"),
        ((H100,), {"version": "590.44.01"}, "nvidia_driver_version is 590.44.01 and nvidia_driver_branch 580"),
    ],
)
def test_what_cannot_be_is_refused(gpus: tuple[Gpu, ...], changes: dict[str, Any], sentence: str) -> None:
    plan = nvidia_plan(Host(UBUNTU, gpus), **changes)
    assert plan.refusal
    assert sentence in plan.refusal
    assert not plan.files


def test_every_card_of_the_tables_has_an_architecture() -> None:
    from heteroserve.facts.cards.nvidia import NVIDIA as CARDS

    found = {card.kind: architecture_of(Gpu(card.kind, item)).name for card in CARDS for item in card.pci_ids}
    assert "unknown" not in found.values()
    assert found["nvidia-a2-16gb"] == found["nvidia-a100-sxm-80gb"] == "Ampere"
    assert found["nvidia-l4-24gb"] == "Ada Lovelace"
    assert found["nvidia-h200-nvl-141gb"] == "Hopper"
    assert found["nvidia-rtx-pro-6000-server-96gb"] == "Blackwell"


@pytest.mark.parametrize(
    ("gpus", "switches", "fabric", "subnet"),
    [(HGX, 4, True, False), (HGX, 0, True, False), (B200, 0, True, True), ((H100,), 0, False, False)],
)
def test_only_switched_boards_get_the_fabric_manager(
    gpus: tuple[Gpu, ...], switches: int, fabric: bool, subnet: bool
) -> None:
    plan = nvidia_plan(Host(UBUNTU, gpus, switches))
    assert ("nvidia-fabricmanager" in plan.driver) is fabric  # of the driver's own version
    assert ("nvidia-fabricmanager" in [service.name for service in plan.services]) is fabric
    assert ("nvlsm" in plan.others) is subnet
    assert any(file.path.startswith("/etc/modules-load.d") for file in plan.files) is subnet


def test_a_gpu_in_use_keeps_its_driver() -> None:
    plan = nvidia_plan(driven(users=(MODEL,)), branch="590")
    assert plan.refusal == (
        "the NVIDIA driver has to change from 580.95.05 to branch 590, and its GPUs are used by"
        " VLLM::Worker_TP (process 4242): drain the host, or set nvidia_driver_when_busy: drain"
    )
    assert plan.busy == ("VLLM::Worker_TP (process 4242)",)


def test_a_gpu_in_use_does_not_stand_against_what_leaves_the_driver_alone() -> None:
    host = driven(users=(MODEL,))
    host = replace(host, packages={k: v for k, v in host.packages.items() if k not in nvidia.TOOLKIT})
    plan = nvidia_plan(host)
    assert plan.refusal is None
    assert plan.missing == nvidia.TOOLKIT


def test_a_drained_host_changes_its_driver() -> None:
    plan = nvidia_plan(driven(), branch="590", when_busy="drain")
    assert plan.refusal is None
    assert plan.changes_driver


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loaded": Module("575.57.08", "open")}, "the NVIDIA driver 575.57.08 runs and 580.95.05 is installed"),
        ({"loaded": Module("580.95.05", "proprietary")}, "the proprietary kernel modules run and the open ones are"),
        ({"loaded": None}, "the NVIDIA driver 580.95.05 is installed and not loaded"),
        ({"loaded": None, "nouveau": True}, "nouveau is loaded and holds the NVIDIA GPUs"),
    ],
)
def test_what_runs_is_compared_with_what_is_installed(changes: dict[str, Any], reason: str) -> None:
    plan = nvidia_plan(replace(driven(), **changes))
    assert plan.reboot
    assert reason in plan.reboot
    assert not any(service.started for service in plan.services)
    assert "nouveau" not in reason or text_of(plan, "/etc/modprobe.d/heteroserve-nouveau.conf")


def test_a_restart_that_did_not_help_is_not_asked_for_again() -> None:
    host = replace(driven(), loaded=None, boot="b", record={"restart": {"installed": "580.95.05", "boot": "a"}})
    plan = nvidia_plan(host)
    assert plan.reboot is None
    assert "although the host was restarted for it: look at `dkms status`" in (plan.refusal or "")
    assert nvidia_plan(replace(host, boot="a")).reboot  # the restart is still to come


def test_secure_boot_is_explained_before_anything_is_changed() -> None:
    bare = Host(UBUNTU, (H100,), secure_boot=True)
    plan = nvidia_plan(bare)
    assert "mokutil --import /var/lib/dkms/mok.pub" in (plan.refusal or "")
    assert not plan.files
    enrolled = replace(bare, module_key="/var/lib/shim-signed/mok/MOK.der", key_enrolled=True)
    assert nvidia_plan(enrolled).refusal is None
    assert nvidia_plan(driven(secure_boot=True)).refusal is None  # it runs: nothing has to be loaded again


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"foreign": "NVIDIA's .run installer, which goes with `nvidia-uninstall`"}, "is here from NVIDIA's .run"),
        ({"packages": {"linux-modules-nvidia-580-server-open-6.8.0-60-generic": "1"}}, "the distribution's own"),
        ({"system": System("fedora-42", "42", "", "6.14")}, "fedora-42 is not one of the systems"),
    ],
)
def test_another_drivers_house_is_not_entered(changes: dict[str, Any], sentence: str) -> None:
    plan = nvidia_plan(replace(Host(UBUNTU, (H100,)), **changes))
    assert sentence in (plan.refusal or "")
    assert "nvidia_driver_managed: false" in (plan.refusal or "")


def test_a_mirror_takes_the_vendors_place() -> None:
    plan = nvidia_plan(
        Host(DEBIAN, (H100,)),
        repository="http://mirror.example/nvidia bookworm main",
        repository_key="/root/mirror.asc",
        toolkit_repository="http://mirror.example/nvidia bookworm main",
    )
    source = text_of(plan, "/etc/apt/sources.list.d/heteroserve-nvidia.sources")
    assert "URIs: http://mirror.example/nvidia\nSuites: bookworm\nComponents: main\n" in source
    assert [file.source for file in plan.files if file.source] == ["/root/mirror.asc"]  # one mirror, listed once


def test_versions_are_those_that_all_packages_have() -> None:
    plan = nvidia_plan(Host(DEBIAN, HGX))
    both = ["590.44.01-1", "580.105.08-1", "580.95.05-1"]
    offers = {**dict.fromkeys(plan.driver, both), **{name: ["1.19.0-1", "1.18.1-1"] for name in nvidia.TOOLKIT}}
    offers["nvidia-fabricmanager"] = ["590.44.01-1", "580.95.05-1"]
    versions = choose_versions(plan, offers)
    assert {versions[name] for name in plan.driver} == {"580.95.05-1"}
    assert {versions[name] for name in nvidia.TOOLKIT} == {"1.18.1-1"}
    pinned = nvidia.pinned_to(plan, versions)
    assert "Pin: version 580.95.05-*\n" in text_of(pinned, "/etc/apt/preferences.d/heteroserve-nvidia")
    with pytest.raises(Refusal, match="does not have a version 580 of all packages"):
        choose_versions(plan, {**offers, "nvidia-fabricmanager": ["590.44.01-1"]})
    with pytest.raises(Refusal, match=r"nvidia-container-toolkit 1\.18\.1-1 \(it has 1\.19\.0-1\)"):
        choose_versions(plan, {**offers, "nvidia-container-toolkit": ["1.19.0-1"]})


def test_a_fabric_manager_of_another_version_is_brought_to_the_drivers() -> None:
    host = driven(gpus=HGX)
    host = replace(host, packages={**host.packages, "nvidia-fabricmanager": "580.65.06-1"})
    plan = nvidia_plan(host)
    assert plan.missing == ("nvidia-fabricmanager",)
    offers = {"nvidia-fabricmanager": ["580.105.08-1", "580.95.05-1"]}
    assert choose_versions(plan, offers) == {"nvidia-fabricmanager": "580.95.05-1"}


@pytest.mark.parametrize(
    ("system", "url"),
    [
        (UBUNTU, "URIs: https://repo.radeon.com/amdgpu/30.30.3/ubuntu\nSuites: noble\nComponents: main\n"),
        (DEBIAN, "URIs: https://repo.radeon.com/amdgpu/30.30.3/ubuntu\nSuites: jammy\nComponents: main\n"),
        (ROCKY, "baseurl=https://repo.radeon.com/amdgpu/30.30.3/el/9.6/main/x86_64\n"),
    ],
)
def test_amd_hosts_get_the_release(system: System, url: str) -> None:
    plan = amd_plan(Host(system, (MI300X,)))
    assert any(url in file.content for file in plan.files)
    assert plan.driver == ("amdgpu-dkms",)
    assert {"amd-smi-lib", "rocminfo", "amdgpu-dkms"} <= set(plan.missing)
    offers = {
        "amdgpu-dkms": ["1:6.16.13.30300400-2341068.22.04", "1:6.16.13.30300300-2327507.22.04"],
        "amd-smi-lib": ["26.2.2.70203-90~22.04"],
        "rocminfo": ["5.2.3-2", "1.0.0.70300-12~22.04", "1.0.0.70203-90~22.04"],
    }
    assert choose_versions(plan, offers) == {
        "amdgpu-dkms": "1:6.16.13.30300300-2327507.22.04",
        "amd-smi-lib": "26.2.2.70203-90~22.04",
        "rocminfo": "1.0.0.70203-90~22.04",
    }


def amd_driven(**changes: Any) -> Host:
    packages = {
        "amdgpu-dkms": "1:6.16.13.30300300-2327507.22.04",
        "amd-smi-lib": "26.2.2.70203-90~22.04",
        "rocminfo": "1.0.0.70203-90~22.04",
        f"linux-headers-{JAMMY.kernel}": "1",
    }
    host = Host(JAMMY, (MI300X,), packages=packages, loaded=Module("6.16.13", source="A1"))
    return replace(host, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"loaded": Module(None)}, "the kernel's own amdgpu runs and 6.16.13 is installed"),
        ({"loaded": Module("6.14.14")}, "the AMD driver 6.14.14 runs and 6.16.13 is installed"),
        ({"loaded": None}, "the AMD driver 6.16.13 is installed and not loaded"),
        ({"on_disk": Module("6.16.13", source="B2")}, "another build of the AMD driver 6.16.13 runs"),
    ],
)
def test_amds_running_module_is_compared(changes: dict[str, Any], reason: str | None) -> None:
    plan = amd_plan(amd_driven(**changes))
    assert (plan.missing, plan.refusal) == ((), None)
    assert reason is None if plan.reboot is None else reason is not None and reason in plan.reboot


def test_amds_gpu_in_use_keeps_its_driver() -> None:
    plan = amd_plan(amd_driven(users=(MODEL,)), version="30.30.4")
    assert "to release 30.30.4, and its GPUs are used by VLLM::Worker_TP (process 4242)" in (plan.refusal or "")
    assert "rocm_driver_when_busy: drain" in (plan.refusal or "")
    assert "set it to a release such as" in (amd_plan(amd_driven(), version="latest").refusal or "")


def test_a_host_without_the_vendors_gpu_gets_nothing() -> None:
    assert nvidia_plan(Host(UBUNTU, ())).files == amd_plan(Host(UBUNTU, ())).files == ()
    declared = {"server": "xe9680", "memory_gib": 2048, "accelerators": {"kind": "nvidia-h100-sxm-80gb", "count": 8}}
    assert gpus_of(declared, "amd") == ()
    assert gpus_of(declared, "nvidia") == (Gpu("nvidia-h100-sxm-80gb", "10de:2330", "nvswitch"),) * 8


def test_systems_and_packages_are_read() -> None:
    rocky = parse_system('ID="rocky"\nVERSION_ID="9.6"\n', "5.14", "x86_64")
    assert (rocky.name, rocky.version) == ("el-9", "9.6")
    ubuntu = parse_system('ID=ubuntu\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\n', "5.15", "aarch64")
    assert (ubuntu.name, ubuntu.codename) == ("ubuntu-22.04", "jammy")
    assert parse_dpkg("ii \ta\t1\nrc \tb\t2\nhi \tc\t3\n") == {"a": "1", "c": "3"}
    assert parse_rpm("kernel\t(none):5.14-1\nkmod\t3:580.95.05-1.el9\n") == {
        "kernel": "5.14-1",
        "kmod": "3:580.95.05-1.el9",
    }
    assert (upstream("3:580.95.05-1.el9"), upstream("580.95.05-0ubuntu1")) == ("580.95.05", "580.95.05")
    assert fits("580.95.05", "580")
    assert not fits("580.95.05", "58")
