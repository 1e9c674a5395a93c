"""Who may work with the state host: nobody while another run lives, anybody after it was killed."""

from __future__ import annotations

import pytest
from heteroserve.backup.lease import LEASE_S, RENEW_S, Lease, Verdict, busy, lost, read, verdict

OTHER = Lease(
    "other", "HeteroServe apply, job 7 of AWX, started by ada; process 12 on node-1", "2026-11-30 17:00:00 UTC"
)


@pytest.mark.parametrize(
    ("found", "age_s", "seen", "expected"),
    [
        (None, 0, None, Verdict.TAKE),
        (OTHER, 1, None, Verdict.WAIT),  # alive, or killed a second ago
        (OTHER, LEASE_S - 1, OTHER, Verdict.WAIT),
        (OTHER, LEASE_S + 1, OTHER, Verdict.TAKE),  # killed
        (OTHER, LEASE_S + 1, None, Verdict.TAKE),
        (OTHER.again(), 1, OTHER, Verdict.HELD),  # alive
        (Lease("third", "somebody", "now"), 1, OTHER, Verdict.HELD),  # faster than this run
        (OTHER, -5, None, Verdict.WAIT),  # the state host's clock was corrected
        (OTHER, -86400, None, Verdict.TAKE),
    ],
)
def test_a_lease_holds_while_its_run_is_heard_of(
    found: Lease | None, age_s: float, seen: Lease | None, expected: Verdict
) -> None:
    assert verdict(found, age_s, seen) is expected


def test_a_run_may_miss_some_renewals() -> None:
    assert LEASE_S >= 6 * RENEW_S


def test_a_lease_comes_back_as_it_was_written() -> None:
    assert read(OTHER.again().text()) == OTHER.again()
    for nothing in (None, "", "{", "[]", '{"owner": "x"}', '{"owner": "x", "who": "y", "since": "z", "more": 1}'):
        assert read(nothing) is None


def test_who_is_at_work_is_said() -> None:
    assert busy(OTHER, "nas:/srv/state") == (
        "another run (HeteroServe apply, job 7 of AWX, started by ada; process 12 on node-1, since 2026-11-30 17:00:00"
        " UTC) is working with nas:/srv/state: wait until it has ended"
    )
    assert "job 7 of AWX" in lost(OTHER, "nas:/srv/state")
    assert "not there any more" in lost(None, "nas:/srv/state")
