"""docs/plan.md shows what the code gives; the plan of inventory/dell is made by the real command."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.bench import update_plan_docs

needs_ansible = pytest.mark.skipif(
    shutil.which("ansible-playbook", path=str(Path(sys.executable).parent)) is None,
    reason="ansible-playbook is not in this environment",
)


@needs_ansible
def test_committed_text_is_what_the_code_gives() -> None:
    text = update_plan_docs.PAGE.read_text(encoding="utf-8")
    assert update_plan_docs.filled(text) == text, "run: python tests/bench/update_plan_docs.py"
