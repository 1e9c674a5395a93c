"""API keys: what is kept, what is refused, and what the gateway's maps are made from."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from heteroserve.common.records import to_dict
from heteroserve.gateway.keys import Key, Wanted, absent, digest, faults, present, read, shown

from python_plugins.filter.gateway_grants import gateway_grants

gateway_keys = importlib.import_module("python_plugins.modules.gateway.gateway_keys")
TODAY = "2027-03-01"
ALICE = Key("alice", digest("sk-a"), "2027-01-01", models=("llama",), requests_per_minute=60)


def test_a_new_key_is_kept_by_its_digest() -> None:
    (key,) = present((), Wanted("bob", expires="2027-12-31", concurrent_requests=4), "sk-b", TODAY)
    assert key == Key("bob", digest("sk-b"), TODAY, "2027-12-31", (), None, 4)
    assert "sk-b" not in json.dumps(to_dict(key))
    assert read(json.loads(json.dumps(to_dict((key, ALICE))))) == (key, ALICE)


def test_a_key_that_exists_keeps_what_is_not_named() -> None:
    """Itself above all."""
    (changed,) = present((ALICE,), Wanted("alice", expires="2027-02-01"), "sk-other", TODAY)
    assert changed == Key("alice", digest("sk-a"), "2027-01-01", "2027-02-01", ("llama",), 60)
    (free,) = present((changed,), Wanted("alice", expires="", models=(), requests_per_minute=0), "sk-other", TODAY)
    assert free == Key("alice", digest("sk-a"), "2027-01-01")
    assert present((free,), Wanted("alice"), "sk-other", TODAY) == (free,)


def test_a_revoked_key_is_gone() -> None:
    bob = Key("bob", digest("sk-b"), TODAY)
    assert absent((ALICE, bob), "alice") == (bob,)
    assert absent((bob,), "alice") == (bob,)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(""), "key_name: found ''; set 1 to 64 printable characters"),
        (Wanted("a\nb"), "key_name: found 'a\\nb'"),
        (Wanted("carol"), "key_name: carol is a key of the inventory; change it there (gateway_api_keys)"),
        (Wanted("a", expires="1.2.2027"), "key_expires: found '1.2.2027'; set the key's last day (UTC), as 2027-12-31"),
        (Wanted("a", expires="20271231"), "key_expires: found '20271231'"),
        (Wanted("a", models=("gpt",)), "key_models: there is no gpt; set any of llama, qwen"),
        (Wanted("a", priority="high"), "key_priority: found 'high'; set interactive or batch"),
        (Wanted("a", tokens_per_day=-5), "key_tokens_per_day: found -5; set at least 1, or 0 for no limit"),
        (Wanted("a", requests_per_minute=-1), "key_requests_per_minute: found -1; set at least 1, or 0 for no limit"),
    ],
)
def test_what_cannot_be_is_said(wanted: Wanted, said: str) -> None:
    (found,) = faults(wanted, ["llama", "qwen"], ["carol"])
    assert found.startswith(said)


def test_all_keys_are_a_table() -> None:
    inventory = [{"name": "carol", "expires": "2027-02-28", "concurrent_requests": 8}]
    alice = replace(ALICE, tokens_per_day=2_000_000, priority="batch")
    lines = shown((alice,), inventory, TODAY).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["carol", "inventory", "2027-02-28", "(over)", "all", "any", "8", "any", "interactive"],
        ["alice", "keys.yml", "2027-01-01", "never", "llama", "60", "any", "2,000,000", "batch"],
    ]
    assert "There is no key" in shown((), [], TODAY)


def test_the_gateway_gets_digests_of_all_keys() -> None:
    """Keys as inventories have had them, and with limits; one that stands there twice counts once."""
    given = [
        {"name": "alice", "sha256": digest("sk-a").upper()},
        {"name": "vault", "key": "sk-v", "expires": "2027-12-31"},
    ]
    made = [{**to_dict(ALICE), "name": "twice"}, to_dict(Key("bob", digest("sk-b"), TODAY, concurrent_requests=2))]
    alice, vault, bob = gateway_grants([*given, *made])
    free = {"ends": 2**62, "requests_per_minute": 0, "concurrent_requests": 0, "models": []}
    free |= {"tokens_per_day": 0, "priority": "interactive"}
    assert alice == {"digest": digest("sk-a"), "name": "alice", **free}
    assert vault == {"digest": digest("sk-v"), "name": "vault", **free, "ends": 1830297600}
    assert bob == {"digest": digest("sk-b"), "name": "bob", **free, "concurrent_requests": 2}


class Ended(Exception):
    """The module ended."""


def run(monkeypatch: pytest.MonkeyPatch, path: Path, check: bool = False, **given: Any) -> dict[str, Any]:
    """What the module returns; "msg" where it failed."""

    class Module:
        def __init__(self, argument_spec: dict[str, dict[str, Any]], supports_check_mode: bool) -> None:
            assert supports_check_mode
            self.params = {name: option.get("default") for name, option in argument_spec.items()}
            self.params |= {"path": str(path), "known_models": ["llama"], **given}
            self.check_mode = check

        def exit_json(self, **result: Any) -> None:
            raise Ended(result)

        fail_json = exit_json

    monkeypatch.setattr(gateway_keys, "AnsibleModule", Module)
    with pytest.raises(Ended) as ended:
        gateway_keys.main()
    return dict(ended.value.args[0])


def test_a_key_is_shown_once_and_its_digest_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "keys.json"
    tried = run(monkeypatch, path, check=True, state="present", name="alice")
    assert tried["changed"]
    assert "sk-" not in tried["report"]
    assert not path.exists()
    made = run(monkeypatch, path, state="present", name="alice", models=["llama"])
    secret = made["report"].splitlines()[0].rpartition(": ")[2]
    assert json.loads(path.read_text())[0]["sha256"] == digest(secret)
    assert path.stat().st_mode & 0o777 == 0o600
    again = run(monkeypatch, path, state="present", name="alice", models=["llama"])
    listed = run(monkeypatch, path)
    assert not again["changed"]
    assert not listed["changed"]
    assert "sk-" not in again["report"] + listed["report"] + json.dumps(listed["keys"])
    assert run(monkeypatch, path, state="absent", name="alice")["changed"]
    # Keys are still asked for.
    assert json.loads(path.read_text()) == []


def test_a_file_that_cannot_be_read_is_not_written_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("[{")
    assert "cannot be read" in run(monkeypatch, path, state="present", name="alice")["msg"]
    path.write_text('[{"name": "alice", "limit": 5}]')
    assert "keys.json[0].limit: unknown key" in run(monkeypatch, path, state="present", name="alice")["msg"]
    assert path.read_text() == '[{"name": "alice", "limit": 5}]'
