#!/usr/bin/python
"""Ansible module: a model's weights on this host, as the store has them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_copy
short_description: Copy a model's weights from the store, file by file, and check every one
description:
  - Fetches by rsync what the folder O(path) lacks, and compares SHA-256 with what the store's host told Ansible.
    The folder appears when all of it is right; a copy that was cut short goes on at the next run where it stopped.
  - Another host that has the weights (O(relay)) is asked first. If it is down or slow or gives something else, the
    store is asked for what is missing then.
  - A file that is not what it should be is fetched again and put in the place of the wrong one.
  - Where the operator has put the weights on this host (O(origin)), nothing is copied and O(path) is a link to them.
options:
  name: {description: The model's name., type: str, required: true}
  path: {description: Folder of the weights on this host., type: path, required: true}
  config: {description: The file that says what the weights are., type: str, default: config.json}
  origin: {description: Folder that the operator names as the source., type: path}
  reader: {description: Uid and gid of the user that has to be able to read O(origin)., type: int}
  files: {description: Size and sha256 of each file as M(model_manifest) returns them., type: dict, required: true}
  url: {description: Where the store offers the folder; nothing on the store's own host., type: str}
  relay: {description: Where another host offers it., type: str}
  fetch:
    description: Whether what is missing is fetched. If not, it is only said (RV(lacks)), and all else is done.
    type: bool
    default: true
  store: {description: "Name of the store's host, for sentences.", type: str, required: true}
  offer: {description: A file that is there while this host offers weights to others., type: path}
  limit_mb: {description: MB a second at most; 0 for no limit., type: int, default: 0}
  verify:
    description: Whether to read every file again even if size and time are unchanged.
    type: bool
    default: false
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure the host has the weights
  model_copy:
    name: llama
    path: /var/lib/heteroserve/models/llama
    files: "{{ offered.files }}"
    url: rsync://10.20.5.13:8730/llama/
    store: r7615-1
"""

RETURN = r"""
bytes: {description: Size of the weights., returned: success, type: int}
fetched: {description: Files that were fetched., returned: success, type: list}
lacks: {description: Whether files are missing that would have been fetched., returned: success, type: bool}
offers: {description: Whether O(offer) is there., returned: success, type: bool}
whole:
  description: Whether each file was compared with the store's checksum, so that other hosts may copy the folder.
  returned: success
  type: bool
"""

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import locked, missing_space, remove_tree, write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.models.spread import SLOW
from ansible.module_utils.heteroserve.models.weights import (
    MANIFEST,
    checksums,
    contents,
    differing,
    fault_of_files,
    note,
    read_manifest,
    unreadable,
)

# rsync's exit codes that another attempt may get past: sockets, streams and time-outs.
PASSING = (5, 10, 12, 30, 35)
ATTEMPTS = 5
# Of a relay, which has just been started, and is left for the store otherwise.
RELAY_ATTEMPTS = 2
# A relay is left when it gives less than this within so many seconds.
SLOW_S = 30.0


class CopyError(Exception):
    """One sentence that says what cannot be copied and what to do."""


class Copy:
    """One model on its way from the store to this host."""

    def __init__(self, parameters: dict[str, Any], progress: Progress) -> None:
        self.name: str = parameters["name"]
        self.target = Path(parameters["path"])
        self.partial = self.target.parent / ".partial" / self.target.name
        self.files: dict[str, Any] = parameters["files"]
        self.url: str = parameters["url"]
        self.relay: str | None = parameters["relay"]
        self.limit: int = parameters["limit_mb"]
        self.verify: bool = parameters["verify"]
        self.progress = progress
        self.notes: dict[str, Any] = {}
        self.left = ""  # why the relay was left

    def wrong(self) -> list[str]:
        """Files that the target lacks or has otherwise; what is right is noted."""
        noted = read_manifest(self.target / MANIFEST)["files"]
        wrong, unsure = differing(self.target, self.files, noted, self.verify)
        for name in set(self.files) - {*wrong, *unsure}:
            self.notes[name] = noted[name]
        return sorted(wrong + self.check(self.target, unsure))

    def surplus(self) -> list[Path]:
        """Files of the target that the store has not."""
        if not self.target.is_dir():
            return []
        return [path for path in contents(self.target) if str(path.relative_to(self.target)) not in self.files]

    def check(self, folder: Path, names: list[str]) -> list[str]:
        """Read files of a folder; those that are not what the store has. The others are noted."""

        def tell(done: int, total: int) -> None:
            self.progress.say(f"{self.name}: checked {done / 1e9:.1f} of {total / 1e9:.1f} GB")

        wrong = [name for name in names if not (folder / name).is_file()]
        present = {folder / name: name for name in names if name not in wrong}
        if present:
            self.progress.say(f"{self.name}: checking {len(present)} files")
        for path, digest in checksums(list(present), tell).items():
            if digest == self.files[present[path]]["sha256"]:
                self.notes[present[path]] = note(path, digest)
            else:
                wrong.append(present[path])
        return wrong

    def fetch(self, names: list[str]) -> None:
        """Bring files into the partial folder, whole and right. Raises CopyError."""
        needed = sum(self.files[name]["size"] for name in names)
        have = sum(path.stat().st_size for path in self.partial.rglob("*") if path.is_file())
        fault = missing_space(self.partial, needed - have, f"model {self.name}", "model_store_path")
        if fault:
            raise CopyError(fault)
        self.partial.mkdir(parents=True, exist_ok=True)
        if self.relay:
            self.left = self.rsync(self.relay, names, RELAY_ATTEMPTS)
            names = self.amiss(names)
            if names and not self.left:
                self.left = f"it gave {', '.join(names)} with another SHA-256 than the store's"
            if self.left:
                self.progress.say(f"{self.name}: {self.relay} is left for the store: {self.left}")
        for _ in range(2):  # what another run or a relay left may be wrong; what is copied again is not
            if not names:
                return
            if words := self.rsync(self.url, names, ATTEMPTS):
                raise CopyError(f"models: {self.name}: {self.url} cannot be copied: {words}")
            names = self.amiss(names)
        if not names:
            return
        raise CopyError(
            f"models: {self.name}: {', '.join(names)} came twice with another SHA-256 than the store has noted: run"
            " this stage again, and look at the store's disk if that does not help"
        )

    def amiss(self, names: list[str]) -> list[str]:
        """Files of the partial folder that are not right yet. Wrong ones that are whole go; the rest is continued."""
        sizes = {name: (self.partial / name).stat().st_size for name in names if (self.partial / name).is_file()}
        begun = [name for name in names if sizes.get(name, 0) < self.files[name]["size"]]
        wrong = self.check(self.partial, [name for name in names if name not in begun])
        for name in wrong:
            (self.partial / name).unlink(missing_ok=True)
        return begun + wrong

    def rsync(self, url: str, names: list[str], attempts: int) -> str:
        """Run rsync until it has brought all, going on where it stopped; why it has not, or nothing."""
        relayed = url == self.relay
        with tempfile.NamedTemporaryFile("w", suffix=".files") as listed:
            listed.write("\n".join(names))
            listed.flush()
            # --append goes on behind what is there without reading it again; its checksum is compared afterwards.
            command = ["rsync", "--append", "--copy-links", "--times", "--chmod=D0755,F0644", "--info=progress2"]
            command += ["--outbuf=L", f"--files-from={listed.name}"]
            command += ["--timeout=20", "--contimeout=5"] if relayed else ["--timeout=60", "--contimeout=20"]
            command += [f"--bwlimit={self.limit}M"] if self.limit else []
            for attempt in range(attempts):
                status, words = self.run([*command, url, f"{self.partial}/"], names, relayed)
                if status == 0:
                    return ""
                if status not in PASSING or attempt == attempts - 1:
                    break
                self.progress.say(f"{self.name}: {words}; trying again")
                time.sleep(2**attempt)
        return words

    def run(self, command: list[str], names: list[str], relayed: bool) -> tuple[int, str]:
        """One rsync: its status and its last words. If this module is killed, the closed pipe ends rsync."""
        total = sum(self.files[name]["size"] for name in names)
        least = min(SLOW, self.limit * 500_000 or SLOW)
        since, had = time.monotonic(), 0
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "LC_ALL": "C"}
            )
            assert process.stdout is not None
            for line in process.stdout:  # lines end with a carriage return, which counts as an end here
                if found := re.match(r"\s*([\d,]+)\s+\d+%\s+(\S+/s)", line):
                    done = int(found[1].replace(",", ""))
                    self.progress.say(f"{self.name}: copied {done / 1e9:.2f} of {total / 1e9:.2f} GB, {found[2]}")
                    passed = time.monotonic() - since
                    if relayed and passed >= SLOW_S:
                        if done - had < least * passed:
                            process.kill()
                            process.wait()
                            return -9, f"it gives {(done - had) / passed / 1e6:.1f} MB a second"
                        since, had = time.monotonic(), done
            status = process.wait()
            errors.seek(0)
            lines = [line for line in errors.read().splitlines() if line.strip()]
        return status, " ".join(lines[-2:])[-300:] or f"rsync ended with status {status}"

    def place(self, names: list[str]) -> None:
        """Put what was fetched where it belongs, at once or file by file, and note it."""
        for name in names:  # rsync leaves a file that it was killed at to its owner alone
            (self.partial / name).chmod(0o644)
        if self.target.is_dir():
            for name in names:
                (self.target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.partial / name, self.target / name)
            for path in self.surplus():
                path.unlink()
            self.write_notes(self.target)
            remove_tree(self.partial)
        else:
            for path in contents(self.partial):
                if str(path.relative_to(self.partial)) not in self.files:
                    path.unlink()
            self.write_notes(self.partial)
            os.replace(self.partial, self.target)

    def write_notes(self, folder: Path) -> None:
        """Keep what was read, so that a later run need not read it again."""
        source = read_manifest(folder / MANIFEST)["source"]
        text = json.dumps({"source": source, "files": dict(sorted(self.notes.items()))}, indent=1) + "\n"
        path = folder / MANIFEST
        if not path.exists() or path.read_text() != text:
            write_whole(path, text, 0o644)


def end(module: AnsibleModule, changed: bool, size: int, **found: Any) -> None:
    """End without a fault. Of weights that were not copied from the store, others get none."""
    offers = bool(module.params["offer"]) and Path(module.params["offer"]).exists()
    module.exit_json(
        **{"changed": changed, "bytes": size, "offers": offers, "fetched": [], "lacks": False, "whole": False, **found}
    )


def own_folder(module: AnsibleModule, origin: Path, target: Path) -> None:
    """End with a link to what the operator has put on this host, if that is whole and what the store has."""
    fault = fault_of_files(module.params["name"], origin, module.params["config"])
    if not fault:
        wrong, _ = differing(origin, module.params["files"], {}, False)
        if wrong:
            fault = (
                f"models: {module.params['name']}: {origin} on this host is not what {module.params['store']} has there"
                f" ({wrong[0]} differs): make them the same, or remove it here so that it is copied"
            )
    if not fault and module.params["reader"]:
        fault = unreadable(module.params["name"], origin, module.params["reader"])
    if fault:
        module.fail_json(msg=fault)
    size = sum(path.stat().st_size for path in contents(origin))
    if target == origin or (target.is_symlink() and Path(os.readlink(target)) == origin):
        end(module, False, size)
    if not module.check_mode:
        target.unlink(missing_ok=True)
        target.symlink_to(origin)
    end(module, True, size)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "config": {"type": "str", "default": "config.json"},
            "origin": {"type": "path"},
            "reader": {"type": "int"},
            "files": {"type": "dict", "required": True},
            "url": {"type": "str"},
            "relay": {"type": "str"},
            "fetch": {"type": "bool", "default": True},
            "offer": {"type": "path"},
            "store": {"type": "str", "required": True},
            "limit_mb": {"type": "int", "default": 0},
            "verify": {"type": "bool", "default": False},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    target, files = Path(module.params["path"]), module.params["files"]
    name, store = module.params["name"], module.params["store"]
    copied = target.is_dir() and not target.is_symlink()
    if module.params["origin"]:
        origin = Path(module.params["origin"])
        if origin.is_dir() and (not copied or target == origin):
            own_folder(module, origin, target)
        if not files:
            module.fail_json(
                msg=f"models: {name}: source.path {origin} is neither on this host nor on the store's host {store}:"
                " put the weights there on one of them, or correct the path"
            )
    size = sum(file["size"] for file in files.values())
    if not module.params["url"] or not files:  # the store's own host; or a first look, before the store has anything
        end(module, not copied, size)
    copy = Copy(module.params, Progress(module.params["progress_path"]))
    if module.check_mode or not module.params["fetch"]:
        wrong = copy.wrong() if copied else sorted(files)
        surplus = copy.surplus() if copied else []
        changed = bool(wrong or surplus) if module.check_mode else bool(surplus and not wrong)
        if not module.check_mode and copied:
            for path in [] if wrong else surplus:
                path.unlink()
            copy.write_notes(target)  # the copy that follows reads no file again that is right
        end(module, changed, size, lacks=bool(wrong), whole=not wrong)
    waiting = f"{name}: waiting for an earlier run that copies these weights"
    with locked(copy.partial.with_name(f".{target.name}.lock"), lambda: copy.progress.say(waiting)):
        if target.is_symlink():
            target.unlink()  # to a folder that is there no more
        wrong, surplus = copy.wrong(), copy.surplus()
        try:
            if wrong:
                copy.fetch(wrong)
        except CopyError as error:
            module.fail_json(msg=str(error))
        if wrong or surplus or not copied:
            copy.place(wrong)
        else:
            copy.write_notes(target)
    if copy.left:
        module.warn(f"models: {name}: {copy.relay} was left for the store: {copy.left}")
    end(module, bool(wrong or surplus or not copied), size, fetched=wrong, whole=True)


if __name__ == "__main__":
    main()
