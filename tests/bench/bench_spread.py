"""Weights to many hosts, as a tree and from the store alone: seconds, and the bytes that a host sends at most.

python tests/bench/bench_spread.py [--hosts 12] [--mb 300] [--rate 20] [--limit 0] [--folder /var/tmp] [--ways star,2/4]

Needs root, ip, tc and rsync. A host is a network namespace whose sending is limited to --rate MB/s; all share this
machine's disk and processors, so keep hosts times rate below what those give. Daemons are rsync's, copies are the
module model_copy, and who copies from whom is decided as in the role. Ansible's own seconds for each wave are not in
it. --limit is model_store_limit_mb: with it a copy is slower than a host's network, as on fast ones. A way is
STREAMS/FANOUT.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins/module_utils")]
ansible.module_utils.__path__.append(str(ROOT / "python_plugins/module_utils"))

from heteroserve.common.files import sha256_of  # noqa: E402
from heteroserve.common.table import table  # noqa: E402

from python_plugins.filter.weights_wave import weights_wave  # noqa: E402

STORE = "store"
PORT = 8730
BRIDGE = "hsspread"


def call(*words: str) -> str:
    """What a command prints; a fault if it fails."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@dataclass
class Host:
    """A network namespace with one interface."""

    name: str
    number: int

    @property
    def space(self) -> str:
        return f"{BRIDGE}-{self.name}"

    @property
    def address(self) -> str:
        return f"10.213.0.{self.number}"

    def sent(self) -> int:
        """Bytes that it has sent."""
        (link,) = json.loads(call("ip", "-n", self.space, "-s", "-j", "link", "show", "dev", "eth0"))
        return int(link["stats64"]["tx"]["bytes"])


@contextmanager
def network(number: int, rate_mb: int) -> Iterator[list[Host]]:
    """The store and so many hosts on one switch."""
    hosts = [Host(STORE, 1), *(Host(f"h{index:03}", 10 + index) for index in range(number))]
    switch = f"{BRIDGE}-switch"
    try:
        call("ip", "netns", "add", switch)
        call("ip", "-n", switch, "link", "add", BRIDGE, "type", "bridge")
        call("ip", "-n", switch, "link", "set", BRIDGE, "up")
        for host in hosts:
            call("ip", "netns", "add", host.space)
            port = f"p{host.number}"
            call("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.space)
            call("ip", "-n", switch, "link", "set", port, "master", BRIDGE, "up")
            call("ip", "-n", host.space, "address", "add", f"{host.address}/24", "dev", "eth0")
            call("ip", "-n", host.space, "link", "set", "eth0", "up")
            limit = ("rate", f"{rate_mb * 8}mbit", "burst", "256kb", "latency", "100ms")
            call("tc", "-n", host.space, "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)
        yield hosts
    finally:
        for space in (*(host.space for host in hosts), switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


@contextmanager
def offering(host: Host, folder: Path, work: Path) -> Iterator[None]:
    """An rsync daemon on a host, for a while."""
    config = work / f"{host.name}.conf"
    config.write_text(
        f"address = {host.address}\nport = {PORT}\nuse chroot = no\nread only = yes\nuid = root\ngid = root\n"
        f"[m]\npath = {folder}\n"
    )
    daemon = ["ip", "netns", "exec", host.space, "rsync", "--daemon", "--no-detach", f"--config={config}"]
    process = subprocess.Popen(daemon)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def copy(host: Host, source: Host, store: Host, work: Path, files: dict[str, Any], limit_mb: int) -> dict[str, Any]:
    """One call of the module on a host."""
    asked: dict[str, Any] = {
        "name": "m", "path": str(work / host.name / "m"), "files": files, "store": STORE, "limit_mb": limit_mb,
        "url": f"rsync://{store.address}:{PORT}/m/",
    }  # fmt: skip
    if source is not store:
        asked["relay"] = f"rsync://{source.address}:{PORT}/m/"
    order = work / f"{host.name}.json"
    order.write_text(json.dumps(asked))
    said = json.loads(call("ip", "netns", "exec", host.space, sys.executable, __file__, "--module", str(order)))
    assert not said.get("failed"), said["msg"]
    return dict(said)


def spread(hosts: list[Host], work: Path, files: dict[str, Any], way: str, limit_mb: int) -> list[str]:
    """Bring the weights to every host in one way; a row of the table."""
    store, others = hosts[0], {host.name: host for host in hosts[1:]}
    streams, fanout = (8, 0) if way == "star" else map(int, way.split("/"))
    size = sum(file["size"] for file in files.values())
    looked = {name: [{"item": {"name": "m"}, "bytes": size, "lacks": True, "whole": False}] for name in others}
    before = {host.name: host.sent() for host in hosts}
    began, waves, left = time.monotonic(), 0, 0
    done: list[dict[str, str]] = []
    with offering(store, work / "offered", work):
        while (wave := weights_wave(looked, done, STORE, fanout, streams, 0))["copies"]:
            waves, done = waves + 1, wave["done"]
            relays = [offering(others[name], work / name / "m", work) for name in wave["relays"]]
            for relay in relays:
                relay.__enter__()
            with ThreadPoolExecutor(wave["at_once"] or len(wave["copies"])) as pool:
                sources = {host: others.get(own["m"], store) for host, own in wave["copies"].items()}
                jobs = [
                    pool.submit(copy, others[host], source, store, work, files, limit_mb)
                    for host, source in sources.items()
                ]
                left += sum("warnings" in job.result() for job in jobs)
            for relay in relays:
                relay.__exit__(None, None, None)
            print(f"{way}: wave {waves} after {time.monotonic() - began:.0f} s: {wave['why']}", file=sys.stderr)
    took = time.monotonic() - began
    sent = {host.name: host.sent() - before[host.name] for host in hosts}
    for name in others:
        shutil.rmtree(work / name)
    most = max(bytes_ for name, bytes_ in sent.items() if name != STORE)
    return [way, str(waves), f"{took:.0f}", f"{sent[STORE] / 1e9:.2f}", f"{most / 1e9:.2f}", str(left)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=12)
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--ways", default="star,1/3,2/4,3/3")
    parser.add_argument("--module")
    asked = parser.parse_args()
    if asked.module:
        from python_plugins.modules.models.model_copy import main as module
        from tests.helpers.module_runs import run_module

        print(json.dumps(run_module(module, json.loads(Path(asked.module).read_text()))))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as made, network(asked.hosts, asked.rate) as hosts:
        work = Path(made)
        work.chmod(0o755)
        (work / "offered").mkdir()
        for index in range(6):
            with (work / "offered" / f"model-{index}.safetensors").open("wb") as stream:
                for _ in range(asked.mb // 6):
                    stream.write(os.urandom(1_000_000))
        files = {
            path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in (work / "offered").iterdir()
        }
        rows = [spread(hosts, work, files, way, asked.limit) for way in asked.ways.split(",")]
    print(f"{asked.hosts} hosts, {asked.mb} MB, each host sends {asked.rate} MB/s at most", end="")
    print(f", a copy takes {asked.limit} MB/s at most" if asked.limit else "")
    heads = ["STREAMS/FANOUT", "WAVES", "SECONDS", "STORE SENT GB", "ANOTHER HOST SENT GB AT MOST", "RELAYS LEFT"]
    print(table(heads, rows, set(range(1, 6))))


if __name__ == "__main__":
    main()
