"""Lines of the access log: which wait for tokens, how long, and where they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from heteroserve.gateway.access_log import WAIT_S, Rotated, Waiting

REQUEST = "9cc517ff-7304-47f1-bf15-19aa584fe06"


def line(number: int, cell: str = "a-0", path: str = "/v1") -> bytes:
    head = f'{{"time":"2026-11-30T17:02:32Z","id":"{REQUEST}{number}","path":"{path}","cell":"{cell}"'
    return f'{head},"status":200}}\n'.encode()


def read(text: bytes) -> list[tuple[str, object, object]]:
    found = [json.loads(one) for one in text.splitlines()]
    return [(one["id"][-1], one["prompt_tokens"], one["completion_tokens"]) for one in found]


def test_a_line_waits_for_its_tokens_and_those_after_it_for_the_line() -> None:
    waiting = Waiting()
    both = line(1) + line(2)
    waiting.come(both[:50], 0, True)
    waiting.come(both[50:], 0.1, True)
    waiting.told(f"{REQUEST}2", 5, 6, 0.2)
    assert waiting.go(0.2) == b""
    waiting.told(f"{REQUEST}1", 3, 4, 1.0)
    assert read(waiting.go(1.0)) == [("1", 3, 4), ("2", 5, 6)]


def test_tokens_that_do_not_come_are_null_and_late_ones_are_forgotten() -> None:
    waiting = Waiting()
    waiting.come(line(1), 0, True)
    assert waiting.go(WAIT_S - 0.1) == b""
    assert read(waiting.go(WAIT_S)) == [("1", None, None)]
    waiting.told(f"{REQUEST}1", 3, 4, WAIT_S)
    waiting.go(4 * WAIT_S)
    assert waiting.tokens == {}


def test_what_no_cell_has_answered_does_not_wait() -> None:
    """Nor does anything where cells tell no tokens; a client cannot make its line look like that."""
    waiting = Waiting()
    waiting.come(line(1, "-"), 0, True)
    waiting.come(line(2), 0, False)
    waiting.come(line(3, path='\\"cell\\":\\"-\\"'), 0, True)
    assert [one[0] for one in read(waiting.go(0))] == ["1", "2"]


def test_a_line_that_is_none_is_kept_as_it_is() -> None:
    waiting = Waiting()
    waiting.come(b"[ALERT] something\n", 0, False)
    assert waiting.go(0) == b"[ALERT] something\n"


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = Rotated(tmp_path / "access.log", 10, 2)
    for text in (b"one 1 one 1\n", b"two 2 two 2\n", b"three 3 three\n", b"four\n"):
        log.write(text)
    assert sorted(os.listdir(tmp_path)) == ["access.log", "access.log.1", "access.log.2"]
    assert (tmp_path / "access.log").read_bytes() == b"four\n"
    assert (tmp_path / "access.log.2").read_bytes() == b"two 2 two 2\n"
    assert (tmp_path / "access.log").stat().st_mode & 0o777 == 0o600
    (tmp_path / "access.log").rename(tmp_path / "mine")
    log.moved()
    log.write(b"x\n")
    assert (tmp_path / "access.log").read_bytes() == b"x\n"
