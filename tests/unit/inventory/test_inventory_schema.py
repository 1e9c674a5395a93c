"""Every way in which an inventory cannot work gives one sentence that says where, what and what to set."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from heteroserve.inventory.schema import Inventory, check

GOOD: dict[str, Any] = {
    "runtime": "ray",
    "state_dir": "/var/lib/heteroserve",
    "models": [{"name": "small", "source": {"path": "/models/small"}, "context": 4096}],
    "cell_address": "127.0.0.1",
    "cell_port_base": 18000,
    "gateway_address": "127.0.0.1",
    "gateway_port": 8080,
    "gateway_stats_port": 8405,
}


def inventory(**changes: Any) -> Inventory:
    """A good inventory with some values changed; a value of None takes the key away."""
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    places = {key: f"group_vars/all/x.yml:{number}" for number, key in enumerate(values, 1)}
    return Inventory(values, places, {"serving": ["a"], "gateway": ["a"]}, {}, {})


def sentences(given: Inventory) -> list[str]:
    return list(map(str, check(given, ["vllm"])))


def test_a_good_inventory_has_no_fault() -> None:
    assert sentences(inventory()) == []


def test_a_state_directory_that_a_job_of_awx_would_lose_is_refused() -> None:
    """The plan, the secrets and the facts lie there."""
    lost = replace(inventory(state_dir="/runner/project/.state"), job_folder="/runner")
    assert sentences(lost) == [
        "group_vars/all/x.yml:2: state_dir: /runner/project/.state lies in /runner, which AWX removes after the job; "
        "set it to a folder that lasts, as docs/awx.md says"
    ]
    assert sentences(replace(lost, values={**lost.values, "state_dir": "/runner2/state"})) == []


def test_a_job_may_lose_its_copy_of_a_state_that_a_host_keeps() -> None:
    """Not under ray, where programs and weights are in it too."""
    groups = {"serving": ["a"], "gateway": ["a"], "k3s_server": ["a"], "state": ["nas"]}
    values = {"state_dir": "/runner/state", "runtime": "k3s", "state_path": "/srv/state/dell"}
    kept = replace(inventory(**values), job_folder="/runner", groups=groups, has_password=True)
    assert sentences(kept) == []
    assert sentences(replace(kept, groups={**groups, "state": []}))[0] == (
        "group_vars/all/x.yml:2: state_dir: /runner/state lies in /runner, which AWX removes after the job; "
        "set it to a folder that lasts, or name a host in the group state, as docs/awx.md says"
    )
    (refused,) = sentences(replace(kept, values={**kept.values, "runtime": "ray"}))
    assert "set it to a folder that lasts, as" in refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"hosts": ["nas-1", "nas-2"]},
            "hosts.yml: state: 2 hosts (nas-1, nas-2); leave one host in it, which keeps the state of this site",
        ),
        ({"hosts": []}, "hosts.yml: state: the group is empty; leave one host in it"),
        ({"state_path": None}, "state_path: missing; set it to this site's own folder on the host of the group state"),
        ({"state_path": "state"}, "state_path: 'state' is not an absolute path; set it to this site's own folder"),
        ({"has_password": False}, "backup_password: missing; set it from a credential or a vault: what the host"),
    ],
)
def test_a_state_host_is_one_host_with_a_folder_and_a_password(change: dict[str, Any], sentence: str) -> None:
    groups = {"serving": ["a"], "gateway": ["a"], "state": change.pop("hosts", ["nas"])}
    has_password = change.pop("has_password", True)
    given = replace(inventory(**{"state_path": "/srv/state", **change}), groups=groups, has_password=has_password)
    (found,) = sentences(given)
    assert sentence in found


def test_values_that_the_docs_have_typed_on_the_command_line_are_known() -> None:
    """Those of playbooks that look at the inventory first: not rotate.yml and restore.yml. Roles describe their own."""
    root = Path(__file__).parents[3]
    docs = "".join(path.read_text("utf-8") for path in root.glob("docs/*.md"))
    of_roles = "".join(path.read_text() for path in root.glob("roles/*/defaults/main.yml"))
    typed = {name for name in re.findall(r"-e ([a-z0-9_]+)=", docs) if f"\n{name}:" not in of_roles}
    typed -= {"rotate", "snapshot", "backup", "restore_overwrite"}
    assert {"batch", "upgrade_cells"} <= typed
    assert sentences(inventory(**{**dict.fromkeys(typed, "1"), "verify": "full"})) == []


def test_what_a_workflow_of_awx_hands_on_is_known() -> None:
    """The artifacts of the jobs before, which AWX gives to a job as extra variables."""
    root = Path(__file__).parents[3]
    files = [root / "playbooks" / "plan.yml", *root.glob("roles/*/tasks/*.yml")]
    texts = [path.read_text() for path in files]
    set_there = {
        name for text in texts if "set_stats" in text for name in re.findall(r"^ +(heteroserve_\w+):", text, re.M)
    }
    set_there.add("heteroserve_failure")  # python_plugins/callback/heteroserve.py
    assert len(set_there) == 4
    assert sentences(inventory(**dict.fromkeys(set_there, "x"))) == []


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"gatway_port": 1}, "gatway_port: unknown key; did you mean gateway_port?"),
    ({"runtime": "rey"}, "runtime: 'rey' does not exist; did you mean ray?"),
    ({"runtime": None}, "runtime: missing"),
    ({"gateway_port": "many"}, "gateway_port: found 'many'; set a whole number"),
    ({"gateway_port": True}, "gateway_port: found True; set a whole number"),
    ({"gateway_port": 80}, "gateway_port: 80; set a port from 1024 to 65000"),
    ({"gateway_port": 8405}, "gateway_stats_port: 8405 is also gateway_port; give each its own port"),
    ({"gateway_port": 18010}, "gateway_port: 18010 lies in the cells' range 18000 to 18999"),
    ({"models": []}, "models: an empty list; name at least one model"),
    ({"models": "small"}, "models: found 'small'; set a list"),
    ({"models": [{"name": "a"}]}, "models[0].source: missing; set one of package"),
    ({"models": [{"name": "a", "source": {"path": "/a", "hub": "b/c"}}]}, "models[0].source: path and hub are set"),
    ({"models": [{"name": "a", "source": {"path": "a"}}]}, "models[0].source.path: 'a'; set an absolute path"),
    ({"models": [{"name": "a", "source": {"package": "p"}}]}, "package without version, file, sha256"),
    ({"models": [{"name": "a b", "source": {"path": "/a"}}]}, "models[0].name: 'a b'; use letters"),
    ({"models": [{"name": "a", "source": {"path": "/a"}, "contxt": 1}]}, "models[0].contxt: unknown key; did you"),
    ({"models": [{"name": "a", "source": {"path": "/a"}, "hosts": ["z"]}]}, "'z' is not in group serving"),
    ({"models": [GOOD["models"][0]] * 2}, "models[1].name: 'small' is also models[0]"),
    ({"models": [{**GOOD["models"][0], "engine": "onnx"}]}, "models[0].engine: 'onnx' is not built for this runtime"),
    ({"models": [{**GOOD["models"][0], "engine": "vlm"}]}, "models[0].engine: 'vlm' is not built for this runtime"),
    (
        {"models": [{**GOOD["models"][0], "lora_adapters": [{"name": "small", "source": {"path": "/a"}}]}]},
        "models[0].lora_adapters[0].name: 'small' is the name of another model or adapter; give each a name of its own",
    ),
    (
        {"models": [{**GOOD["models"][0], "lora_adapters": [{"name": "b c", "source": {"path": "/a"}}]}]},
        "models[0].lora_adapters[0].name: 'b c'; use letters",
    ),
    (
        {"models": [{**GOOD["models"][0], "lora_adapters": [{"name": "b", "source": {"package": "p"}}]}]},
        "models[0].lora_adapters[0].source: package is set; set path or hub",
    ),
    (
        {"models": [{**GOOD["models"][0], "lora_adapters": [{"name": "b", "source": {"path": "/a"}, "rnk": 8}]}]},
        "models[0].lora_adapters[0].rnk: unknown key; did you mean rank?",
    ),
    (
        {"models": [{**GOOD["models"][0], "draft": {"tokens": 3}}]},
        "models[0].draft.source: missing; set one of package",
    ),
    (
        {"models": [{**GOOD["models"][0], "draft": {"source": {"path": "/a"}, "tokens": 0}}]},
        "models[0].draft.tokens: found 0; set at least 1",
    ),
    ({"gateway_api_keys": [{"name": "x"}]}, "gateway_api_keys[0]: needs either sha256 or key"),
    ({"gateway_api_keys": [{"name": "x", "sha256": "12"}]}, "gateway_api_keys[0].sha256: not a SHA-256"),
    (
        {"gateway_api_keys": [{"name": "x", "key": "k", "expires": "31.12.2027"}]},
        "gateway_api_keys[0].expires: '31.12.2027'; set its last day, as 2027-12-31",
    ),
    (
        {"gateway_api_keys": [{"name": "x", "key": "k", "models": ["nobody"]}]},
        "gateway_api_keys[0].models: there is no nobody; set any of small",
    ),
    (
        {"gateway_api_keys": [{"name": "x", "key": "k", "requests_per_minute": 0}]},
        "gateway_api_keys[0].requests_per_minute: found 0; set at least 1",
    ),
    (
        {"gateway_api_keys": [{"name": "x", "key": "k", "model": ["a"]}]},
        "gateway_api_keys[0].model: unknown key; did you mean models?",
    ),
    (
        {"gateway_api_keys": [{"name": "x\ny", "key": "k"}]},
        "gateway_api_keys[0].name: 'x\\ny'; set printable characters",
    ),
    ({"gateway_cors_origins": ["https://chat.example/", "chat.example"]}, "gateway_cors_origins[1]: 'chat.example'"),
    ({"gateway_cors_origins": ["*", "https://a.example/chat"]}, "gateway_cors_origins[1]: 'https://a.example/chat'"),
    ({"health_checks": {"small": [{"question": "?"}]}}, "health_checks.small[0].answer: missing; set it"),
]


@pytest.mark.parametrize(("changes", "expected"), FAULTS)
def test_a_fault_is_one_sentence(changes: dict[str, Any], expected: str) -> None:
    found = sentences(inventory(**changes))
    assert len(found) == 1
    assert expected in found[0]


def test_a_last_day_may_stand_without_quotes() -> None:
    """YAML makes a date of it."""
    keys = [{"name": "x", "key": "k", "expires": day} for day in ("2027-12-31", date(2027, 12, 31))]
    assert sentences(inventory(gateway_api_keys=keys)) == []


def followed(changes: dict[str, Any], fault: str) -> dict[str, Any] | None:
    """The values after doing what a fault says, where it says what to set; None where it leaves that to its reader."""
    path, fix = fault.split(": ")[1], fault.rpartition("; ")[2]
    values = {**copy.deepcopy(GOOD), **copy.deepcopy(changes)}
    *way, last = re.findall(r"[^.\[\]]+", path)
    inner: Any = values
    for step in way:
        inner = inner[int(step) if isinstance(inner, list) else step]
    found = re.search(r"did you mean (\w+)\?|, or set (\w+)$|^set one of: (\w+)|^(remove it)", fix)
    if not found:
        return None
    if found[4]:
        inner.pop(last)
    elif "unknown key" in fault:
        inner[found[1]] = inner.pop(last)
    else:
        inner[last] = found[1] or found[2] or found[3]
    return values


def test_no_advice_leads_to_another_refusal() -> None:
    done = []
    for changes, _ in FAULTS:
        (fault,) = sentences(inventory(**changes))
        values = followed(changes, fault)
        if values is not None:
            done.append(fault)
            path = fault.split(": ")[1]
            assert not [other for other in sentences(inventory(**values)) if f"{path}:" in other], fault
    assert len(done) > 4


def test_a_fault_names_file_and_line() -> None:
    given = inventory(gateway_port="many")
    assert sentences(given)[0].startswith(f"{given.places['gateway_port']}: gateway_port:")


def test_a_key_of_a_host_is_checked_too() -> None:
    given = replace(inventory(), host_keys={"gpu1: hardwear": "hosts.yml:9", "gpu1: rack": "hosts.yml:10"})
    assert sentences(given) == ["hosts.yml:9: gpu1: hardwear: unknown key; did you mean hardware?"]


def test_all_faults_come_at_once() -> None:
    found = sentences(inventory(runtime="x", gateway_port="y", models=[], surprise=1))
    assert len(found) == 4


def test_numbers_from_the_command_line_are_text() -> None:
    assert sentences(inventory(gateway_port="9000")) == []


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"gateway": ["a"]}, "serving: the group is missing; name hosts that models may run on in it"),
        ({"gateway": [], "serving": ["a"]}, "gateway: the group is empty"),
    ],
)
def test_groups_are_needed(groups: dict[str, list[str]], expected: str) -> None:
    found = sentences(replace(inventory(), groups=groups))
    assert len(found) == 1
    assert expected in found[0]


def test_a_secret_in_plain_text_is_a_fault_that_does_not_repeat_it() -> None:
    given = replace(inventory(), plain_secrets={"model_store_hf_token": "group_vars/all/x.yml:7"})
    assert sentences(given) == [
        "group_vars/all/x.yml:7: model_store_hf_token: a secret in plain text; encrypt it (ansible-vault encrypt_string"
        " --name model_store_hf_token) or read it from the environment"
    ]


def test_a_template_that_cannot_be_resolved_is_named() -> None:
    given = replace(inventory(gateway_port=None), template_faults={"gateway_port": "'prot' is undefined"})
    assert sentences(given) == ["group_vars/all: gateway_port: 'prot' is undefined; correct the template"]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, "k3s_server: the group is empty; name one host in it, or three for high availability"),
        ({"k3s_server": ["a", "b"]}, "2 servers lose their majority as soon as 1 would; name 1 or 3 hosts in it"),
        ({"k3s_server": ["a"], "retired": ["a"]}, "retired: a is also in k3s_server; leave it in one of them"),
    ],
)
def test_k3s_needs_servers(groups: dict[str, list[str]], expected: str) -> None:
    given = replace(inventory(runtime="k3s"), groups={"serving": ["b"], "gateway": ["b"], **groups})
    found = sentences(given)
    assert len(found) == 1
    assert expected in found[0]
