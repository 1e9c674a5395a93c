"""Wrong inventories as their authors write them: read by Ansible, judged by the action plugin, in one process.

tests/integration/test_faults.py shows by whole runs that such a sentence ends a run.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.context_objects import CLIArgs
from ansible.utils.vars import load_extra_vars
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from heteroserve.inventory.schema import Inventory, check
from heteroserve.metal import settings

from python_plugins.action.inventory_check import ActionModule


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    """Ansible's own, which reading an inventory needs."""
    init_plugin_loader()


@pytest.fixture
def inventory(root: Path, tmp_path: Path) -> Path:
    """A copy of inventory/local, to spoil."""
    return Path(shutil.copytree(root / "inventory" / "local", tmp_path / "inventory"))


def sentences(source: Path | list[Path], monkeypatch: pytest.MonkeyPatch, **typed: Any) -> list[str]:
    """What the validate stage says of an inventory and of what was typed with -e."""
    sources = list(map(str, source if isinstance(source, list) else [source]))
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"extra_vars": (json.dumps(typed),) if typed else ()}))
    monkeypatch.delattr(load_extra_vars, "extra_vars", raising=False)
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=sources)
    variables = VariableManager(loader=loader, inventory=manager)
    known = variables.get_vars(host=manager.get_host("localhost"))
    known |= {"hostvars": HostVars(manager, variables, loader), "ansible_inventory_sources": sources}
    known |= {"playbook_dir": "/", "ansible_playbook_python": sys.executable}
    asked: dict[str, Any] = {}

    def judge(self: ActionModule, module_name: str, module_args: dict[str, Any], task_vars: object) -> dict[str, Any]:
        asked.update(module_args)
        return {}

    monkeypatch.setattr(ActionModule, "_execute_module", judge)
    task = SimpleNamespace(action="inventory_check", args={}, async_val=0, check_mode=False, diff=False)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
    plugin = ActionModule(task, connection, SimpleNamespace(), loader, Templar(loader, known), None)
    plugin.run(task_vars=known)
    asked.pop("gateway_is_local")
    read = Inventory(**asked)
    return list(map(str, [*check(read, ["vllm"]), *settings.refusals(read)]))


def test_the_example_has_no_fault(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentences(inventory, monkeypatch) == []


def test_an_unknown_key_is_named_with_file_and_line(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = inventory / "group_vars" / "all" / "gateway.yml"
    file.write_text(file.read_text().replace("gateway_port: 8080", "gatewayport: 8080"))
    lines = file.read_text().splitlines()
    number = next(index for index, line in enumerate(lines, 1) if line.startswith("gatewayport"))
    found = sentences(inventory, monkeypatch)
    where = f"group_vars/all/gateway.yml:{number}"
    assert f"{where}: gatewayport: unknown key; did you mean gateway_port?" in found


def test_values_that_are_typed_are_judged_as_those_in_files(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = sentences(inventory, monkeypatch, gateway_port=28000, gateway_stats_port=28000)
    assert said == "command line (-e): gateway_stats_port: 28000 is also gateway_port; give each its own port"


def test_a_secret_in_plain_text_is_named_and_not_shown(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = inventory / "group_vars" / "all" / "models.yml"
    file.write_text(file.read_text() + "model_store_hf_token: hf_abcdefghijklmnop\n")
    (said,) = sentences(inventory, monkeypatch)
    assert "model_store_hf_token: a secret in plain text; encrypt it" in said
    assert "hf_abcdefghijklmnop" not in said


SETTINGS = {
    "runtime": "ray",
    "state_dir": "/srv/state",
    "models": [{"name": "m", "card": "smollm2-135m", "source": {"path": "/srv/m"}}],
    "cell_address": "127.0.0.1",
    "cell_port_base": 18000,
    "gateway_address": "127.0.0.1",
    "gateway_port": 8080,
    "gateway_stats_port": 8405,
}
HOSTS = "[serving]\nlocal ansible_connection=local\n[gateway]\nlocal\n"


def ini(folder: Path, **changes: Any) -> Path:
    """All of it in one INI file, as older sites have it."""
    values = "\n".join(f"{key}={value!r}" for key, value in {**SETTINGS, **changes}.items())
    (folder / "hosts").write_text(f"{HOSTS}[all:vars]\n{values}\n")
    return folder / "hosts"


def vars_of_all(folder: Path, **changes: Any) -> Path:
    """YAML with `all: vars:`."""
    group = {"hosts": {"local": {"ansible_connection": "local"}}}
    said = {"all": {"vars": {**SETTINGS, **changes}, "children": {"serving": group, "gateway": group}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(said))
    return folder / "hosts.yml"


def script(folder: Path, **changes: Any) -> Path:
    """A dynamic inventory, as AWX hands it over, with what AWX and a CMDB say of a host."""
    of_local = {"ansible_connection": "local", "remote_tower_enabled": "true", "site_id": 7}
    group = {"hosts": ["local"]}
    said = {"all": {"vars": {**SETTINGS, **changes}}, "serving": group, "gateway": group}
    said["_meta"] = {"hostvars": {"local": of_local}}
    file = folder / "inventory.py"
    file.write_text(f"#!{sys.executable}\nprint({json.dumps(said)!r})\n")
    file.chmod(0o755)
    return file


def json_files(folder: Path, **changes: Any) -> Path:
    (folder / "hosts.ini").write_text(HOSTS)
    (folder / "group_vars").mkdir()
    (folder / "group_vars" / "all.json").write_text(json.dumps({**SETTINGS, **changes}))
    return folder


def no_extension(folder: Path, **changes: Any) -> Path:
    (folder / "hosts.ini").write_text(HOSTS)
    (folder / "group_vars" / "all").mkdir(parents=True)
    (folder / "group_vars" / "all" / "settings").write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return folder / "hosts.ini"


def two_sources(folder: Path, **changes: Any) -> list[Path]:
    """Hosts in one place, settings in another."""
    (folder / "hosts.ini").write_text(HOSTS)
    (folder / "site" / "group_vars").mkdir(parents=True)
    (folder / "site" / "empty.ini").write_text("[serving]\n")
    (folder / "site" / "group_vars" / "all.yaml").write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return [folder / "hosts.ini", folder / "site"]


FORMS = {
    ini: "hosts:",
    vars_of_all: "hosts.yml:",
    script: "<inventory script output from ",
    json_files: "group_vars/all.json:",
    no_extension: "group_vars/all/settings:",
    two_sources: "group_vars/all.yaml:",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_an_inventory_of_any_form_is_read_and_judged(
    form: Callable[..., Path | list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "right").mkdir()
    assert sentences(form(tmp_path / "right"), monkeypatch) == []
    (tmp_path / "wrong").mkdir()
    wrong = {"gatewayport": 1, "ray_host_object_store_mib": "many", "models": [{**SETTINGS["models"][0], "contxt": 1}]}
    found = sentences(form(tmp_path / "wrong", **wrong), monkeypatch)
    assert all(said.startswith(FORMS[form]) for said in found), found
    assert [re.search(r": ([\w.\[\]]+: [^;]*); ", said)[1] for said in found] == [  # type: ignore[index]
        "gatewayport: unknown key",
        "models[0].contxt: unknown key",
        "ray_host_object_store_mib: found 'many'",
    ]


def group_file(inventory: Path, group: str, **settings: Any) -> None:
    name = "all/more.yml" if group == "all" else f"{group}.yml"
    (inventory / "group_vars" / name).write_text(yaml.safe_dump(settings))


def test_what_a_group_sets_is_judged(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group_file(inventory, "serving", ray_host_object_store_mib="many", gatway_port=1)
    assert sentences(inventory, monkeypatch) == [
        "group_vars/serving.yml:1: serving: gatway_port: unknown key; did you mean gateway_port?",
        "group_vars/serving.yml:2: serving: ray_host_object_store_mib: found 'many'; set a whole number",
    ]


def test_settings_of_a_bmc_are_judged_where_they_stand(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group_file(inventory, "serving", bare_metal_os="ubuntu-20.04", bare_metal_disk="sda")
    (inventory / "host_vars").mkdir()
    own = {
        "bare_metal_bmc_address": "10.20.0.11:443",
        "bare_metal_bmc_password": "in plain text",
        "bare_metal_rackk": "A",
    }
    (inventory / "host_vars" / "local.yml").write_text(yaml.safe_dump(own))
    assert [found.partition(";")[0] for found in sorted(sentences(inventory, monkeypatch))] == [
        "group_vars/serving.yml:1: serving: bare_metal_disk: 'sda'",
        "group_vars/serving.yml:2: serving: bare_metal_os: 'ubuntu-20.04' does not exist",
        "host_vars/local.yml:1: local: bare_metal_bmc_address: '10.20.0.11:443'",
        "host_vars/local.yml:1: local: bare_metal_bmc_user: missing, and the host has a BMC",
        "host_vars/local.yml:2: local: bare_metal_bmc_password: a secret in plain text",
        "host_vars/local.yml:3: local: bare_metal_rackk: unknown key",
    ]


def test_settings_of_the_gateway_may_stand_at_its_group(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inventory / "group_vars" / "all" / "gateway.yml").unlink()
    group_file(inventory, "gateway", gateway_address="127.0.0.1", gateway_port=8080, gateway_stats_port=8080)
    (said,) = sentences(inventory, monkeypatch)
    assert said == "group_vars/gateway.yml:3: gateway_stats_port: 8080 is also gateway_port; give each its own port"


def test_a_setting_that_localhost_does_not_see_is_named(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = inventory / "group_vars" / "all" / "cluster.yml"
    file.write_text(file.read_text().replace("runtime: ray", "engine_python: /usr/bin/python3"))
    group_file(inventory, "serving", runtime="ray")
    (said,) = sentences(inventory, monkeypatch)
    assert said == (
        "group_vars/serving.yml:1: serving: runtime: serving alone has it;"
        " set it for all hosts, localhost too (group_vars/all)"
    )


def test_variables_of_awx_are_no_faults(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentences(inventory, monkeypatch, awx_job_id=7, tower_user_name="admin", awx_inventory_name="rack") == []


def test_faults_of_what_is_typed_come_in_its_order(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = {f"{letter}_unknown_key": 1 for letter in "zyxwabcd"}
    found = sentences(inventory, monkeypatch, **typed)
    assert [said.split(": ")[1] for said in found] == list(typed)


@pytest.mark.parametrize("name", ["ansible_become_pass", "ansible_ssh_pass", "ansible_password", "ansible_sudo_pass"])
def test_passwords_of_ansible_in_plain_text_are_named(
    name: str, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars" / "local").write_text(f"{name}: pass-1234\n")
    (said,) = sentences(inventory, monkeypatch)
    assert said.startswith(f"host_vars/local:1: local: {name}: a secret in plain text; encrypt it")
    assert "pass-1234" not in said
    (inventory / "host_vars" / "local").write_text(f"{name}: \"{{{{ lookup('env', 'SUDO') }}}}\"\n")
    assert sentences(inventory, monkeypatch) == []


def test_a_password_in_a_url_is_a_secret(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group_file(inventory, "all", engine_torch_index="https://me:pass-1234@mirror/torch")
    (said,) = sentences(inventory, monkeypatch)
    assert said.startswith("group_vars/all/more.yml:1: engine_torch_index: a secret in plain text")


def test_a_vault_that_cannot_be_opened_is_named(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = VaultLib([("default", VaultSecret(b"right"))]).encrypt("hf_abc", vault_id="default").decode()
    text = "".join(f"  {line}\n" for line in secret.splitlines())
    (inventory / "group_vars" / "all" / "vault.yml").write_text(f"model_store_hf_token: !vault |\n{text}")
    (said,) = sentences(inventory, monkeypatch)
    assert said == (
        "group_vars/all/vault.yml:1: model_store_hf_token: its vault cannot be opened;"
        " give its password: --ask-vault-pass or --vault-password-file"
    )


def test_a_template_of_a_role_that_cannot_be_rendered_is_named(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_file(
        inventory, "all", model_store_hf_token="{{ vault_hf_tokn }}", ray_host_object_store_mib="{{ plan.cells }}"
    )
    (said,) = sentences(inventory, monkeypatch)
    assert said == (
        "group_vars/all/more.yml:1: model_store_hf_token: 'vault_hf_tokn' is undefined; correct the template"
    )
