"""The ledger: what counts, what does not count twice, which keys are over, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from heteroserve.gateway.ledger import Ledger, read
from heteroserve.gateway.usage import (
    Page,
    Row,
    Use,
    as_json,
    day_of,
    map_commands,
    map_text,
    metrics,
    over,
    read_page,
    report,
    summed,
)

NOON = 1830254400.0  # 2027-12-31T12:00:00Z
TODAY, TOMORROW = "2027-12-31", "2028-01-01"
KEYS: list[dict[str, Any]] = [
    {"name": "alice", "digest": "aa", "tokens_per_day": 0},
    {"name": "bob", "digest": "bb", "tokens_per_day": 100},
    {"name": "bob", "digest": "cc", "tokens_per_day": 500},
]


def row(number: int, at: float = NOON, key: str = "bob", prompt: int = 10, answer: int = 5, ended: int = 1) -> Row:
    return Row(number, at, f"r{number}", key, "llama", prompt, answer, prompt, answer, ended)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite3")


def test_rows_are_summed_by_the_day_on_which_they_were_made() -> None:
    """An answer over midnight counts on both days, and is one request of the second."""
    before = row(1, NOON + 11.9 * 3600, answer=7, ended=0)
    assert summed([before, row(2, NOON + 12.1 * 3600, prompt=0)]) == [
        Use(TODAY, "bob", "llama", 0, 10, 7),
        Use(TOMORROW, "bob", "llama", 1, 0, 5),
    ]


def test_no_row_counts_twice(ledger: Ledger, tmp_path: Path) -> None:
    """Whatever a cell tells again, to this process or to the next."""
    ledger.add(Page("one", (row(1), row(2))))
    ledger.add(Page("one", (row(1), row(2), row(3))))
    again = Ledger(tmp_path / "ledger.sqlite3")
    again.add(Page("one", (row(2), row(3))))
    assert again.read_to("one") == 3
    assert again.used(TODAY) == [Use(TODAY, "bob", "llama", 3, 30, 15)]
    assert read(tmp_path / "ledger.sqlite3", TODAY) == again.used(TODAY)


def test_a_cell_that_has_lost_its_file_begins_again(ledger: Ledger) -> None:
    ledger.add(Page("one", (row(7),)))
    ledger.add(Page("two", (row(1),)))
    assert ledger.used(TODAY)[0].requests == 2


def test_old_days_become_one_and_sums_stay(ledger: Ledger) -> None:
    ledger.add(Page("one", tuple(row(number, NOON - number * 86400) for number in range(4))[1:]))
    before = ledger.total()
    ledger.forget(day_of(NOON - 86400))
    ledger.forget(day_of(NOON - 86400))
    assert [use.day for use in ledger.used("2000-01-01")] == [day_of(NOON - 86400)]
    assert ledger.total() == before == [Use("", "bob", "llama", 3, 30, 15)]


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"epoch": "x", "rows": [[1]]}', "<html>"])
def test_what_is_no_page_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_page(text)


def test_a_page_is_read() -> None:
    given = row(1)
    text = json.dumps({"epoch": "e", "rows": [list(given.__dict__.values())]})
    assert read_page(text) == Page("e", (given,))


def test_keys_are_over_on_the_day_alone() -> None:
    """Two keys of one name share what is used; each has its own limit, and yesterday's tokens are nothing."""
    used = [Use("2027-12-30", "bob", "llama", 1, 900, 900), Use(TODAY, "bob", "a", 1, 60, 0)]
    assert over(used, KEYS, NOON) == {}
    used.append(Use(TODAY, "bob", "b", 1, 0, 40))
    day = int(NOON // 86400)
    assert over(used, KEYS, NOON) == {"bb": day}
    assert over([*used, Use(TODAY, "alice", "b", 1, 0, 10**9)], KEYS, NOON) == {"bb": day}
    assert over(used, KEYS, NOON + 12 * 3600) == {}


def test_haproxy_is_told_what_differs() -> None:
    shown = "0x55d0 aa 7\n0x55d1 bb 7\n\n"
    assert map_commands(shown, "/m", {"aa": 7, "bb": 8, "cc": 8}) == ["set map /m bb 8", "add map /m cc 8"]
    assert map_commands(shown, "/m", {}) == ["del map /m aa", "del map /m bb"]
    assert map_commands("\n", "/m", {}) == []
    assert map_text({"bb": 8, "aa": 7}) == "aa 7\nbb 8\n"


def test_a_table_says_how_much_of_a_limit_is_used() -> None:
    used = [Use("2027-12-30", "bob", "a", 1, 1, 1), Use(TODAY, "-", "a", 2, 3, 4), Use(TODAY, "bob", "a", 1, 1000, 25)]
    lines = [line.split() for line in report(used, KEYS[:2], NOON).splitlines()[1:]]
    assert lines == [
        [TODAY, "no", "key", "a", "2", "3", "4", "7"],
        [TODAY, "bob", "a", "1", "1,000", "25", "1,025", "1025%", "of", "100"],
        ["2027-12-30", "bob", "a", "1", "1", "1", "2"],
    ]
    assert "No tokens" in report([], KEYS, NOON)


def test_metrics_are_prometheus_and_json_has_sums() -> None:
    total = [Use("", 'odd"\\key', "a", 2, 30, 12)]
    lines = metrics(total, KEYS[1:2], {"bob": 7}, {"a-0": 0.25}).splitlines()
    assert 'heteroserve_key_tokens_total{key="odd\\"\\\\key",model="a",kind="completion"} 12' in lines
    assert 'heteroserve_key_day_tokens{key="bob"} 7' in lines
    assert 'heteroserve_key_day_limit_tokens{key="bob"} 100' in lines
    assert 'heteroserve_ledger_behind_seconds{cell="a-0"} 0.2' in lines
    assert json.loads(as_json(total, {}))["usage"][0]["tokens"] == 42
