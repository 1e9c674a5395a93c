"""An archive says which images it holds, and which of them could be mistaken for another."""

from __future__ import annotations

from pathlib import Path

import pytest
from heteroserve.images.archives import ArchiveError, collisions, config_of, digest_of, full_name, read_archive

from tests.helpers.samples import config, digest, docker_archive, layer, oci_archive


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("rancher/pause:3.6", "docker.io/rancher/pause:3.6"),
        ("quay.io/kuberay/operator:v1.7.0", "quay.io/kuberay/operator:v1.7.0"),
        ("localhost/mine", "localhost/mine:latest"),
        ("10.0.0.1:5000/a/b", "10.0.0.1:5000/a/b:latest"),
        ("registry:5000/a", "registry:5000/a:latest"),
    ],
)
def test_a_name_is_completed_as_runtimes_do(written: str, full: str) -> None:
    assert full_name(written) == full


@pytest.mark.parametrize("written", ["", "a b", "-x", "docker.io/a@sha256:00"])
def test_what_is_no_name_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an image"):
        full_name(written)


def test_every_image_of_a_docker_archive_is_found(tmp_path: Path) -> None:
    docker_archive(tmp_path / "a.tar", {"example/one:1": "one", "ghcr.io/example/two": "two"})
    one, two = read_archive(tmp_path / "a.tar")
    assert (one.name, one.target, one.selector) == ("docker.io/example/one:1", "example/one:1", "example/one:1")
    assert (two.name, two.target) == ("ghcr.io/example/two:latest", "example/two:latest")
    assert one.config == digest(config(layer("one")))
    assert (one.transport, one.layers) == ("docker-archive", 1)


def test_an_oci_archive_is_read(tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", "quay.io/example/three:3", "three")
    (image,) = read_archive(tmp_path / "a.tar")
    assert (image.name, image.transport, image.selector) == ("quay.io/example/three:3", "oci-archive", "")
    assert image.config == digest(config(layer("three")))


def test_the_machines_platform_is_taken_from_an_index(tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", "quay.io/example/three:3", "three", ("arm64", "amd64"))
    (image,) = read_archive(tmp_path / "a.tar")
    assert image.config == digest(config(layer("three"), "amd64"))
    (image,) = read_archive(tmp_path / "a.tar", machine="aarch64")
    assert image.config == digest(config(layer("three"), "arm64"))
    oci_archive(tmp_path / "b.tar", "quay.io/example/three:3", "three", ("arm64",))
    with pytest.raises(ArchiveError, match="holds no image for linux/amd64"):
        read_archive(tmp_path / "b.tar")


def test_an_archive_without_a_name_asks_for_one(tmp_path: Path) -> None:
    oci_archive(tmp_path / "a.tar", "latest", "x")
    with pytest.raises(ArchiveError, match="does not say its image's name: set name for it in registry_archives"):
        read_archive(tmp_path / "a.tar")
    (image,) = read_archive(tmp_path / "a.tar", "example/x:1")
    assert image.name == "docker.io/example/x:1"


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"a\.tar: cannot be read as an archive"):
        read_archive(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"no archive")
    with pytest.raises(ArchiveError, match="cannot be read as an archive"):
        read_archive(tmp_path / "a.tar")
    docker_archive(tmp_path / "a.tar", {"a/b:1": "x" * 100_000})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match=r"a\.tar"):
        read_archive(tmp_path / "a.tar")


def test_two_images_with_one_name_are_a_fault_and_the_same_twice_is_none(tmp_path: Path) -> None:
    docker_archive(tmp_path / "a.tar", {"quay.io/x/y:1": "one"})
    docker_archive(tmp_path / "b.tar", {"docker.io/x/y:1": "two"})
    docker_archive(tmp_path / "c.tar", {"docker.io/x/y:1": "one"})
    first, other, same = (read_archive(tmp_path / name)[0] for name in ("a.tar", "b.tar", "c.tar"))
    assert collisions([first, same]) == []
    (fault,) = collisions([first, other])
    assert "are different images with one name in the registry, x/y:1" in fault


def test_a_manifest_tells_configuration_and_digest() -> None:
    assert config_of('{"config": {"digest": "sha256:ab"}}') == "sha256:ab"
    assert config_of('{"manifests": []}') is None
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
