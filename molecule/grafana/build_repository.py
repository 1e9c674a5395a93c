#!/usr/bin/python3
"""A signed apt repository with two versions of a package that stands in for Grafana's, and one that nobody asked for.

usage: build_repository.py FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "drivers"))

from build_repository import UNIT, index, package  # type: ignore[import-not-found]  # noqa: E402

VERSIONS = ("12.4.5", "12.4.6")


def main() -> None:
    """Build all, with a key that is made for the purpose."""
    out = Path(sys.argv[1])
    packages = out / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    program = (HERE / "files" / "grafana.py").read_text()
    files = {
        "/usr/share/grafana/bin/grafana": program,
        "/lib/systemd/system/grafana-server.service": UNIT.format(name="grafana-server"),
    }
    for version in VERSIONS:
        package(packages, "grafana", version, {**files, "/usr/share/grafana/VERSION": version})
    package(packages, "hello", "99.0")
    with tempfile.TemporaryDirectory() as home:
        gpg = ["gpg", "--homedir", home, "--batch"]
        make = ["--passphrase", "", "--quick-generate-key", "stand-in <nobody@invalid>", "ed25519", "sign", "never"]
        subprocess.run([*gpg, *make], check=True, capture_output=True)
        index(packages, home)
        key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
    with tarfile.open(out / "packages.tar", "w") as tar:
        tar.add(packages, ".")
    (out / "key.asc").write_bytes(key)


if __name__ == "__main__":
    main()
