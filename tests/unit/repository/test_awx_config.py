"""The objects of awx/config: they name playbooks, stages and variables that exist, and each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import ChainableUndefined, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tests.helpers.awx_jobs import failure_message

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "awx" / "config"


def objects(name: str) -> Any:
    """A variable of awx/config/all."""
    for path in (CONFIG / "all").glob("*.yml"):
        found = yaml.safe_load(path.read_text())
        if name in found:
            return found[name]
    raise KeyError(name)


TEMPLATES: list[dict[str, Any]] = objects("controller_templates")
STAGES = {item["tags"] for item in yaml.safe_load((ROOT / "site.yml").read_text())}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one["name"])
def test_a_template_runs_what_there_is(template: dict[str, Any]) -> None:
    playbook = ROOT / template["playbook"]
    if not playbook.exists():
        pytest.skip(f"{template['playbook']} comes with another part")
    assert set(template.get("job_tags", "").split(",")) - {"", "monitoring"} <= STAGES
    for question in template.get("survey_spec", {}).get("spec", []):
        names = "".join(path.read_text() for path in [playbook, *ROOT.glob("roles/*/meta/argument_specs.yml")])
        assert question["variable"] in names + "".join(path.read_text() for path in ROOT.glob("playbooks/vars/*.yml"))


def test_the_workflow_has_an_approval_between_the_plan_and_what_changes_hosts() -> None:
    (workflow,) = objects("controller_workflows")
    nodes = {node["identifier"]: node for node in workflow["simplified_workflow_nodes"]}
    order, name = [], "validate"
    while name:
        order.append(name)
        name = "".join(nodes[name].get("success_nodes", []))
    assert order == ["validate", "plan", "approve", "apply", "health", "benchmark"]
    assert nodes["approve"]["approval_node"]["name"] == "Approve the plan"
    known = {template["name"] for template in TEMPLATES}
    assert {nodes[one]["unified_job_template"] for one in order if one != "approve"} <= known


# Of the fields that AWX 24.6.1 gives to messages (awx/main/models/notifications.py) those that are asked for here. It
# refuses a message that names another one, with artifacts that are empty.
JOB = {"id": 12, "name": "HeteroServe apply", "status": "failed", "job_explanation": "", "artifacts": {}}


def message(part: str, undefined: Any, **fields: Any) -> str:
    """A message, rendered as AWX does it."""
    environment = ImmutableSandboxedEnvironment(undefined=undefined)
    return environment.from_string(failure_message(part)).render(job={**JOB, **fields}, url="https://awx/#/jobs/12")


def test_a_notification_says_why_a_job_failed() -> None:
    artifacts = {"heteroserve_failure": 'r760-1: "/srv" has 3 GB free; set state_dir', "heteroserve_plan": {}}
    said = f"HeteroServe apply, job 12, failed: {artifacts['heteroserve_failure']}"
    assert message("message", ChainableUndefined, artifacts=artifacts) == said
    sent = json.loads(message("body", ChainableUndefined, artifacts=artifacts))
    assert sent == {"text": said, "job": 12, "status": "failed", "url": "https://awx/#/jobs/12"}


@pytest.mark.parametrize("undefined", [ChainableUndefined, StrictUndefined])
def test_a_job_that_could_not_say_why_is_told_too(undefined: Any) -> None:
    assert message("message", undefined).endswith("failed: its output says why")
    explained = {"status": "canceled", "job_explanation": "Task was canceled."}
    assert json.loads(message("body", undefined, **explained))["text"].endswith("job 12, canceled: Task was canceled.")


def test_every_template_tells_of_its_failures_and_the_workflow_leaves_that_to_them() -> None:
    for template in TEMPLATES:
        assert "controller_notifications" in template["notification_templates_error"]
    (workflow,) = objects("controller_workflows")
    assert not {"notification_templates_error", "notification_templates_success"} & set(workflow)


def test_every_object_carries_the_tag_by_which_it_is_removed() -> None:
    for path in (CONFIG / "all").glob("*.yml"):
        text = path.read_text()
        for entry in re.findall(r"^    description: .*$", text, re.MULTILINE):
            assert "awx_tag" in entry, (path.name, entry)


def test_a_credential_sets_what_something_reads() -> None:
    options = "".join(path.read_text() for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
    playbooks = "".join(path.read_text() for path in ROOT.glob("playbooks/**/*.yml"))
    for kind in objects("controller_credential_types"):
        assert kind["injectors"].keys() == {"extra_vars"}
        for name in kind["injectors"]["extra_vars"]:
            assert re.search(rf"\b{name}\b", options + playbooks), (kind["name"], name)


def test_no_secret_is_in_the_configuration() -> None:
    for path in [*CONFIG.rglob("*.yml"), ROOT / "awx" / "execution-environment.yml"]:
        assert not re.search(r'^\s*(password|token|ssh_key_data): +[^\s"]', path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_each_environment_sets_what_the_objects_ask_for(name: str) -> None:
    given = set(yaml.safe_load((CONFIG / name / "settings.yml").read_text()))
    role = ROOT / "roles" / "awx"
    given |= set(yaml.safe_load((role / "defaults" / "main.yml").read_text()))
    given |= set(yaml.safe_load((role / "vars" / "main.yml").read_text()))
    asked = {word for path in (CONFIG / "all").glob("*.yml") for word in re.findall(r"\bawx_\w+", path.read_text())}
    assert asked <= given


def test_the_execution_environment_has_the_versions_of_the_locks() -> None:
    made = yaml.safe_load((ROOT / "awx" / "execution-environment.yml").read_text())["dependencies"]
    for name, lock in (("ansible_core", "control.txt"), ("ansible_runner", "test.txt")):
        locked = (ROOT / "requirements" / lock).read_text()
        assert f"\n{made[name]['package_pip']} " in locked.replace(" \\", " ")
