"""What a failed job of AWX tells: the sentence of what ended it, as an artifact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.executor.stats import AggregateStats

from python_plugins.callback.heteroserve import MOST_TOLD, CallbackModule, why_failed


class Runner(CallbackModule):
    """As ansible-runner's: it takes the statistics before it calls the class that it inherits from."""

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self.artifacts = dict(stats.custom.get("_run", {}))


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(made, "_failure", lambda *_, **__: None)
    made._display = SimpleNamespace(verbosity=0, display=lambda *_, **__: None)
    return made


def failed(job: Runner, host: str, ignore_errors: bool = False, **data: Any) -> None:
    task = SimpleNamespace(loop=data.get("results"), remote_user=None, action="x")
    named = SimpleNamespace(get_name=lambda: host, vars={})
    job.v2_runner_on_failed(SimpleNamespace(_host=named, _task=task, _result=data), ignore_errors)


def ended(job: Runner, *hosts: str) -> dict[str, Any]:
    stats = AggregateStats()
    for host in hosts:
        stats.increment("failures", host)
    job.v2_playbook_on_stats(stats)
    return job.artifacts


def test_a_failed_job_tells_why(job: Runner) -> None:
    failed(job, "localhost", msg="The inventory has 1 fault; nothing was changed.\n  1. hosts.yml: ...")
    said = ended(job, "localhost")
    assert said == {"heteroserve_failure": "The inventory has 1 fault; nothing was changed. 1. hosts.yml: ..."}


def test_what_was_rescued_or_ignored_is_not_why(job: Runner) -> None:
    failed(job, "a", msg="rescued")
    failed(job, "b", ignore_errors=True, msg="ignored")
    assert ended(job) == {}
    failed(job, "a", msg="no space left")
    assert ended(job, "a") == {"heteroserve_failure": "a: no space left"}


def test_of_a_loop_the_item_that_failed_tells(job: Runner) -> None:
    failed(job, "a", msg="One or more items failed", results=[{"msg": "fine"}, {"failed": True, "msg": "no such file"}])
    assert ended(job, "a") == {"heteroserve_failure": "a: no such file"}


def test_a_sentence_fits_a_message() -> None:
    assert why_failed({"a": "x" * 9000, "b": "y"}) == f"a: {'x' * MOST_TOLD}... (2 hosts failed)"
    assert why_failed({"a": "a: sudo asks for a password"}) == "a: sudo asks for a password"
