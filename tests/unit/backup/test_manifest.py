"""What a backup holds, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heteroserve.backup.manifest import (
    Entry,
    Manifest,
    content_fault,
    differing,
    digest,
    is_kept,
    listed,
    missing,
    other_inventory,
    password_fault,
)

CONTENTS = {"state/secrets/ray-token": b"token", "state/plan.json": b"{}", "database/for-backup-1": b"etcd"}
MANIFEST = Manifest(
    made="2026-11-30 17:00:00",
    version="0.1.0",
    runtime="k3s",
    hosts=("a", "b"),
    files={name: Entry(digest(data), "600") for name, data in CONTENTS.items()},
)


@pytest.mark.parametrize("name", ["secrets/ray-token", "registry/ca.key", "plan.json", "kubeconfig", "configs/a.json"])
def test_what_no_run_can_make_again_is_kept(name: str) -> None:
    assert is_kept(name)


@pytest.mark.parametrize(
    "name", ["envs/host/ray", "logs/gateway.log", "models/llama", "run.lock", "bin/helm", "support/x"]
)
def test_what_is_made_or_fetched_anew_is_not(name: str) -> None:
    assert not is_kept(name)


def test_a_password_is_long_enough() -> None:
    assert "no password" in password_fault("")
    assert "15 characters" in password_fault("x" * 15)
    assert password_fault("x" * 16) == ""


def test_an_archive_is_what_its_manifest_says() -> None:
    assert content_fault(MANIFEST, CONTENTS) == ""
    assert MANIFEST.snapshot == "for-backup-1"
    assert replace(MANIFEST, files={}).snapshot == ""


@pytest.mark.parametrize(
    ("contents", "named"),
    [
        ({**CONTENTS, "state/plan.json": b"{ }"}, "state/plan.json"),
        ({**CONTENTS, "state/secrets/more": b""}, "state/secrets/more"),
        ({name: data for name, data in CONTENTS.items() if "plan" not in name}, "state/plan.json"),
    ],
)
def test_what_differs_from_the_manifest_is_named(contents: dict[str, bytes], named: str) -> None:
    assert content_fault(MANIFEST, contents).endswith(f": {named}")


@pytest.mark.parametrize("name", ["state/../../etc/passwd", "/etc/passwd", "state//plan.json", "state/envs/x", "other"])
def test_nothing_is_written_elsewhere(name: str) -> None:
    """Whoever knows the password can make an archive; a restore writes the state directory's files alone."""
    manifest = replace(MANIFEST, files={**MANIFEST.files, name: Entry(digest(b"x"), "600")})
    assert name in content_fault(manifest, {**CONTENTS, name: b"x"})


def test_another_format_names_the_version_that_reads_it() -> None:
    assert "take the version 0.1.0" in content_fault(replace(MANIFEST, format=2), CONTENTS)


def test_hosts_may_come_and_go_but_not_all_of_them() -> None:
    assert other_inventory(MANIFEST, "k3s", ["b", "c"]) == ""
    assert "none of its hosts (a, b) is one of c, d" in other_inventory(MANIFEST, "k3s", ["d", "c"])
    assert "runtime k3s, and this inventory has ray" in other_inventory(MANIFEST, "ray", ["a"])


def test_what_is_there_as_it_was_is_left() -> None:
    present = {"plan.json": digest(b"{}"), "secrets/other": digest(b"mine")}
    assert missing(MANIFEST, present) == ["secrets/ray-token"]
    assert differing(MANIFEST, present) == []
    assert differing(MANIFEST, {**present, "secrets/ray-token": digest(b"new")}) == ["secrets/ray-token"]


def test_long_lists_are_cut() -> None:
    assert listed("gfedcba") == "a, b, c, d, e and 2 more"
