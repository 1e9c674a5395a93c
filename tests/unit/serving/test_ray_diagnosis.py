"""Why a cell of the runtime ray is down, from what its host shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heteroserve.serving.ray_diagnosis import Seen, finding, programs, unexpected_ends

RUNS = {"applications": {"c1": {"status": "RUNNING"}}}
FINE = Seen("c1", "RUNNING pid 7, uptime 0:01:00", RUNS, "", "", "", 64 * 10**9, 8 * 10**9)
FAILED = {"applications": {"c1": {"status": "DEPLOY_FAILED", "message": "Deploying app 'c1' failed with exception"}}}


def test_a_cell_that_runs_has_no_finding() -> None:
    assert finding(FINE) == ""
    # An error in the log of one that runs now is over.
    assert finding(replace(FINE, log="ValueError: x", process_log="OSError: y")) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(FINE, process="", details=None), ["supervisord does not run", "./heteroserve up"]),
        (replace(FINE, process="STOPPED Nov 30 05:00 PM", details=None), ["stopped through supervisord"]),
        (
            replace(
                FINE, process="FATAL Exited too quickly", details=None, process_log="OSError: No space left on device"
            ),
            ["FATAL Exited too quickly", "No space left", "free space where state_dir lies"],
        ),
        (
            replace(
                FINE, details=None, fault="Connection refused", process_log="ModuleNotFoundError: No module named 'ray'"
            ),
            ["Ray does not answer: Connection refused", "No module named 'ray'", "run up again"],
        ),
        (
            replace(FINE, details=FAILED, log="ValueError: Unknown engine argument: wrong"),
            ["Deploying app", "Unknown engine argument: wrong", "engine_args"],
        ),
        (replace(FINE, details={"applications": {}}), ["does not know the application"]),
        (replace(FINE, details=FAILED, memory_available=10**9), ["1.0 GB of memory free"]),
    ],
)
def test_the_cause_is_named(seen: Seen, words: list[str]) -> None:
    said = finding(seen)
    assert said.startswith("c1: ")
    assert "\n" not in said
    assert [word for word in words if word not in said] == []


def test_states_are_read_as_supervisorctl_prints_them() -> None:
    printed = "c1   RUNNING   pid 7, uptime 0:08:56\nc2   FATAL     Exited too quickly (process log may have details)\n"
    assert programs(printed) == {
        "c1": "RUNNING pid 7, uptime 0:08:56",
        "c2": "FATAL Exited too quickly (process log may have details)",
    }
    assert programs("unix:///tmp/hs-1/supervisor.sock no such file\n") == {}


def test_ends_that_nobody_asked_for_are_counted() -> None:
    log = "\n".join(
        [
            "2026-11-30 16:53:45,788 INFO stopped: gateway (exit status 0)",
            "2026-11-30 17:00:00,100 WARN exited: c1 (exit status 1; not expected)",
            "2026-11-30 17:03:36,100 WARN exited: c1 (terminated by SIGKILL; not expected)",
            "2026-11-30 17:04:00,100 INFO exited: c2 (exit status 0; expected)",
        ]
    )
    (said,) = unexpected_ends(log)
    assert said.startswith("c1: ended 2 times by itself and was started again, last at 2026-11-30 17:03:36")
    assert "SIGKILL; the kernel may have ended it for want of memory" in said
