"""Archives of container images: which images they hold, and under which name a registry keeps each."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.pins import ARCHITECTURES

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
NAME_KEYS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class ArchiveError(Exception):
    """One sentence that says what is wrong with an archive and what to do."""


@dataclass(frozen=True)
class ArchivedImage:
    """One image of an archive. Its configuration's digest names its content: layers and all."""

    archive: str
    transport: str  # of skopeo: "docker-archive" or "oci-archive"
    selector: str  # what skopeo picks it by, where the archive holds several; else ""
    name: str  # in full, such as docker.io/library/busybox:1.37
    config: str  # sha256:...
    layers: int
    bytes: int  # of the archive

    @property
    def target(self) -> str:
        """The name in the registry: without the part that says which registry it is from."""
        return self.name.partition("/")[2]


def full_name(reference: str) -> str:
    """A reference as container runtimes complete it. Raises ValueError if it is none."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.:/-]*", reference):
        raise ValueError(f"{reference!r} is not the name of an image")
    first, slash, rest = reference.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", reference if slash else f"library/{reference}"
    if ":" not in rest.rpartition("/")[2]:
        rest += ":latest"
    return f"{first}/{rest}"


def read_archive(path: Path, name: str | None = None, machine: str = "x86_64") -> list[ArchivedImage]:
    """The images of a docker-archive or an oci-archive. Raises ArchiveError.

    Of an image for several platforms it is the one for Linux on ``machine``, as ``uname -m`` names it.
    """
    try:
        with tarfile.open(path) as tar:
            files = {member.name.removeprefix("./"): member for member in tar if member.isfile()}

            def content(inside: str) -> bytes:
                if inside not in files:
                    raise ArchiveError(f"{path}: {inside} is missing in it: it was cut short, make it again")
                stream = tar.extractfile(files[inside])
                assert stream is not None
                return stream.read()

            if "manifest.json" in files:
                found = _docker_images(path, json.loads(content("manifest.json")), content)
            elif "index.json" in files:
                found = _oci_images(
                    path, json.loads(content("index.json")), content, ARCHITECTURES.get(machine, machine)
                )
            else:
                raise ArchiveError(f"{path}: holds no image: make it with podman save, docker save or skopeo copy")
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise ArchiveError(f"{path}: cannot be read as an archive of images ({error})") from error
    if name and len(found) == 1:
        found = [(name, *found[0][1:])]
    size = path.stat().st_size
    images = []
    for reference, transport, selector, config, layers in found:
        if not reference or not re.search(r"[/:]", reference):
            raise ArchiveError(f"{path}: does not say its image's name: set name for it in registry_archives")
        picked = selector if len(found) > 1 else ""
        try:
            images.append(ArchivedImage(str(path), transport, picked, full_name(reference), config, layers, size))
        except ValueError as error:
            raise ArchiveError(f"{path}: {error}: set name for it in registry_archives") from error
    return images


def _docker_images(path: Path, manifest: list[dict[str, Any]], content: Any) -> list[tuple[str, str, str, str, int]]:
    found = []
    for image in manifest:
        config = "sha256:" + hashlib.sha256(content(image["Config"])).hexdigest()
        for tag in image.get("RepoTags") or [""]:
            found.append((tag, "docker-archive", tag, config, len(image["Layers"])))
    return found


def _oci_images(
    path: Path, index: dict[str, Any], content: Any, architecture: str
) -> list[tuple[str, str, str, str, int]]:
    found = []
    for entry in index["manifests"]:
        annotations = entry.get("annotations") or {}
        name = next((annotations[key] for key in NAME_KEYS if annotations.get(key)), "")
        manifest = json.loads(content(_blob(entry["digest"])))
        if entry.get("mediaType") in INDEXES:
            manifest = json.loads(content(_blob(_of_platform(path, manifest["manifests"], architecture))))
        selector = annotations.get(NAME_KEYS[1], "")
        found.append((name, "oci-archive", selector, manifest["config"]["digest"], len(manifest["layers"])))
    return found


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _of_platform(path: Path, manifests: list[dict[str, Any]], architecture: str) -> str:
    for entry in manifests:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return str(entry["digest"])
    raise ArchiveError(
        f"{path}: holds no image for linux/{architecture}: fetch it with --platform linux/{architecture}"
    )


def collisions(images: list[ArchivedImage]) -> list[str]:
    """A sentence for every name that two different images would have in the registry."""
    first: dict[str, ArchivedImage] = {}
    faults = []
    for image in images:
        other = first.setdefault(image.target, image)
        if other.config != image.config:
            faults.append(
                f"{image.name} ({image.archive}) and {other.name} ({other.archive}) are different images with one"
                f" name in the registry, {image.target}: give one of them another tag with name in registry_archives"
            )
    return faults


def config_of(manifest: str) -> str | None:
    """The digest of the configuration that a manifest names; None for an index of several platforms."""
    config = json.loads(manifest).get("config") or {}
    return config.get("digest")


def digest_of(manifest: bytes) -> str:
    """The digest by which a registry knows a manifest: of its bytes as they are."""
    return "sha256:" + hashlib.sha256(manifest).hexdigest()
