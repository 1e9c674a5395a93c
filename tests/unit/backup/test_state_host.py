"""The state on a host: nothing is lost, and a run that has lost it overwrites nothing."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heteroserve.backup import keeper
from heteroserve.backup.lease import LEASE_S, Lease
from heteroserve.backup.state_host import LEASE, OLDER, OLDER_KEPT, PROGRAM, SEALED, Fault, StateHost

RUN = "import json, sys; asked = json.load(sys.stdin); exec(asked['program'])"


def call(asked: dict[str, Any]) -> dict[str, Any]:
    """As run_state has the program run, without a connection."""
    sent = json.dumps({**asked, "program": PROGRAM})
    done = subprocess.run([sys.executable, "-c", RUN], input=sent, capture_output=True, encoding="utf-8", check=True)
    return dict(json.loads(done.stdout))


def unseal(text: str) -> bytes | None:
    return base64.b64decode(text.removeprefix("sealed ")) if text.startswith("sealed ") else None


Maker = Callable[..., StateHost]


@pytest.fixture
def run(tmp_path: Path) -> Maker:
    """A run of its own for each call."""

    def made(who: str = "one", **other: Any) -> StateHost:
        return StateHost(
            call=other.pop("call", call),
            seal=lambda data: f"sealed {base64.b64encode(data).decode()}",
            unseal=other.pop("unseal", unseal),
            place="nas:/srv/state",
            folder=str(tmp_path / "kept"),
            hosts=other.pop("hosts", ("a", "b")),
            runtime="k3s",
            version="0.1.0",
            lease=Lease(f"owner-{who}", who, "noon"),
            **other,
        )

    return made


def nothing(_: str) -> None:
    """Tell nobody."""


def state(folder: Path, **files: str) -> Path:
    """A state directory with these secrets."""
    for name, text in files.items():
        (folder / "secrets").mkdir(parents=True, exist_ok=True)
        (folder / "secrets" / name).write_text(text)
    folder.mkdir(exist_ok=True)
    return folder


def secrets(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "secrets").glob("*")}


def killed(tmp_path: Path) -> None:
    """Nobody has written to the lease for a while."""
    path = tmp_path / "kept" / LEASE
    os.utime(path, times=(path.stat().st_mtime - LEASE_S - 1,) * 2)


def test_the_next_run_finds_what_the_first_one_kept_and_nothing_else(run: Maker, tmp_path: Path) -> None:
    first = run()
    one = state(tmp_path / "one", token="a", key="b")
    first.unpack(first.take(nothing), one)
    assert secrets(one) == {"token": "a", "key": "b"}  # a directory that was there before there was a state host
    assert first.keep(one) == ""
    first.free()
    second, two = run("two"), state(tmp_path / "two", token="old", gone="revoked")
    second.unpack(second.take(nothing), two)
    assert secrets(two) == {"token": "a", "key": "b"}
    assert (tmp_path / "kept" / SEALED).stat().st_mode & 0o777 == 0o600


def test_only_what_has_changed_is_written(run: Maker, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def counted(one: dict[str, Any]) -> dict[str, Any]:
        asked.append(one)
        return call(one)

    host, folder = run(call=counted), state(tmp_path / "one", token="a")
    host.take(nothing)
    host.keep(folder)
    before = len(asked)
    assert host.keep(folder) == ""
    (folder / "secrets" / "token").touch()
    (folder / "models").mkdir()
    assert host.keep(folder) == ""
    assert len(asked) == before
    (folder / "secrets" / "token").write_text("b")
    assert host.keep(folder) == ""
    assert len(asked) == before + 1


def test_a_second_run_says_who_is_at_work(run: Maker, tmp_path: Path) -> None:
    first, heard = run("job 7"), list[str]()
    first.take(nothing)
    with pytest.raises(Fault, match=r"another run \(job 7, since noon\) is working with nas:/srv/state"):
        run("two").take(heard.append, lambda _: first.renew())
    assert len(heard) == 1


def test_a_run_that_was_killed_does_not_block_and_cannot_write_any_more(run: Maker, tmp_path: Path) -> None:
    first, folder = run(), state(tmp_path / "one", token="a")
    first.take(nothing)
    first.keep(folder)
    second, two = run("two"), state(tmp_path / "two")
    second.unpack(second.take(nothing, lambda _: killed(tmp_path)), two)
    assert secrets(two) == {"token": "a"}
    # The first one was only cut off. It comes back.
    (folder / "secrets" / "token").write_text("b")
    assert "another run (two, since noon) has taken it: run it again" in first.keep(folder)
    first.free()
    state(two, more="c")
    assert second.keep(two) == ""
    second.free()
    assert not (tmp_path / "kept" / LEASE).exists()


def test_a_run_that_slept_asks_before_it_goes_on(run: Maker, tmp_path: Path) -> None:
    """Its machine was suspended, or the host out of reach: another run may have begun."""
    now, reached = [0.0], [True]

    def reach(asked: dict[str, Any]) -> dict[str, Any]:
        if not reached[0]:
            raise OSError("No route to host")
        return call(asked)

    first, folder = run(call=reach, now=lambda: now[0]), state(tmp_path / "one", token="a")
    first.take(nothing)
    assert first.keep(folder) == ""
    reached[0], now[0] = False, LEASE_S - 1
    assert first.keep(folder) == ""  # its lease cannot have ended yet
    now[0] = LEASE_S + 1
    assert "the state host nas cannot be reached" in first.keep(folder)
    reached[0] = True
    assert first.keep(folder) == ""  # nobody has taken it
    now[0] += LEASE_S + 1
    killed(tmp_path)
    run("two").take(nothing)
    assert "another run (two, since noon) has taken it" in first.keep(folder)


def test_a_write_that_was_cut_short_changes_nothing(run: Maker, tmp_path: Path) -> None:
    host = run()
    host.take(nothing)
    host.keep(state(tmp_path / "one", token="a"))
    host.free()
    (tmp_path / "kept" / f"{SEALED}.new").write_text("sealed hal")
    second, two = run("two"), state(tmp_path / "two")
    second.unpack(second.take(nothing), two)
    assert secrets(two) == {"token": "a"}


def test_what_was_there_before_a_run_stays_beside_it(run: Maker, tmp_path: Path) -> None:
    for number in range(OLDER_KEPT + 3):
        host = run()
        host.take(nothing)
        host.older = f"state-20261130-{number:06}.vault"
        host.keep(state(tmp_path / "one", token=str(number)))
        host.free()
    older = sorted((tmp_path / "kept").glob(OLDER))
    assert len(older) == OLDER_KEPT
    second, two = run(), state(tmp_path / "two")
    second.unpack(older[-1].read_text(), two)
    assert secrets(two) == {"token": str(OLDER_KEPT + 1)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unseal": lambda _: None}, "nas:/srv/state/state.vault cannot be opened: backup_password is not its"),
        (
            {"unseal": lambda _: b"no archive"},
            r"state.vault is damaged \(.*\): put the newest of state-\*.vault beside it",
        ),
        ({"hosts": ("c",)}, "state.vault: it is of another inventory: none of its hosts"),
    ],
)
def test_what_cannot_be_this_sites_state_is_refused(
    run: Maker, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    host = run()
    host.take(nothing)
    host.keep(state(tmp_path / "one", token="a"))
    host.free()
    second, two = run(**change), state(tmp_path / "two", token="mine")
    with pytest.raises(Fault, match=said):
        second.unpack(second.take(nothing), two)
    assert secrets(two) == {"token": "mine"}


def test_a_host_that_cannot_be_used_is_said(run: Maker, tmp_path: Path) -> None:
    def unreachable(_: dict[str, Any]) -> dict[str, Any]:
        raise OSError("No route to host")

    host = run(call=unreachable)
    with pytest.raises(Fault, match="the state host nas cannot be reached: No route to host"):
        host.take(nothing)
    assert "cannot be reached" in host.keep(state(tmp_path / "one", token="a"))
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(Fault, match=r"nas:/srv/state cannot be used \(.*File exists\): set state_path to a folder"):
        run().take(nothing)


def test_whoever_made_a_secret_waits_until_it_is_kept(run: Maker, tmp_path: Path) -> None:
    folder = state(tmp_path / "one", token="a")
    assert keeper.ask(folder) is None  # no run
    host = run()
    host.take(nothing)
    listener = keeper.listening(folder)
    serving = threading.Thread(target=keeper.serve, args=(listener, host, folder, lambda: True, []))
    serving.start()
    assert keeper.ask(folder) == ""
    assert (tmp_path / "kept" / SEALED).exists()
    (tmp_path / "kept" / LEASE).unlink()
    state(folder, more="b")
    assert "its lease is not there any more" in str(keeper.ask(folder))
    keeper.ask(folder, keeper.FREE)
    serving.join(10)
    assert not serving.is_alive()
    listener.close()
    assert keeper.ask(folder) is None
