#!/usr/bin/python
"""Ansible module: K3s and everything that it made is gone from this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_uninstall
short_description: Uninstall K3s
description:
  - Ends the unit and its pods, unmounts what they mounted, takes away the network interfaces, namespaces and firewall
    rules that Kubernetes and flannel made, and removes the files. What others made is left alone. A second run finds
    nothing to do; a run that was killed half-way goes on.
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure K3s is gone
  k3s_uninstall:
"""

RETURN = r"""
removed: {description: What was taken away., returned: always, type: list}
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.cluster.k3s_traces import (
    descendants_of_shims,
    is_interface,
    is_ipset,
    mounts_below,
    without_rules,
)

UNITS = ("k3s", "k3s-agent")
MOUNTS = ("/run/k3s", "/run/netns/cni-", "/run/flannel", "/var/lib/kubelet", "/var/lib/rancher")
BINARIES = Path("/usr/local/bin")
NAMES = ("kubectl", "crictl", "ctr")
# /run is emptied by a restart; the others are what K3s's own script removes, and what kubelet and CNI leave behind.
VOLATILE = (
    "/run/k3s",
    "/run/containerd/runc/k8s.io",
    "/run/flannel",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
)
# Folders that containerd and the kubelet make outside of their own, removed only where nobody put a file into them.
SHELLS = ("/opt/containerd", "/usr/libexec/kubernetes", "/run/containerd", "/run/netns")
DATA = ("/etc/rancher", "/var/lib/rancher", "/var/lib/kubelet")
GRACE_S = 10.0
MNT_DETACH = 2


def run(*words: str, text: str | None = None) -> str:
    """What a command printed. Raises ``OSError`` if the host has no such program, ``ValueError`` if it failed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, input=text)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry.name)] = (parent, (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (OSError, ValueError):
                continue  # ended meanwhile
    return found


class Removal:
    """The steps, in the order in which one needs the other; each adds what it removed."""

    def __init__(self, check: bool) -> None:
        self._check = check
        self.removed: list[str] = []

    def _do(self, what: str) -> bool:
        self.removed.append(what)
        return not self._check

    def units(self) -> None:
        """End and disable the units; their files go as well."""
        for unit in UNITS:
            path = Path(f"/etc/systemd/system/{unit}.service")
            if path.exists() and self._do(str(path)):
                run("systemctl", "disable", "--now", unit)
                path.unlink()
                path.with_name(f"{path.name}.env").unlink(missing_ok=True)
                run("systemctl", "daemon-reload")
                subprocess.run(["systemctl", "reset-failed", unit], capture_output=True)  # fails if it never failed

    def pods(self) -> None:
        """End what runs in containers of K3s, and the shims that hold it."""
        pids = descendants_of_shims(processes())
        if not pids or not self._do(f"{len(pids)} processes of pods"):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + (GRACE_S if number == signal.SIGTERM else 5)
            while pids & set(processes()) and time.monotonic() < deadline:
                time.sleep(0.2)

    def mounts(self) -> None:
        """Unmount, the innermost first. Lazily: a process that was just killed may hold one for a moment."""
        library = ctypes.CDLL(None, use_errno=True)
        for target in mounts_below(Path("/proc/self/mounts").read_text(), MOUNTS):
            if self._do(f"mount {target}") and library.umount2(target.encode(), MNT_DETACH) != 0:
                raise OSError(ctypes.get_errno(), f"{target} cannot be unmounted")

    def network(self) -> None:
        """Network namespaces, interfaces and rules."""
        for path in sorted(Path("/run/netns").glob("cni-*")) if Path("/run/netns").is_dir() else []:
            if self._do(f"namespace {path.name}"):
                path.unlink(missing_ok=True)
        for path in sorted(Path("/sys/class/net").iterdir()):
            master = path / "master"
            if is_interface(path.name, master.resolve().name if master.exists() else "") and self._do(path.name):
                subprocess.run(["ip", "link", "delete", path.name], capture_output=True)  # gone with its peer
        for tool in ("iptables", "ip6tables"):
            if shutil.which(f"{tool}-save") is None:
                continue
            before = run(f"{tool}-save")
            after = without_rules(before)
            if after is not None and self._do(f"rules of {tool}"):
                run(f"{tool}-restore", text=after)
        if shutil.which("ipset"):
            for name in filter(is_ipset, run("ipset", "list", "-n").split()):
                if self._do(f"ipset {name}"):
                    run("ipset", "destroy", name)

    def files(self) -> None:
        """Binaries, names that lead to them, and folders. A folder that is a mount of the host's own stays, empty."""
        for name in NAMES:
            link = BINARIES / name
            if link.is_symlink() and os.readlink(link) == "k3s" and self._do(str(link)):
                link.unlink()
        for path in sorted(BINARIES.glob("k3s-v*")) + [BINARIES / "k3s"]:
            if (path.exists() or path.is_symlink()) and self._do(str(path)):
                path.unlink()
        for name in VOLATILE + DATA:
            path = Path(name)
            if path.is_dir() and (not path.is_mount() or any(path.iterdir())) and self._do(name):
                empty(path)
        for name in SHELLS:
            path = Path(name)
            if path.is_dir() and all(entry.is_dir() for entry in path.rglob("*")) and self._do(name):
                shutil.rmtree(path)


def empty(folder: Path) -> None:
    """Remove a folder; one that is a mount of the host's own is emptied."""
    if not folder.is_mount():
        shutil.rmtree(folder)
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    removal = Removal(module.check_mode)
    try:
        removal.units()
        removal.pods()
        removal.mounts()
        removal.network()
        removal.files()
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{error}. Run this again; what is left is removed then", removed=removal.removed)
    module.exit_json(changed=bool(removal.removed), removed=removal.removed)


if __name__ == "__main__":
    main()
