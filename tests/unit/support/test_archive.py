"""Bounds, findings and index of the archive for somebody who helps."""

from __future__ import annotations

import pytest
from heteroserve.support.archive import Part, bounded, findings, index, of_health, of_hosts, of_status


def test_what_fits_is_left_as_it_is() -> None:
    files = {"a": "x" * 10, "b": "y" * 20}
    assert bounded(files, 30) == (files, [])


@pytest.mark.parametrize("limit", [0, 1, 50, 99, 100, 1000, 2500])
def test_the_longest_lose_their_beginning(limit: int) -> None:
    files = {"short": "s" * 100, "long": "".join(map(str, range(1000))), "longer": "x" * 4000 + "the end"}
    kept, cut = bounded(files, limit)
    assert sum(map(len, kept.values())) <= limit
    assert set(cut) <= set(files)
    assert list(kept) == list(files)
    for name, text in kept.items():
        assert files[name].endswith(text)
        assert (len(text) < len(files[name])) == (name in cut)
    if limit > 300:
        assert cut == ["long", "longer"]
        assert len(kept["long"]) == len(kept["longer"]) == (limit - 100) // 2


def test_hosts_that_were_not_read_come_before_what_facts_say() -> None:
    problem = {"code": "driver-mismatch", "text": "the driver is 550 and its library 560", "fix": "restart the host"}
    parts = [Part("a"), Part("b", fault="ssh: connect to host b port 22: No route to host")]
    assert of_hosts(parts, {"a": {"problems": [problem]}, "b": {}}) == [
        "b could not be read: ssh: connect to host b port 22: No route to host",
        "a: the driver is 550 and its library 560; restart the host",
    ]


def test_the_last_check_and_the_status_are_told() -> None:
    checks = [
        {"name": "c1", "model": "m", "ok": True, "reason": ""},
        {"name": "c2", "model": "m", "ok": False, "reason": "it answered London, which does not match Paris"},
    ]
    assert of_health({"checks": checks}) == ["c2: asked for m, it answered London, which does not match Paris"]
    assert of_health({}) == []
    assert of_status({"faults": ["c2 is down"]}) == ["c2 is down"]
    assert "could not be asked" in of_status({})[0]


def test_a_chapter_without_findings_says_so() -> None:
    page = findings({"Hosts": [], "Cells": ["c1: two\nlines"]})
    assert page.split("\n\n")[1:] == ["## Hosts", "Nothing.", "## Cells", "- c1: two lines\n"]


def test_the_index_names_every_file_and_what_was_cut() -> None:
    files = {"findings.md": "x" * 1234, "hosts/a/logs/c1.log": "y", "plan.json": "{}"}
    page = index({"made": "now"}, files, ["hosts/a/logs/c1.log"], 7)
    assert all(name in page for name in files)
    assert "1,234" in page
    assert [line.split()[-3:] for line in page.splitlines() if "c1.log" in line] == [["its", "end", "only"]]
    assert "removed in 7 places" in page
    assert "`cluster/`" not in page
