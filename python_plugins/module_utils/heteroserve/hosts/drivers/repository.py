"""Repositories, their keys and their pins as files of apt and dnf."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .host import System
from .plan import File

HEAD = "# Written by HeteroServe.\n"
CUDA_MACHINES = {"x86_64": "x86_64", "aarch64": "sbsa"}
DEB_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Repository:
    """Where packages come from. ``suite`` "/" is a flat apt repository; dnf has neither suite nor component."""

    name: str
    url: str
    key: str
    suite: str = "/"
    component: str = ""


def filled(text: str, system: System, **more: str) -> str:
    """A text of the tables with its placeholders filled."""
    values = {
        "machine": CUDA_MACHINES.get(system.machine, system.machine),
        "deb_machine": DEB_MACHINES.get(system.machine, system.machine),
        "codename": system.codename,
        "minor": system.version,
        "kernel": system.kernel,
        **more,
    }
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def replaced(repository: Repository, mirror: str, key: str) -> Repository:
    """The mirror in the repository's place: "URL" or, for apt, "URL SUITE COMPONENT"; and its key."""
    url, *rest = mirror.split() or [repository.url]
    suite, component = (rest[0], " ".join(rest[1:])) if rest else (repository.suite, repository.component)
    return Repository(repository.name, url, key or repository.key, suite, component)


def key_path(repository: Repository, dnf: bool) -> str:
    """Where the key lies; apt takes an ASCII-armoured key by the ending asc."""
    return f"{'/etc/pki/rpm-gpg' if dnf else '/etc/apt/keyrings'}/heteroserve-{repository.name}.asc"


def merged(repositories: list[Repository]) -> list[Repository]:
    """One mirror may hold everything, and apt takes a suite of it only once."""
    found: dict[tuple[str, str], Repository] = {}
    for item in repositories:
        first = found.setdefault((item.url.rstrip("/"), item.suite), item)
        if item.component not in first.component.split():
            both = f"{first.component} {item.component}".strip()
            found[(item.url.rstrip("/"), item.suite)] = replace(first, component=both)
    return list(found.values())


def repository_files(repository: Repository, system: System) -> tuple[File, ...]:
    """The key and the source of a repository."""
    dnf = system.name.startswith("el-")
    key = key_path(repository, dnf)
    if dnf:
        text = (
            f"{HEAD}[heteroserve-{repository.name}]\nname=heteroserve-{repository.name}\nbaseurl={repository.url}\n"
            f"enabled=1\ngpgcheck=1\ngpgkey=file://{key}\n"
        )
        return File(key, source=repository.key), File(f"/etc/yum.repos.d/heteroserve-{repository.name}.repo", text)
    lines = ["Types: deb", f"URIs: {repository.url}", f"Suites: {repository.suite}"]
    lines += [f"Components: {repository.component}"] if repository.component else []
    lines += [f"Architectures: {DEB_MACHINES.get(system.machine, system.machine)}", f"Signed-By: {key}"]
    source = f"/etc/apt/sources.list.d/heteroserve-{repository.name}.sources"
    return File(key, source=repository.key), File(source, HEAD + "\n".join(lines) + "\n")


def pin_file(name: str, pins: tuple[tuple[str, str], ...], preferred: str = "") -> File:
    """apt's preferences: packages (names or globs), and what of them is taken ("version 580.*").

    Above 1000 apt goes back to an older version too, which a change of branch may be; the hold on the packages keeps
    it from doing so by itself. Of a ``preferred`` origin all packages are taken, but nothing goes back (600).
    """
    parts = [f"Package: {packages}\nPin: {pin}\nPin-Priority: 1001\n" for packages, pin in pins]
    parts += [f"Package: *\nPin: release o={preferred}\nPin-Priority: 600\n"] if preferred else []
    return File(f"/etc/apt/preferences.d/heteroserve-{name}", HEAD + "\n".join(parts))


def header_packages(system: System, packages: dict[str, str]) -> tuple[str, ...]:
    """Kernel headers that DKMS builds against: the running kernel's, and those that follow each kernel update."""
    if system.name.startswith("el-"):
        return (f"kernel-devel-{system.kernel}", "kernel-devel-matched")
    images = (name.removeprefix("linux-image-") for name in packages if name.startswith("linux-image-"))
    following = sorted(f"linux-headers-{item}" for item in images if not item[0].isdigit() and "unsigned" not in item)
    return (f"linux-headers-{system.kernel}", *following)
