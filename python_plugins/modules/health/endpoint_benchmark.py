#!/usr/bin/python
"""Ansible module: how fast the endpoint answers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_benchmark
short_description: Measure how fast the endpoint answers
description:
  - Runs the project's benchmark, as C(./heteroserve bench) does, in an environment that has its packages, and shows its
    running figures. Always measures, and so always reports a change, except in check mode.
options:
  python: {description: Interpreter of the environment., type: path, required: true}
  project: {description: Folder of the project., type: path, required: true}
  target: {description: File that says what is measured., type: path, required: true}
  profile: {description: Lengths of prompts and answers., type: str, default: guide}
  clients: {description: Numbers of clients of a closed loop., type: list, elements: int, default: []}
  rates: {description: Requests a second of an open loop., type: list, elements: float, default: []}
  requests: {description: Most requests of a measurement., type: int, default: 1000}
  seconds: {description: Seconds after which no request is sent any more., type: int, default: 60}
  model: {description: Which of the endpoint's models; the first where it is left out., type: str}
  require:
    description: What the result must reach, such as C(tokens_per_s>=1000).
    type: list
    elements: str
    default: []
  compare: {description: Result of another run to compare with., type: path}
  options: {description: Further options of the command., type: list, elements: str, default: []}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Measure the endpoint
  endpoint_benchmark:
    python: "{{ state_dir }}/envs/bench/bin/python"
    project: "{{ playbook_dir }}/.."
    target: "{{ state_dir }}/benchmarks/target.json"
    clients: [32, 256]
    require: ["tokens_per_s@256>=1000"]
"""

RETURN = r"""
met: {description: Whether every requirement is met., returned: always, type: bool}
missed:
  description: The requirements that are not, each with what was found.
  returned: always
  type: list
  elements: str
figures:
  description: What was measured in short (C(endpoint), C(model), C(profile), C(points)); empty in check mode.
  returned: always
  type: dict
report: {description: The tables., returned: always, type: str}
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.health.benchmark import (
    NOT_MEASURED,
    arguments,
    figures_of,
    folder_of,
    missed_lines,
    tables_of,
)


def run(command: list[str], project: Path, progress: Progress) -> tuple[int, list[str], str]:
    """The exit code, what it printed, and what it complained of; each line is shown while it runs."""
    paths = os.pathsep.join([str(project), str(project / "python_plugins" / "module_utils")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if lines[-1]:
            progress.say(lines[-1])
    code = process.wait()
    return code, lines, next((line for line in reversed(lines) if line), "it printed nothing")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "required": True},
            "project": {"type": "path", "required": True},
            "target": {"type": "path", "required": True},
            "profile": {"type": "str", "default": "guide"},
            "clients": {"type": "list", "elements": "int", "default": []},
            "rates": {"type": "list", "elements": "float", "default": []},
            "requests": {"type": "int", "default": 1000},
            "seconds": {"type": "int", "default": 60},
            "model": {"type": "str"},
            "require": {"type": "list", "elements": "str", "default": []},
            "compare": {"type": "path"},
            "options": {"type": "list", "elements": "str", "default": []},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    if module.check_mode:
        module.exit_json(changed=False, met=True, missed=[], figures={}, report="not measured in check mode")
    command = [asked["python"], "-P", "-m", "serving.bench", *arguments(asked)]
    code, lines, last = run(command, Path(asked["project"]).resolve(), Progress(asked["progress_path"]))
    folder = folder_of(lines)
    if code == NOT_MEASURED or code < 0 or not folder:
        module.fail_json(msg=last)
    missed = missed_lines(lines) if code else []
    figures = figures_of(json.loads(Path(folder, "result.json").read_text()))
    module.exit_json(changed=True, met=code == 0, missed=missed, figures=figures, report=tables_of(lines))


if __name__ == "__main__":
    main()
