"""An image is built once, pushed once, and nothing of the build host is left in it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from python_plugins.modules.images import image_build
from tests.helpers.module_runs import run_module

PUSHED = "sha256:" + "1" * 64
RECORDED = "sha256:" + "2" * 64
ENDPOINT = "10.0.0.1:5000"
# Has the images of the file `stored`, writes down what it is asked and given, fails as the file `fails` says.
PODMAN = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >>asked
case "$1" in
  info) echo '{"store": {"graphRoot": "'"$PWD"'"}}' ;;
  image) [ "$2" = inspect ] && echo 5000 || grep -qxF "$3" stored ;;
  images) cat listed ;;
  pull|build|push)
    [ "$2" = --help ] && { cat help; exit; }
    if grep -qs "^$1 " fails; then sed -n "s/^$1 //p" fails >&2; exit 1; fi
    for word; do case "$word" in
      --secret=*) cat "${word##*src=}" >>secrets ;;
      --digestfile=*) printf SUM >"${word#*=}" ;;
      --tag=*) echo "${word#*=}" >>stored ;;
      --authfile=*) stat -c %a "${word#*=}" >mode; cat "${word#*=}" >>auth ;;
    esac; done ;;
esac
""".replace("SUM", PUSHED)


class Host:
    """A build host with a podman, and a registry with the images of ``registry``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry: dict[str, str] = {}  # tag or digest -> digest
        program = folder / "podman"
        program.write_text(PODMAN)
        program.chmod(0o755)
        (folder / "stored").write_text("base:1\n")
        (folder / "help").write_text("  --compression-format string   compression format to use\n")
        names = [
            "localhost/heteroserve/vllm-cpu:abc",
            "localhost/heteroserve/vllm-cpu-2:abc",
            "quay.io/heteroserve/vllm-cpu:1",
        ]
        (folder / "listed").write_text(json.dumps([{"Names": [name]} for name in names]))

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def words(self) -> list[str]:
        """First words of what podman was asked for."""
        return [line.split()[0] for line in self.read("asked").splitlines()]

    def run(self, **options: Any) -> dict[str, Any]:
        given = {
            "build": "vllm-cpu",
            "containerfile": "FROM x\n",
            "sources": {"requirements/vllm-cpu.txt": "ray==2.60.0\n"},
            "base": "base:1",
            "inputs": "abc",
            "endpoint": ENDPOINT,
            "username": "me",
            "password": "pass-word",
            "authority": "certificate",
        }
        return run_module(image_build.main, {**given, **options})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path)
    monkeypatch.setattr(image_build.AnsibleModule, "tmpdir", str(tmp_path / "tmp"), raising=False)
    monkeypatch.setattr(image_build.Registry, "digest", lambda self, name, version: made.registry.get(version))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    mask = os.umask(0o022)
    os.umask(mask)
    yield made
    os.umask(mask)


def test_what_nobody_has_is_built_and_pushed(host: Host) -> None:
    results = host.run()
    assert (results["changed"], results["how"]) == (True, "built")
    assert results["reference"] == f"{ENDPOINT}/heteroserve/vllm-cpu@{PUSHED}"
    assert "docker://10.0.0.1:5000/heteroserve/vllm-cpu:abc" in host.read("asked")
    assert "--compression-format=zstd" in host.read("asked")


def test_a_tool_that_only_knows_gzip_is_not_asked_for_another(host: Host) -> None:
    (host.folder / "help").write_text("")
    assert host.run()["reference"].endswith(PUSHED)
    assert "--compression-format" not in host.read("asked")


def test_what_the_registry_has_is_left_alone_without_podman(host: Host) -> None:
    host.registry = {"abc": PUSHED}
    (host.folder / "podman").unlink()
    results = host.run()
    assert not results["changed"]
    assert results["reference"].endswith(PUSHED)


def test_the_recorded_image_counts_before_a_tag_that_was_moved(host: Host) -> None:
    host.registry = {"abc": PUSHED, RECORDED: RECORDED}
    results = host.run(recorded=f"{ENDPOINT}/heteroserve/vllm-cpu@{RECORDED}")
    assert results["reference"].endswith(RECORDED)
    # It was recorded for another registry: here it means nothing.
    assert host.run(recorded=f"other:5000/heteroserve/vllm-cpu@{RECORDED}")["reference"].endswith(PUSHED)


def test_an_emptied_registry_gets_the_image_back_without_a_build(host: Host) -> None:
    host.run()
    results = host.run(recorded=f"{ENDPOINT}/heteroserve/vllm-cpu@{PUSHED}")
    assert (results["changed"], results["how"]) == (True, "pushed")
    assert host.words().count("build") == 1


def test_check_mode_says_what_would_be_done_and_does_nothing(host: Host) -> None:
    assert host.run(_ansible_check_mode=True)["changed"]
    assert host.run(_ansible_check_mode=True, authority="")["changed"]  # before there is a registry
    assert host.words() == []
    host.registry = {"abc": PUSHED}
    assert not host.run(_ansible_check_mode=True)["changed"]


def test_no_secret_is_on_a_command_line_or_left_behind(host: Host) -> None:
    host.run()
    assert "pass-word" not in host.read("asked")
    assert "auths" in host.read("auth")
    assert host.read("mode").strip() == "600"
    assert not list((host.folder / "tmp").glob("*"))


def test_a_failed_build_leaves_no_secret_either(host: Host) -> None:
    (host.folder / "fails").write_text("build error: Failed to fetch: https://index.example/simple/ray/\n")
    results = host.run()
    assert results["failed"]
    assert "Failed to fetch: https://index.example/simple/ray/; set index-url" in results["msg"]
    assert not list((host.folder / "tmp").glob("*"))


def test_a_base_that_cannot_be_pulled_names_the_setting(host: Host) -> None:
    (host.folder / "fails").write_text("pull Error: pinging container registry docker.io: connection refused\n")
    results = host.run(base="docker.io/library/python:3.11.14")
    assert "set images_base.vllm-cpu" in results["msg"]
    assert "connection refused" in results["msg"]
    assert "build" not in host.words()


def test_a_disk_that_is_too_small_is_seen_before_the_build(host: Host) -> None:
    results = host.run(disk=10**18)
    assert "building vllm-cpu needs" in results["msg"]
    assert "build" not in host.words()


def test_a_host_without_podman_is_told_what_there_is_to_do(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_build.AnsibleModule, "get_bin_path", lambda self, name: None)
    results = host.run()
    for way in ("podman", "buildah", "images_host", "images_references.vllm-cpu"):
        assert way in results["msg"]


def test_a_registry_of_its_own_authority_is_needed(host: Host) -> None:
    assert "run playbooks/cluster.yml" in host.run(authority="")["msg"]


def test_pips_own_configuration_reaches_the_build(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = host.folder / "wheels"
    wheels.mkdir()
    (host.folder / "pip.conf").write_text(
        f"[global]\nindex-url = https://mirror.example/simple\nfind-links = {wheels}\n"
    )
    for name in ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(host.folder / "pip.conf"))
    host.run()
    given = host.read("secrets")
    assert "https://mirror.example/simple" in given
    assert "http://127.0.0.1:" in given
    assert str(wheels) not in given


def test_a_folder_is_served_for_as_long_as_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a+b.whl").write_text("wheel")
    with image_build.served(str(tmp_path)) as address:
        with urllib.request.urlopen(f"{address}/a%2Bb.whl", timeout=5) as answer:
            assert answer.read() == b"wheel"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}/../../etc/passwd", timeout=5)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/a%2Bb.whl", timeout=5)


def test_removing_takes_this_engines_images_only(host: Host) -> None:
    results = host.run(state="absent")
    assert results["removed"] == ["localhost/heteroserve/vllm-cpu:abc"]
    assert "rmi localhost/heteroserve/vllm-cpu:abc\n" in host.read("asked")
