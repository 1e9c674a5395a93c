"""Small archives of images and small checkpoints, made by the standard library alone, so that hosts can make them too.

python samples.py archives FOLDER         one docker-archive with two images, one oci-archive
python samples.py checkpoint FOLDER MB    a folder as engines want it: config.json and two safetensors files
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sys
import tarfile
from pathlib import Path


def digest(content: bytes) -> str:
    """As registries write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer(text: str) -> bytes:
    """A layer with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        add(tar, "hello", text.encode())
    return stream.getvalue()


def config(content: bytes, architecture: str = "amd64") -> bytes:
    """The configuration of an image with one layer."""
    rootfs = {"type": "layers", "diff_ids": [digest(content)]}
    return json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a file into an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def docker_archive(path: Path, images: dict[str, str]) -> None:
    """What ``docker save`` writes: name -> text of its one file."""
    manifest = []
    with tarfile.open(path, "w") as tar:
        for name, text in images.items():
            content = layer(text)
            folder = hashlib.sha1(name.encode()).hexdigest()
            add(tar, f"{folder}/layer.tar", content)
            add(tar, f"{folder}.json", config(content))
            tags = [name] if name else None
            manifest.append({"Config": f"{folder}.json", "RepoTags": tags, "Layers": [f"{folder}/layer.tar"]})
        add(tar, "manifest.json", json.dumps(manifest).encode())


def oci_archive(path: Path, name: str, text: str, architectures: tuple[str, ...] = ()) -> None:
    """What ``podman save --format oci-archive`` writes; with architectures, an index of several images."""
    content = layer(text)
    blobs = {digest(content): content}
    manifests = []
    for architecture in architectures or ("amd64",):
        described = config(content, architecture)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": entry("application/vnd.oci.image.config.v1+json", described),
                "layers": [entry("application/vnd.oci.image.layer.v1.tar", content)],
            }
        ).encode()
        blobs |= {digest(described): described, digest(manifest): manifest}
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({**entry("application/vnd.oci.image.manifest.v1+json", manifest), "platform": platform})
    top = manifests[0]
    if architectures:
        index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        blobs[digest(index)] = index
        top = entry("application/vnd.oci.image.index.v1+json", index)
    top = {**top, "annotations": {"org.opencontainers.image.ref.name": name}}
    with tarfile.open(path, "w") as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}).encode())
        for name_of, blob in blobs.items():
            add(tar, "blobs/" + name_of.replace(":", "/"), blob)


def entry(media_type: str, content: bytes) -> dict[str, object]:
    """How an OCI document refers to another."""
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def safetensors(path: Path, size: int, seed: int = 0) -> None:
    """A file of one tensor with ``size`` bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(size))


def checkpoint(folder: Path, size: int) -> None:
    """A folder of weights in two files of ``size`` bytes, with an index that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        safetensors(folder / name, size, number)
    index = {"weight_map": {f"tensor.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    what, target = sys.argv[1], Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    if what == "archives":
        docker_archive(target / "two.tar", {"example/one:1": "one", "ghcr.io/example/two:2": "two"})
        oci_archive(target / "three.tar", "quay.io/example/three:3", "three")
    else:
        checkpoint(target, int(sys.argv[3]) * 1_000_000)
