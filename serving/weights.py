"""Bring a model's weights to this host as a folder of safetensors: ``python -m serving.weights SPEC.json``.

The folder appears only when it is whole and checked; what was fetched for it is kept until then, so a run that
was killed goes on where it stopped. Progress is printed as one line at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

MANIFEST = "heteroserve-weights.json"
WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model"]
CHUNK = 1024 * 1024


class Source(BaseModel):
    """Where the weights come from: a file of a Python package, or a repository of the Hugging Face hub."""

    model_config = ConfigDict(extra="forbid")

    package: str | None = None
    version: str | None = None
    file: str | None = Field(default=None, description="path of the GGUF file inside the package")
    sha256: str | None = Field(default=None, description="of ``file``")
    path: str | None = None
    hub: str | None = None
    revision: str | None = None


class Order(BaseModel):
    """What the module model_weights asks for."""

    model_config = ConfigDict(extra="forbid")

    name: str
    source: Source
    config: str = Field(default="config.json", description="the file that says what the weights are")
    target: Path = Field(description="folder of the finished model")
    downloads: Path = Field(description="folder for what is still incomplete")
    token_file: Path | None = Field(default=None, description="file with the hub's token")


class WeightsError(Exception):
    """One sentence that says what is wrong with the source and what to set."""


def say(line: str) -> None:
    """Tell the module that waits what is being done."""
    print(line, flush=True)


def contents(folder: Path) -> Iterator[Path]:
    """The files of a model folder that count, in a fixed order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.relative_to(folder).parts[0].startswith("."):
            yield path


def sha256_of(path: Path, label: str) -> str:
    """Hex digest of a file, with progress for large ones."""
    digest, done, size, told = hashlib.sha256(), 0, path.stat().st_size, time.monotonic()
    with path.open("rb") as stream:
        while block := stream.read(8 * CHUNK):
            digest.update(block)
            done += len(block)
            if time.monotonic() - told > 2:
                say(f"{label}: checking {path.name}, {done / 1e9:.1f} of {size / 1e9:.1f} GB")
                told = time.monotonic()
    return digest.hexdigest()


def write_manifest(folder: Path, source: Source) -> None:
    """Note size, time and checksum of every file, so that a later run sees a change without reading everything."""
    files = {
        str(path.relative_to(folder)): {
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "sha256": sha256_of(path, folder.name),
        }
        for path in contents(folder)
    }
    text = json.dumps({"source": source.model_dump(exclude_none=True), "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n")


def download(url: str, target: Path, sha256: str, label: str) -> None:
    """Fetch ``url`` into ``target``, going on after what an earlier run left in ``target``.partial.

    Raises WeightsError if the bytes are not those of ``sha256``; they are thrown away then.
    """
    part = target.with_name(target.name + ".partial")
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    for attempt in range(5):
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:
                resumed = response.status == 206
                total = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
                told = 0.0
                with part.open("ab" if resumed else "wb") as stream:
                    while block := response.read(CHUNK):
                        stream.write(block)
                        if time.monotonic() - told > 1:
                            say(f"{label}: fetched {stream.tell() / 1e6:.0f} of {total / 1e6:.0f} MB")
                            told = time.monotonic()
            if total and part.stat().st_size < total:
                raise urllib.error.URLError("the connection ended early")
            break
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: nothing is left to fetch
                raise WeightsError(f"{label}: {url} answers {error.code} {error.reason}") from error
            break
        except OSError as error:
            if attempt == 4:
                raise WeightsError(f"{label}: {url} cannot be fetched: {error}") from error
            time.sleep(2**attempt)
    found = sha256_of(part, label)
    if found != sha256:
        part.unlink()
        raise WeightsError(f"{label}: {url} has sha256 {found}, expected {sha256}; it was removed")
    os.replace(part, target)


def package_file(order: Order) -> Path:
    """The GGUF file of a Python package, unpacked and checked. pip says where the package lies; it is not installed."""
    source = order.source
    folder = order.downloads / f"{source.package}-{source.version}"
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = folder / Path(str(source.file)).name
    if unpacked.exists() and sha256_of(unpacked, order.name) == source.sha256:
        return unpacked
    say(f"{order.name}: asking the package index for {source.package} {source.version}")
    report = folder / "report.json"
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        + ["--disable-pip-version-check", "--report", str(report), f"{source.package}=={source.version}"],
        capture_output=True,
        text=True,
    )
    if asked.returncode != 0:
        words = " ".join(line for line in asked.stderr.splitlines() if line.startswith("ERROR")) or asked.stderr[-300:]
        raise WeightsError(f"{order.name}: source.package {source.package} {source.version}: {words}")
    found = json.loads(report.read_text())["install"][0]["download_info"]
    url, sha256 = found["url"], found["archive_info"]["hashes"]["sha256"]
    wheel = folder / Path(urllib.parse.urlparse(url).path).name
    if not wheel.exists():
        download(url, wheel, sha256, order.name)
    with zipfile.ZipFile(wheel) as archive:
        if source.file not in archive.namelist():
            inside = ", ".join(name for name in archive.namelist() if name.endswith(".gguf")) or "no .gguf file"
            raise WeightsError(f"{order.name}: source.file {source.file} is not in {wheel.name}, which has {inside}")
        say(f"{order.name}: unpacking {unpacked.name}")
        with archive.open(str(source.file)) as packed, unpacked.open("wb") as stream:
            shutil.copyfileobj(packed, stream, CHUNK)
    digest = sha256_of(unpacked, order.name)
    if digest != source.sha256:
        unpacked.unlink()
        raise WeightsError(f"{order.name}: {source.file} has sha256 {digest}, source.sha256 says {source.sha256}")
    wheel.unlink()
    return unpacked


def convert(gguf: Path, folder: Path, label: str) -> None:
    """Write a GGUF file's model as a bfloat16 safetensors checkpoint, which every engine here can load.

    The GGUF's quantised weights are unpacked: vLLM on the CPU has no kernels for them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    say(f"{label}: converting {gguf.name} to safetensors")
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # What is saved is an ordinary dense model: it must not claim to be quantised.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    say(f"{label}: writing the checkpoint")
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def from_hub(order: Order, folder: Path) -> None:
    """Fetch a repository of the hub at one commit; every large file is compared with the hub's checksum."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    source = order.source
    token = order.token_file.read_text().strip() if order.token_file else None
    asked = f"source.hub {source.hub}"
    try:
        say(f"{order.name}: asking the hub for {source.hub}")
        info = huggingface_hub.HfApi(token=token).model_info(
            str(source.hub), revision=source.revision, files_metadata=True
        )
        huggingface_hub.snapshot_download(
            str(source.hub), revision=info.sha, local_dir=folder, token=token, allow_patterns=WANTED
        )
    except GatedRepoError as error:
        raise WeightsError(
            f"{order.name}: {asked} asks you to accept its licence: accept it on the hub and set model_store_hf_token"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{order.name}: {asked} has no revision {source.revision}") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"{order.name}: {asked} does not exist, or model_store_hf_token may not read it") from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{order.name}: {asked} cannot be fetched: {str(error).splitlines()[0]}") from error
    for sibling in info.siblings or []:
        path = folder / sibling.rfilename
        if sibling.lfs and path.exists() and sha256_of(path, order.name) != sibling.lfs.sha256:
            path.unlink()
            raise WeightsError(f"{order.name}: {sibling.rfilename} differs from the hub's checksum; it was removed")
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def fetch(order: Order) -> None:
    """Make ``order.target``. Raises WeightsError."""
    fresh = order.downloads / f"{order.name}.fetching"
    if order.source.package:
        shutil.rmtree(fresh, ignore_errors=True)
        gguf = package_file(order)
        convert(gguf, fresh, order.name)
    else:
        fresh.mkdir(parents=True, exist_ok=True)
        from_hub(order, fresh)
    if not (fresh / order.config).exists() or not list(fresh.glob("*.safetensors")):
        raise WeightsError(f"{order.name}: the source has no {order.config} with safetensors, which the engines load")
    write_manifest(fresh, order.source)
    # safetensors creates files with mode 0600, but engines in pods run as another user.
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if order.target.exists():
        shutil.rmtree(order.target)
    order.target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(fresh, order.target)
    if order.source.package:
        shutil.rmtree(gguf.parent)


if __name__ == "__main__":
    try:
        fetch(Order.model_validate_json(Path(sys.argv[1]).read_text()))
    except WeightsError as fault:
        sys.exit(str(fault))
