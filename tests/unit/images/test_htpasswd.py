"""bcrypt as the host's libcrypt computes it."""

from __future__ import annotations

import importlib

import pytest

module = importlib.import_module("python_plugins.modules.images.htpasswd_bcrypt")


def test_a_known_hash_is_recognised() -> None:
    # A test vector of Openwall's crypt_blowfish.
    known = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    assert module.hashed("U*U", known) == known


def test_a_line_is_right_for_its_account_password_and_cost_only() -> None:
    line = "me:" + module.fresh("secret", 5)
    assert line.startswith("me:$2b$05$")
    assert module.right(line, "me", "secret", 5)
    assert not module.right(line, "you", "secret", 5)
    assert not module.right(line, "me", "other", 5)
    assert not module.right(line, "me", "secret", 6)
    assert not module.right("me:plain", "me", "plain", 5)


def test_two_hashes_of_one_password_differ() -> None:
    assert module.fresh("secret", 5) != module.fresh("secret", 5)


def test_a_host_without_bcrypt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARIES", ("libnothing.so.1",))
    with pytest.raises(OSError, match="install libcrypt1"):
        module.fresh("secret", 5)
