"""Secrets are found by name, by value and by shape, and what only looks like one stays."""

from __future__ import annotations

import base64
import json

import pytest
from heteroserve.common.secrets import REMOVED, masked, named, removed, spellings

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAbcdefgh\nijklmnop\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("pulling from https://bob:hunter2@registry.example/x", "hunter2"),
        ("http_proxy=http://proxy-user:pr0xy@10.0.0.1:3128", "pr0xy"),
        ("token=s3cr3tvalue&x=1", "s3cr3tvalue"),
        ('{"password": "p4ssw0rd"}', "p4ssw0rd"),
        ('{\\"api_key\\": \\"abcd1234\\"}', "abcd1234"),
        ("password: 12345678", "12345678"),
        ("smtp_auth_password: 'hunter2x'", "hunter2x"),
        ("k3s agent --token abcdefgh --server https://a", "abcdefgh"),
        ("using hf_AbCdEfGhIjKlMnOpQrSt now", "hf_AbCdEfGhIjKlMnOpQrSt"),
        ("key sk-abcdefghijklmnopqrst", "sk-abcdefghijklmnopqrst"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("K10" + "a" * 64 + "::server:beef", "beef"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIiOiIxMjM0In0"),
        ('{"auths": {"r:5000": {"auth": "aGV0ZXJvOnNlY3JldA=="}}}', "aGV0ZXJvOnNlY3JldA=="),
        ("    client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1CRUdJTg=="),
        (f"before\n{KEY}\nafter", "MHcCAQEEIAbcdefgh"),
        (KEY[40:], "ijklmnop"),
        (KEY[:60], "MHcCAQEEI"),
        (f"x: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  {'61' * 40}\n  {'72' * 20}\n", "7272"),
    ],
)
def test_what_has_the_shape_of_a_secret_goes(text: str, secret: str) -> None:
    clean, places = removed(text, [])
    assert secret not in clean
    assert REMOVED in clean
    assert places == 1


@pytest.mark.parametrize(
    "text",
    [
        '"max_tokens": 64, "kv_cache_tokens": 8192',
        "tokens_per_s: 9.9",
        '"token_s": 0.1',
        "token_file: /srv/state/secrets/ray-token",
        "token: true",
        "needs_key: false",
        "registry_password: \"{{ lookup('env', 'X') }}\"",
        "sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "http://127.0.0.1:8080/v1 and http://[::1]:8080",
        "the KV cache holds 4096 tokens: raise kv_cache_gib",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ],
)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert removed(text, []) == (text, 0)


def test_what_was_removed_is_not_removed_again() -> None:
    clean, _ = removed("token=s3cr3tvalue https://a:b12@h Bearer abcdefghij", [])
    assert removed(clean, []) == (clean, 0)


def test_values_go_in_every_form_in_which_programs_write_them() -> None:
    value = 'p"ä/s+word'
    forms = [value, json.dumps(value), base64.b64encode(value.encode()).decode(), "p%22%C3%A4%2Fs%2Bword"]
    clean, places = removed(" | ".join(forms), spellings([value]))
    assert places == 4
    assert not any(form in clean for form in forms)


def test_a_value_within_another_leaves_no_half() -> None:
    assert removed("abcdefghij", spellings(["abcdef", "abcdefghij"]))[0] == REMOVED


def test_lines_of_a_value_are_values_and_short_ones_are_not() -> None:
    spelled = spellings(["hetero:$2b$10$salt\n", "first-line\nsecond-line", "abc"])
    assert {"first-line", "second-line", "hetero:$2b$10$salt"} <= set(spelled)
    assert "abc" not in spelled


def test_names_say_what_is_secret() -> None:
    variables = {
        "registry_password": "one",
        "gateway_api_keys": [{"name": "chat", "key": "two", "sha256": "digest"}],
        "login": {"user": "me", "TOKEN": "three"},
        "health_question": "What?",
        "needs_key": True,
    }
    assert sorted(named(variables)) == ["one", "three", "two"]
    hidden = masked(variables)
    assert hidden["gateway_api_keys"] == [{"name": "chat", "key": REMOVED, "sha256": "digest"}]
    assert hidden["login"] == {"user": "me", "TOKEN": REMOVED}
    assert hidden["health_question"] == "What?"
