"""Wrong inventories as their authors write them: read by Ansible, judged by the action plugin, in one process.

tests/integration/test_faults.py shows by whole runs that such a sentence ends a run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.utils.context_objects import CLIArgs
from ansible.utils.vars import load_extra_vars
from ansible.vars.manager import VariableManager
from heteroserve.inventory.schema import Inventory, check

from python_plugins.action.inventory_check import ActionModule


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    """Ansible's own, which reading an inventory needs."""
    init_plugin_loader()


@pytest.fixture
def inventory(root: Path, tmp_path: Path) -> Path:
    """A copy of inventory/local, to spoil."""
    return Path(shutil.copytree(root / "inventory" / "local", tmp_path / "inventory"))


def sentences(folder: Path, monkeypatch: pytest.MonkeyPatch, **typed: Any) -> list[str]:
    """What the validate stage says of an inventory and of what was typed with -e."""
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"extra_vars": (json.dumps(typed),) if typed else ()}))
    monkeypatch.delattr(load_extra_vars, "extra_vars", raising=False)
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(folder)])
    variables = VariableManager(loader=loader, inventory=manager)
    known = variables.get_vars(host=manager.get_host("local"))
    known |= {"hostvars": {"local": dict(known)}, "playbook_dir": "/", "ansible_inventory_sources": [str(folder)]}
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
    return list(map(str, check(Inventory(**asked), ["vllm"])))


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
