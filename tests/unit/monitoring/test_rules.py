"""The rules, played by promtool: each alert fires, does not fire, and resolves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from heteroserve.monitoring import rules
from heteroserve.monitoring.targets import JOBS

from .alert_cases import CASES, Case, Level, Rate

FOLDER = os.environ.get("HETEROSERVE_PROMETHEUS", "")
PROMTOOL = shutil.which("promtool", path=f"{FOLDER}/usr/bin:{FOLDER}") if FOLDER else shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="no promtool: apt-get install prometheus, or set HETEROSERVE_PROMETHEUS to its folder"
)
DOCS = "https://example.com/docs"
STEP_S = 60


def written(folder: Path, jobs: tuple[str, ...] = JOBS, **changed: Any) -> Path:
    made = rules.rules({job: [{}] for job in jobs}, changed, DOCS)
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump(made, sort_keys=False, width=4000))
    return path


def values(spec: Level | Rate, steps: int) -> str:
    """A value for each step of the three parts."""
    if isinstance(spec, Level):
        numbers = [spec.at(part) for part in range(3) for _ in range(steps)]
        return " ".join("_" if number is None else f"{number:g}" for number in numbers)
    total, found = 0.0, []
    for part in range(3):
        for _ in range(steps):
            found.append(f"{total:g}")
            total += spec.at(part) * STEP_S
    return " ".join(found)


def story(name: str, case: Case) -> dict[str, Any]:
    """A test of promtool: the alert in the middle alone, and only that one."""
    alert = next((one for one in rules.ALERTS if one.name == name), None)
    expected = {
        "exp_labels": {
            "severity": alert.severity if alert else "warning",
            **{k: v for k, v in case.labels.items() if v},
        },
        "exp_annotations": {"summary": case.summary, "runbook_url": f"{DOCS}/alerts.md#{name.lower()}"},
    }
    ends = [case.minutes * (part + 1) - 1 for part in range(3)]
    return {
        "name": name,
        "interval": f"{STEP_S}s",
        "input_series": [
            {"series": series, "values": values(spec, case.minutes * 60 // STEP_S)}
            for series, spec in {**case.series, **case.innocent}.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{end}m", "alertname": name, "exp_alerts": [expected] if part == 1 else []}
            for part, end in enumerate(ends)
        ],
    }


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {*(alert.name for alert in rules.ALERTS), rules.MISSING}


def test_every_alert_has_a_runbook(root: Path) -> None:
    """The address of a heading is its text in lower case."""
    headings = {
        line[3:].strip() for line in (root / "docs/alerts.md").read_text().splitlines() if line.startswith("## ")
    }
    assert set(CASES) <= headings


@needs_promtool
def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(written(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@needs_promtool
@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_resolves(name: str, tmp_path: Path) -> None:
    jobs = ("node",) if name == rules.MISSING else JOBS
    tests = {
        "rule_files": [str(written(tmp_path, jobs))],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [story(name, CASES[name])],
    }
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump(tests, width=100_000))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_of_hardware_that_is_not_there_are_left_out() -> None:
    found = rules.rules({"node": [{}], "gateway": [{}], "dcgm": []}, {}, DOCS)
    names = {rule["alert"] for rule in found["groups"][1]["rules"]}
    assert {"HostDown", "EndpointDown"} <= names
    assert not names & {"GpuFault", "K3sDown", "PowerSupplyFailed"}
    missing = [rule["expr"] for rule in found["groups"][1]["rules"] if rule["alert"] == rules.MISSING]
    assert missing == ['absent(up{job="node"})', 'absent(up{job="gateway"})']


def test_the_inventory_changes_single_alerts() -> None:
    changed: dict[str, dict[str, Any]] = {
        "SlowFirstToken": {"above": 2},
        "KvCacheFull": {"for": 10},
        "Preemptions": {"enabled": False},
    }
    found = {rule["alert"]: rule for rule in rules.rules({"engines": [{}]}, changed, DOCS)["groups"][1]["rules"]}
    assert found["SlowFirstToken"]["expr"].endswith("> 2")
    assert found["KvCacheFull"]["for"] == "10s"
    assert "Preemptions" not in found


def test_what_cannot_be_meant_is_refused() -> None:
    assert rules.faults({"KvFull": {}}) == ["monitoring_alerts: there is no alert KvFull; docs/alerts.md lists them"]
    assert "no threshold" in rules.faults({"EndpointDown": {"above": 1}})[0]
    assert "unknown key" in rules.faults({"DiskFull": {"over": 1}})[0]
    assert rules.faults({"DiskFull": {"above": 0.2, "for": 60}}) == []


def test_the_rules_are_the_same_twice() -> None:
    first, second = (json.dumps(rules.rules({job: [{}] for job in JOBS}, {}, DOCS)) for _ in range(2))
    assert first == second
