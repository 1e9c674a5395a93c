"""Images of engines: where each comes from, what it is made of, and how a build reaches the package index.

A build's name ("vllm-cpu") names its folder in images/, its lock in requirements/ and its place in the registry.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..common.advice import advice
from ..common.packages import INDEXES, SETTINGS, local_path, uv_environment, uv_error, uv_step

REPOSITORY = "heteroserve"  # of all engine images, in the registry and in the build host's storage
CA_IN_BUILD = "/etc/pip-ca.pem"  # where the Containerfiles mount the secret ca


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. The same recipe is not built twice."""

    containerfile: str
    base: str
    sources: tuple[str, ...]  # texts of the files of ``copied``

    @property
    def digest(self) -> str:
        """Sixteen digits that are the image's tag too: a recipe that changed is another tag."""
        return hashlib.sha256("\0".join((self.containerfile, self.base, *self.sources)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """Where an image comes from: "reference" and "archive" are there already, "build" may have to be made."""

    kind: str
    reference: str = ""


def repository(build: str) -> str:
    """Where a registry keeps the images of a build."""
    return f"{REPOSITORY}/{build}"


def default_base(containerfile: str) -> str:
    """The base that a Containerfile names. Raises ValueError if it names none."""
    found = re.search(r"^ARG BASE=(\S+)$", containerfile, re.MULTILINE)
    if not found:
        raise ValueError("has no line ARG BASE=IMAGE")
    return found[1]


def copied(containerfile: str) -> list[str]:
    """Files of the project that a Containerfile copies: locks, and those of the package serving."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", containerfile, re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def locked_version(lock: str, package: str) -> str:
    """The version of a package in a lock file. Raises ValueError if it is not in it."""
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock, re.MULTILINE)
    if not found:
        raise ValueError(f"does not name {package}")
    return found[1]


def choose(
    build: str, references: Mapping[str, str], archived: Mapping[str, Mapping[str, str]], recipes: Iterable[str]
) -> Source:
    """The first of: a reference that was given, an archive that the registry has, a build. Raises ValueError.

    ``archived`` is what the role registry has pushed: full name -> digest and reference.
    """
    if build in references:
        reference = references[build]
        if not re.search(r"^\S+/\S+@sha256:[0-9a-f]{64}$", reference):
            raise ValueError(
                f"images_references: {build} is {reference!r}, which may become another image unseen: give its digest,"
                " as REGISTRY/NAME@sha256:..."
            )
        return Source("reference", reference)
    ours = {
        name: entry["reference"]
        for name, entry in archived.items()
        if re.fullmatch(rf"[^/]+/{re.escape(repository(build))}(:[^/]*)?", name)
    }
    if len(set(ours.values())) > 1:
        raise ValueError(
            f"the registry was given several archives of {build} ({', '.join(sorted(ours))}): leave one in"
            " registry_archives, or name the one to use in images_references"
        )
    if ours:
        return Source("archive", next(iter(ours.values())))
    if build not in recipes:
        raise ValueError(f"nothing says how {build} is built: name an image of it in images_references")
    return Source("build")


def local_folders(settings: Mapping[str, str]) -> dict[str, str]:
    """Folders of this machine among the settings: as they are written -> folder that must be readable in a build.

    The pages of an index name files beside it (../../packages), so its parent is needed too.
    """
    folders = {}
    for key in INDEXES:
        for word in settings.get(key, "").split():
            if path := local_path(word):
                folders[word] = path if key == "find-links" else path.rpartition("/")[0] or path
    return folders


def package_settings(settings: Mapping[str, str], served: Mapping[str, str], index: str = "") -> str:
    """Lines that a build's shell reads: pip's settings of the build host as variables of pip and of uv.

    ``served`` says at which address a build finds each folder of ``local_folders``; ``index`` replaces the usual index.
    """
    folders = local_folders(settings)

    def seen(word: str) -> str:
        if word not in folders:
            return word
        rest = unquote(urlsplit(word).path).rstrip("/").removeprefix(folders[word].rstrip("/"))
        return served[folders[word]].rstrip("/") + quote(rest) + "/"

    there = {
        key: " ".join(map(seen, value.split())) if key in INDEXES else value
        for key, value in settings.items()
        if key in SETTINGS
    }
    if index:
        there["index-url"] = index
    if settings.get("cert"):
        there["cert"] = CA_IN_BUILD
    variables = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in there.items()} | uv_environment(there)
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def step(line: str, what: str) -> str | None:
    """What a line that a build prints says of how far it is; None if it says nothing of that."""
    if found := re.match(r"(?:\[(\d+)/(\d+)\] )?STEP (\d+)(?:/(\d+))?: (\w+)", line):
        stage = f"stage {found[1]} of {found[2]}, " if found[1] else ""
        return f"{what}: {stage}step {found[3]}{f' of {found[4]}' if found[4] else ''} ({found[5]})"
    if line.startswith(("COMMIT", "Getting image source signatures")) or "] COMMIT" in line:
        return f"{what}: writing the image"
    said = uv_step(line)
    return f"{what}: {said}" if said else None


def explain(build: str, tail: Iterable[str]) -> str:
    """The last error of what a build printed, and what to do."""
    printed = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in tail]
    # The program repeats the step that failed, whole.
    lines = [
        line.strip() for line in printed if line.strip() and not re.search(r"\bSTEP \d+|while running runtime", line)
    ]
    errors = [line for line in lines if re.match(r"(ERROR|E|Error|\w+Error)\b:|.* not found$", line)]
    said = (uv_error(printed) or (errors or lines or ["it says nothing"])[-1])[:400].rstrip(".")
    todo = advice("build", "\n".join(lines)).format(build=build)
    return f"{said}; {todo}" if todo else said


def manifest_digest(headers: Mapping[str, Any]) -> str:
    """The digest that a registry's answer names. Raises ValueError if it names none."""
    digest = str(headers.get("Docker-Content-Digest", ""))
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError("its answer names no digest")
    return digest
