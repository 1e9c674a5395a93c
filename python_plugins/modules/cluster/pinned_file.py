#!/usr/bin/python
"""Ansible module: a file that is known by its checksum, downloaded or copied."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pinned_file
short_description: Put a pinned file in place, from a folder or a download
description:
  - Takes the first of O(paths) that exists, or downloads O(url) where no path is named. The file must have the digest
    of O(sha256), else of O(sums), else the one that O(lock) recorded when it was first fetched. A file with another
    digest is refused and nothing is written. Without O(lock), one of the others has to know it.
  - A file that is in place and known is left alone, without any download.
options:
  dest: {description: Where the file is wanted. Without it the first of O(paths) is checked only., type: path}
  paths:
    description: "Files that may be its source. C({os}) and C({arch}) stand for the machine, such as linux and amd64."
    type: list
    elements: str
    default: []
  url: {description: Where it is downloaded if O(paths) is empty., type: str, default: ""}
  member: {description: Name of the file inside the source where that is a tar archive., type: str, default: ""}
  sha256: {description: Digest of the source., type: str, default: ""}
  sums: {description: Digests by file name., type: dict, default: {}}
  lock: {description: File that remembers what was fetched., type: path}
  setting: {description: Name of the setting for messages., type: str, required: true}
  mode: {description: Mode of the file., type: str, default: "0600"}
  timeout: {description: Seconds without a byte before a download is given up., type: int, default: 60}
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the chart is here
  pinned_file:
    dest: /var/lib/heteroserve/charts/nvidia-device-plugin-0.18.0.tgz
    url: https://nvidia.github.io/k8s-device-plugin/stable/nvidia-device-plugin-0.18.0.tgz
    sha256: 3abe7949ce08e14dac6a3ebf81d6e2ed3fca15a0a0fb751e67de40c72761d4e4
    lock: /var/lib/heteroserve/charts.lock.json
    setting: gpu_device_plugin_charts
"""

RETURN = r"""
sha256: {description: Digest of the source., returned: success, type: str}
source: {description: Where the file came from., returned: success, type: str}
"""

import json
import os
import platform
import shutil
import tarfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import sha256_of, write_whole
from ansible.module_utils.heteroserve.common.pins import Pin, digest_fault, fill, no_source, pin_of
from ansible.module_utils.urls import open_url

PIECE = 1 << 20


def read_lock(path: Path | None) -> dict[str, dict[str, str]]:
    """What is remembered: of sources their digest, of files in place the digests of file and source."""
    try:
        data = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {"sources": {}, "files": {}}
    return {"sources": dict(data.get("sources", {})), "files": dict(data.get("files", {}))}


def download(url: str, target: Path, timeout: int) -> None:
    """Fetch ``url`` into ``target``. Raises ``OSError`` (urllib's errors are of that kind)."""
    with open_url(url, timeout=timeout) as answer, target.open("wb") as stream:
        while piece := answer.read(PIECE):
            stream.write(piece)


def unpack(source: Path, member: str, target: Path) -> bool:
    """Write the member of an archive, or the file itself where it is no archive. False if there is no such member."""
    if not member or not tarfile.is_tarfile(source):
        if source != target:
            shutil.copyfile(source, target)
        return True
    with tarfile.open(source) as archive:
        try:
            stream = archive.extractfile(member)
        except KeyError:
            return False
        if stream is None:
            return False
        unpacked = target.with_name(f"{target.name}.member")
        with unpacked.open("wb") as out:
            shutil.copyfileobj(stream, out, PIECE)
    os.replace(unpacked, target)
    return True


def in_place(dest: Path, pin: Pin, files: dict[str, str]) -> bool:
    """Whether the file is there, as it was written from the pinned source."""
    if not pin.digest or not dest.is_file():
        return False
    found = sha256_of(dest)
    return files.get(str(dest)) == f"{found} {pin.digest}" or found == pin.digest


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path"},
            "paths": {"type": "list", "elements": "str", "default": []},
            "url": {"type": "str", "default": ""},
            "member": {"type": "str", "default": ""},
            "sha256": {"type": "str", "default": ""},
            "sums": {"type": "dict", "default": {}},
            "lock": {"type": "path"},
            "setting": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0600"},
            "timeout": {"type": "int", "default": 60},
        },
        required_one_of=[("dest", "paths")],
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    lock_path = Path(asked["lock"]) if asked["lock"] else None
    system, machine = platform.system(), platform.machine()
    paths = [fill(path, system, machine) for path in asked["paths"]]
    url = "" if paths else fill(asked["url"], system, machine)
    dest = Path(asked["dest"] or paths[0])
    lock = read_lock(lock_path)
    local = next((Path(path) for path in paths if Path(path).is_file()), None)
    if paths and local is None:
        module.fail_json(msg=no_source(dest.name, paths, ""))
    name = local.name if local else url.rpartition("/")[2]
    pin = pin_of(name, asked["sha256"], asked["sums"], lock["sources"])
    if not pin.digest and lock_path is None:
        module.fail_json(msg=f"{name} is not known: set {asked['setting']} to its SHA-256")
    found = sha256_of(local) if local else ""
    fault = digest_fault(str(local), found, pin, asked["setting"]) if local else None
    if fault:
        module.fail_json(msg=fault)
    source = str(local or url)
    if not asked["dest"]:
        module.exit_json(changed=False, sha256=found, source=source)
    if in_place(dest, pin, lock["files"]):
        loose = dest.stat().st_mode & 0o7777 != int(asked["mode"], 8)
        if loose and not module.check_mode:
            dest.chmod(int(asked["mode"], 8))
        module.exit_json(changed=loose, sha256=pin.digest, source=source)
    if module.check_mode:
        module.exit_json(changed=True, sha256=found or pin.digest, source=source)
    dest.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = dest.with_name(f".{dest.name}.new")
    try:
        if local is None:
            try:
                download(url, fresh, asked["timeout"])
            except OSError as error:
                module.fail_json(msg=f"{no_source(dest.name, [], url)} ({error})")
            found = sha256_of(fresh)
            fault = digest_fault(url, found, pin, asked["setting"])
            if fault:
                module.fail_json(msg=fault)
        member = fill(asked["member"], system, machine)
        if not unpack(local or fresh, member, fresh):
            module.fail_json(msg=f"{source} holds no {member}: fetch another file")
        fresh.chmod(int(asked["mode"], 8))
        os.replace(fresh, dest)
    finally:
        fresh.unlink(missing_ok=True)
    if lock_path:
        lock["sources"][name] = found
        lock["files"][str(dest)] = f"{sha256_of(dest)} {found}"
        write_whole(lock_path, json.dumps(lock, indent=2, sort_keys=True) + "\n")
    module.exit_json(changed=True, sha256=found, source=source)


if __name__ == "__main__":
    main()
