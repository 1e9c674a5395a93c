#!/usr/bin/python3
"""Signed apt repositories of packages that stand in for the vendors': their names, versions, dependencies and units.

usage: build_repository.py FOLDER KERNEL
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

UNIT = """[Unit]
Description={name}
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
SMI = "#!/bin/sh\necho 'No devices were found'\nexit 6\n"
# The driver's versions: 580.105.08 has no fabric manager, as happens when the vendor publishes in steps.
DRIVERS = {"580.95.05-1": True, "580.105.08-1": False, "590.44.01-1": True}
TOOLKIT = (
    "nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1",
)  # fmt: skip


def package(folder: Path, name: str, version: str, files: dict[str, str] | None = None, **fields: str) -> None:
    """Build one package."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for path, text in (files or {}).items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o755 if text.startswith("#!") else 0o644)
        control = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "nobody <nobody@invalid>"}
        control |= {key.replace("_", "-"): value for key, value in fields.items()} | {"Description": "stands in"}
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items()))
        root.chmod(0o755)
        target = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, target], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip


def unit(name: str) -> dict[str, str]:
    """A daemon's unit."""
    return {f"/lib/systemd/system/{name}.service": UNIT.format(name=name)}


def nvidia(folder: Path, kernel: str) -> None:
    """Debian 12's names."""
    for version, fabric in DRIVERS.items():
        own = version.split("-")[0]
        module = {f"/lib/modules/{kernel}/updates/dkms/nvidia.ko": f"version {own}\n"}
        cuda = f"libcuda1 (= {version}), nvidia-kernel-open-dkms (= {version}) | nvidia-kernel-dkms (= {version})"
        package(folder, "nvidia-driver-cuda", version, {"/usr/bin/nvidia-smi": SMI}, Depends=cuda)
        package(folder, "libcuda1", version, {f"/usr/lib/nvidia/libcuda.so.{own}": own})
        package(folder, "nvidia-kernel-open-dkms", version, module, Conflicts="nvidia-kernel-dkms")
        package(folder, "nvidia-kernel-dkms", version, module, Conflicts="nvidia-kernel-open-dkms")
        package(folder, "nvidia-persistenced", version, unit("nvidia-persistenced"))
        if fabric:
            package(folder, "nvidia-fabricmanager", version, unit("nvidia-fabricmanager"))
    package(folder, f"linux-headers-{kernel}", "1.0-1")


def toolkit(folder: Path, _: str) -> None:
    """Two versions, so that the pin has something to hold off."""
    for version in ("1.18.1-1", "1.19.0-1"):
        for name in TOOLKIT:
            files = {"/usr/bin/nvidia-container-runtime": "#!/bin/sh\n"} if name == TOOLKIT[0] else {}
            package(folder, name, version, files)


def amd(folder: Path, kernel: str) -> None:
    """Ubuntu 22.04's versions, which Debian 12 takes too."""
    for mark in ("30300300-2327507", "30300400-2341068"):
        package(folder, "amdgpu-dkms", f"1:6.16.13.{mark}.22.04")
    for name, version in {"amd-smi-lib": "26.2.2", "rocminfo": "1.0.0"}.items():
        package(folder, name, f"{version}.70203-90~22.04")
        package(folder, name, f"{version}.70300-12~22.04")
    package(folder, f"linux-headers-{kernel}", "1.0-1")


def index(folder: Path, home: str) -> None:
    """Packages, and a signed Release."""
    entries = []
    for deb in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        entries.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
    text = "\n".join(entries)
    (folder / "Packages").write_text(text)
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    digest = hashlib.sha256(text.encode()).hexdigest()
    release = f"Origin: stand-in\nSuite: stable\nDate: {date}\nSHA256:\n {digest} {len(text.encode())} Packages\n"
    (folder / "Release").write_text(release)
    gpg = ["gpg", "--homedir", home, "--batch", "--yes", "--clearsign", "--output", folder / "InRelease"]
    subprocess.run([*gpg, folder / "Release"], check=True, capture_output=True)


def main() -> None:
    """Build all, with a key that is made for the purpose."""
    out, kernel = Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--homedir", home, "--batch"]
        make = ["--passphrase", "", "--quick-generate-key", "stand-in <nobody@invalid>", "ed25519", "sign", "never"]
        subprocess.run([*gpg, *make], check=True, capture_output=True)
        for name, build in {"nvidia": nvidia, "toolkit": toolkit, "amd": amd}.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            build(folder, kernel)
            index(folder, home)
        key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
    with tarfile.open(out / "mirror.tar", "w") as tar:
        for name in ("nvidia", "toolkit", "amd"):
            tar.add(out / name, name)
    (out / "key.asc").write_bytes(key)


if __name__ == "__main__":
    main()
