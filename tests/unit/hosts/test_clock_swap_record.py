"""The clock's services, lines of swap, the note of what was before, and the SSH connection."""

from __future__ import annotations

from pathlib import Path

import pytest
from heteroserve.hosts import record as host_record
from heteroserve.hosts import swap
from heteroserve.hosts.clock import TimeState, parse_chronyc, parse_ntpq, parse_timedatectl, verdict
from heteroserve.hosts.ssh_session import Session, parse, session

TRACKING = """Reference ID    : 0A000001 (10.0.0.1)
Stratum         : 3
Ref time (UTC)  : Mon Nov 23 22:00:00 2026
System time     : 0.000000123 seconds fast of NTP time
Leap status     : Normal
"""
UNSYNCHRONISED = "Reference ID    : 00000000 ()\nStratum         : 0\nLeap status     : Not synchronised\n"
PEERS = """     remote           refid      st t when poll reach   delay   offset  jitter
==============================================================================
+10.0.0.2        .GPS.            1 u   12   64  377    0.3    0.0    0.1
*10.0.0.1        .GPS.            1 u   12   64  377    0.3    0.0    0.1
"""


def test_what_time_services_say() -> None:
    assert parse_chronyc(TRACKING) == (True, "chronyc: leap status Normal, source 10.0.0.1")
    assert parse_chronyc(UNSYNCHRONISED) == (False, "chronyc: leap status Not synchronised, source no source")
    assert parse_chronyc("506 Cannot talk to daemon") is None
    assert parse_ntpq(PEERS) == (True, "ntpq: follows 10.0.0.1")
    assert parse_ntpq(PEERS.replace("*", " ")) == (False, "ntpq: follows no peer")
    assert parse_ntpq("ntpq: read: Connection refused") is None
    assert parse_timedatectl("NTP=yes\nNTPSynchronized=yes\n")
    assert not parse_timedatectl("NTP=yes\nNTPSynchronized=no\n")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (TimeState((), False, ""), "no time service runs"),
        (TimeState((), True, ""), "no time service runs"),
        (TimeState(("chrony", "systemd-timesyncd"), True, ""), "run at once"),
        (TimeState(("chrony",), False, "x"), "chrony runs but the clock is not synchronised (x)"),
        (TimeState(("chrony",), True, "", 90.0), "90 s ahead of the controller's"),
        (TimeState(("chrony",), True, "", -40.0), "40 s behind the controller's"),
    ],
)
def test_a_clock_that_is_not_kept_right(state: TimeState, words: str) -> None:
    assert words in (verdict(state) or "")


def test_a_clock_that_is_kept_right() -> None:
    assert verdict(TimeState(("chrony",), True, "", 2.0)) is None


FSTAB = """# /swapfile is no longer here
UUID=1 / ext4 defaults 0 1
UUID=2 none swap sw 0 0
  /swapfile\tswap\tswap\tdefaults 0 0
/dev/vg/swap /swap xfs defaults 0 2
"""


def test_lines_of_swap_are_taken_out_and_put_back() -> None:
    off = swap.without_swap(FSTAB)
    assert [line for line in off.splitlines() if line.startswith(swap.MARK)] == [
        f"{swap.MARK}UUID=2 none swap sw 0 0",
        f"{swap.MARK}  /swapfile\tswap\tswap\tdefaults 0 0",
    ]
    assert swap.without_swap(off) == off
    assert swap.with_swap(off) == FSTAB
    assert swap.with_swap(FSTAB) == FSTAB


def test_swap_in_use() -> None:
    text = "Filename\tType\tSize\tUsed\tPriority\n/my\\040swap file 1024 512 -2\n"
    assert swap.parse_swaps(text) == (swap.Swap("/my swap", "file", 1024 * 1024, 512 * 1024),)


def test_the_note_of_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "was" / "x.json"
    assert host_record.load(path) == {}
    host_record.save(path, "kernel", {"/a": "0"})
    host_record.save(path, "swap", ["/swap"])
    assert host_record.load(path) == {"kernel": {"/a": "0"}, "swap": ["/swap"]}
    host_record.save(path, "swap", [])
    assert host_record.load(path) == {"kernel": {"/a": "0"}}
    host_record.save(path, "kernel", {})
    assert not path.exists()


def process(proc: Path, pid: int, parent: int, environment: bytes) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "environ").write_bytes(environment)
    (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1")


def test_the_connection_is_found_behind_sudo(tmp_path: Path) -> None:
    process(tmp_path, 30, 20, b"SUDO_USER=admin\0")
    process(tmp_path, 20, 10, b"HOME=/home/admin\0SSH_CONNECTION=::ffff:10.0.9.9 50000 10.0.0.1 2222\0")
    process(tmp_path, 10, 1, b"")
    assert session(30, tmp_path) == Session("10.0.9.9", 2222)
    assert session(10, tmp_path) is None
    assert session(99, tmp_path) is None


def test_an_address_with_its_interface() -> None:
    assert parse("fe80::1%eth0 5 fe80::2%eth0 22") == Session("fe80::1", 22)
    assert parse("nonsense") is None
