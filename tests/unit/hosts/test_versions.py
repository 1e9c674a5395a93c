"""Differences from the versions that belong together: each is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from heteroserve.hosts.versions import (
    Pin,
    installed,
    of_components,
    of_environment,
    pins,
    version_in,
)

LOCK = """aiohttp==3.14.5 \\
    --hash=sha256:0133c3c3
numpy==2.2.6 ; python_full_version < '3.11' \\
    --hash=sha256:05
numpy==2.3.5 ; python_full_version >= '3.11' \\
    --hash=sha256:06
PyYAML==6.0.3 \\
    --hash=sha256:02
ray[serve]==2.60.0 \\
    --hash=sha256:03
uvloop==0.22.1 ; sys_platform != 'win32' \\
    --hash=sha256:04
# a comment==1.0
"""
FOLDERS = ["aiohttp", "aiohttp-3.14.5.dist-info", "pyyaml-6.0.3.dist-info", "ray-2.60.0.dist-info"]


def test_a_lock_is_read_as_pip_does() -> None:
    assert pins(LOCK) == {
        "aiohttp": Pin(("3.14.5",)),
        "numpy": Pin(("2.2.6", "2.3.5"), True),
        "pyyaml": Pin(("6.0.3",)),
        "ray": Pin(("2.60.0",)),
        "uvloop": Pin(("0.22.1",), True),
    }


def test_every_lock_of_the_project_has_pins(root: Path) -> None:
    for path in (root / "requirements").glob("*.txt"):
        if path.name != "drop-cpu.txt":
            text = path.read_text()
            versions = [version for pin in pins(text).values() for version in pin.versions]
            assert len(versions) == sum(line[:1].isalnum() for line in text.splitlines()), path.name


def test_what_is_installed_is_read_from_its_folder() -> None:
    assert installed(["nvidia_cublas-13.1.dist-info", "Zope.Interface-8.0.dist-info", "torch", "bin"]) == {
        "nvidia-cublas": "13.1",
        "zope-interface": "8.0",
    }


@pytest.mark.parametrize(
    ("torch", "folders", "lines"),
    [
        ("", FOLDERS, []),
        ("", [*FOLDERS, "uvloop-0.22.1.dist-info"], []),
        ("2.13.0", [*FOLDERS, "torch-2.13.0+cpu.dist-info"], []),
        ("", None, ["the environment vllm is not there"]),
        ("", FOLDERS[:-1], ["vllm: ray is not installed, and the lock has 2.60.0"]),
        ("", [*FOLDERS, "six-1.17.dist-info"], ["vllm: six 1.17 is installed, and the lock has none"]),
        ("", [*FOLDERS, "numpy-2.3.5.dist-info"], []),
        ("", [*FOLDERS, "numpy-2.0.dist-info"], ["vllm: numpy is 2.0, and the lock has 2.2.6 or 2.3.5"]),
        ("", [*FOLDERS, "uvloop-0.21.dist-info"], ["vllm: uvloop is 0.21, and the lock has 0.22.1"]),
        ("2.13.0", [*FOLDERS, "torch-2.12.0.dist-info"], ["vllm: torch is 2.12.0, and the lock has 2.13.0"]),
    ],
)
def test_an_environment_is_what_its_lock_says(torch: str, folders: list[str] | None, lines: list[str]) -> None:
    assert of_environment("vllm", LOCK, torch, folders) == lines


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("k3s version v1.34.2+k3s1 (ea9a0a1c)\ngo version go1.24.9", "1.34.2+k3s1"),
        ("NVIDIA Container Toolkit CLI version 1.18.1\ncommit: 8f", "1.18.1"),
        ("580.95.05", "580.95.05"),
        ("7.2.3-90", "7.2.3"),
        (None, ""),
        ("", ""),
    ],
)
def test_programs_say_their_version(printed: str | None, version: str) -> None:
    assert version_in(printed) == version


WANTED = {"k3s": "v1.34.2+k3s1", "nvidia driver": "580", "nvidia container toolkit": "1.18.1-1", "rocm": "7.2.3"}


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ({"k3s": "1.34.2+k3s1", "nvidia driver": "580.95.05", "nvidia container toolkit": "1.18.1", "rocm": ""}, []),
        ({}, []),
        ({"k3s": "1.34.2+k3s2"}, ["k3s is 1.34.2+k3s2, and the recipe has 1.34.2+k3s1"]),
        ({"nvidia driver": "575.51"}, ["nvidia driver is 575.51, and the recipe has 580"]),
        ({"nvidia driver": "5801.1"}, ["nvidia driver is 5801.1, and the recipe has 580"]),
        ({"rocm": "7.2.30"}, ["rocm is 7.2.30, and the recipe has 7.2.3"]),
    ],
)
def test_components_are_those_of_the_recipe(found: dict[str, str], lines: list[str]) -> None:
    assert of_components(WANTED, found) == lines
