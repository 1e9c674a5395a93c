"""What is noted before and after a change, also when a run ends between them; and who counts as a user of a GPU."""

from __future__ import annotations

import os
from pathlib import Path

from heteroserve.hosts.drivers.host import User, gpu_users, is_watcher
from heteroserve.hosts.drivers.record import Change, begin, end, leftovers

INSTALLING = Change(installing=True)


def test_what_came_is_known_after_a_run() -> None:
    noted = begin({}, ("bash", "libc6"), Change({"/etc/a": None}, ("render",), ("libcuda1",), installing=True))
    done = end(noted, ("bash", "libc6", "libcuda1", "nvidia-smi"), {"installed": "580.95.05", "boot": "a"})
    assert done["packages"] == ["libcuda1", "nvidia-smi"]
    assert (done["files"], done["groups"], done["hold"]) == ({"/etc/a": None}, ["render"], ["libcuda1"])
    assert leftovers(done, ("bash", "libc6", "libcuda1")) == ["libcuda1"]


def test_a_run_that_was_killed_is_gone_on_with() -> None:
    noted = begin({}, ("bash",), INSTALLING)
    again = begin(noted, ("bash", "libcuda1"), INSTALLING)  # libcuda1 came before the run was killed
    assert leftovers(again, ("bash", "libcuda1")) == ["libcuda1"]
    assert end(again, ("bash", "libcuda1", "nvidia-smi"), None)["packages"] == ["libcuda1", "nvidia-smi"]


def test_a_file_is_noted_as_it_was_first() -> None:
    noted = begin({}, (), Change({"/etc/a": "theirs"}))
    assert begin(noted, (), Change({"/etc/a": "ours"}))["files"] == {"/etc/a": "theirs"}


def test_a_second_run_notes_nothing_new() -> None:
    restart = {"installed": "580.95.05", "boot": "a"}
    done = end(begin({}, ("bash",), INSTALLING), ("bash", "libcuda1"), restart)
    again = begin(done, ("bash", "libcuda1"), Change())
    assert end(again, ("bash", "libcuda1"), {**restart, "boot": "b"}) == done  # the first restart is the one asked for
    assert "restart" not in end(again, ("bash", "libcuda1"), None)


def test_users_are_processes_with_the_device_open_that_do_not_only_watch(tmp_path: Path) -> None:
    processes = {
        11: ("python3", ["/dev/null", "/dev/nvidia0"]),
        12: ("nvidia-persiste", ["/dev/nvidiactl"]),
        13: ("bash", ["/dev/null"]),
        14: ("VLLM::Worker", ["/dev/nvidia-uvm"]),
    }
    for pid, (name, targets) in processes.items():
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
        for number, target in enumerate(targets):
            os.symlink(target, tmp_path / str(pid) / "fd" / str(number))
    (tmp_path / "self").mkdir()
    assert gpu_users(tmp_path, "/dev/nvidia") == (User(11, "python3"), User(14, "VLLM::Worker"))
    assert is_watcher("nv-fabricmanage")
    assert not is_watcher("nvidia")
