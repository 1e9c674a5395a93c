"""playbooks/awx.yml against a stand-in of AWX's API (tests/helpers/awx_api.py): there is no AWX here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.awx_api import TOKEN, Awx, serving
from tests.helpers.awx_jobs import failure_message
from tests.helpers.playbook_runs import changed, told

pytestmark = [pytest.mark.integration]
TELLS = "notification_templates_error"


@pytest.fixture
def awx() -> Iterator[tuple[Awx, str]]:
    made = Awx()
    with serving(made) as url:
        yield made, url


def run(root: Path, url: str, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    options = ["-i", "inventory/local", "-e", f"awx_url={url}", "-e", "awx_webhook_url=http://127.0.0.1:9/hook"]
    return subprocess.run(
        ["ansible-playbook", "playbooks/awx.yml", *options, *words],
        cwd=root,
        env={**os.environ, "CONTROLLER_OAUTH_TOKEN": token, "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


@pytest.mark.long("two minutes: a module call for each object, three times")
def test_objects_are_made_kept_and_removed(root: Path, awx: tuple[Awx, str]) -> None:
    made, url = awx
    first = run(root, url)
    assert first.returncode == 0, told(first)
    counts = {name: len(objects) for name, objects in made.objects.items()}
    assert counts["job_templates"] == 14
    assert counts["workflow_job_template_nodes"] == 6
    assert counts["workflow_approval_templates"] == 1
    assert len(made.surveys) == 6
    (staff,) = made.objects["notification_templates"].values()
    assert staff["messages"] == {"error": {part: failure_message(part) for part in ("message", "body")}}
    tell = [held for (kind, _, name), held in made.held.items() if (kind, name) == ("job_templates", TELLS)]
    assert tell == [[staff["id"]]] * 14
    second = run(root, url)
    assert second.returncode == 0, told(second)
    assert changed(second.stdout) == 0
    others = made.add("projects", {"name": "Somebody else's", "description": "kept"})
    gone = run(root, url, "-e", "awx_state=absent")
    assert gone.returncode == 0, told(gone)
    left = [one["name"] for objects in made.objects.values() for one in objects.values()]
    assert left == ["Machine", others["name"]]


def test_a_name_that_others_have_taken_is_refused_before_anything_is_made(root: Path, awx: tuple[Awx, str]) -> None:
    made, url = awx
    made.add("projects", {"name": "HeteroServe", "description": "of another team"})
    done = run(root, url)
    assert done.returncode == 2
    assert "projects HeteroServe" in done.stdout
    assert not made.objects["organizations"]
