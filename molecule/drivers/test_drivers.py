"""What the roles leave on a host with NVIDIA GPUs, one with AMD GPUs and one with none."""

from __future__ import annotations

import json
from typing import Any

import pytest

NVIDIA = {
    "nvidia-driver-cuda": "580.95.05-1",
    "nvidia-kernel-open-dkms": "580.95.05-1",
    "libcuda1": "580.95.05-1",
    "nvidia-persistenced": "580.95.05-1",
    "nvidia-fabricmanager": "580.95.05-1",
    "nvidia-container-toolkit": "1.18.1-1",
    "libnvidia-container1": "1.18.1-1",
}
AMD = {
    "amdgpu-dkms": "1:6.16.13.30300300-2327507.22.04",
    "amd-smi-lib": "26.2.2.70203-90~22.04",
    "rocminfo": "1.0.0.70203-90~22.04",
}


def name_of(host: Any) -> str:
    return str(host.check_output("hostname"))


@pytest.mark.parametrize(("machine", "packages"), [("agent-1", NVIDIA), ("agent-2", AMD)])
def test_packages_are_pinned_and_held(host: Any, machine: str, packages: dict[str, str]) -> None:
    if name_of(host) != machine:
        pytest.skip("another host")
    found = {name: str(host.package(name).version) for name in packages}
    assert found == {name: version.removeprefix("1:") for name, version in packages.items()} or found == packages
    held = set(host.check_output("apt-mark showhold").split())
    assert held == {name for name in packages if name.startswith(("nvidia-", "amdgpu"))} - {"nvidia-container-toolkit"}
    # Newer versions are in the repository, and an ordinary upgrade would not take them.
    upgrade = host.check_output("apt-get --simulate -o APT::Ignore-Hold=true dist-upgrade")
    assert not [line for line in upgrade.splitlines() if line.split()[0] == "Inst" and line.split()[1] in packages]


def test_nvidia_waits_for_a_restart_without_nouveau(host: Any) -> None:
    if name_of(host) != "agent-1":
        pytest.skip("another host")
    assert host.file("/etc/modprobe.d/heteroserve-nouveau.conf").contains("^blacklist nouveau$")
    reason = host.file("/run/heteroserve/reboot.d/nvidia_driver").content_string
    assert reason == "the driver nouveau is loaded and holds the NVIDIA GPUs\n"
    for unit in ("nvidia-persistenced", "nvidia-fabricmanager"):
        assert host.service(unit).is_enabled
        assert not host.service(unit).is_running  # the driver that it needs is not loaded


def test_amd_waits_for_a_restart(host: Any) -> None:
    if name_of(host) != "agent-2":
        pytest.skip("another host")
    reason = host.file("/run/heteroserve/reboot.d/rocm_driver").content_string
    assert reason == "the kernel's own amdgpu runs and 6.16.13 is installed\n"
    assert host.group("render").exists
    assert not host.file("/etc/modprobe.d/heteroserve-nouveau.conf").exists


def test_repositories_are_signed_by_their_own_key(host: Any) -> None:
    names = {"agent-1": {"nvidia", "nvidia-toolkit"}, "agent-2": {"amdgpu"}, "server-1": set()}[name_of(host)]
    for name in names:
        source = host.file(f"/etc/apt/sources.list.d/heteroserve-{name}.sources").content_string
        assert f"Signed-By: /etc/apt/keyrings/heteroserve-{name}.asc\n" in source
        assert "trusted" not in source.lower()


def test_a_host_without_gpu_is_untouched(host: Any) -> None:
    if name_of(host) != "server-1":
        pytest.skip("another host")
    assert not host.file("/run/heteroserve/reboot.d").exists
    for name in ("nvidia_driver", "rocm_driver"):
        assert not host.file(f"/var/lib/heteroserve/was/{name}.json").exists
    before = json.loads(host.file("/srv/drivers-before.json").content_string)
    assert host.check_output("dpkg-query -W -f '${Package}\n'").split() == before["packages"]
