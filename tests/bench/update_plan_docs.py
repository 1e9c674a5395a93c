"""Write the parts of docs/plan.md that the code decides: predictions, efficiencies and the plans of inventory/dell.

    python tests/bench/update_plan_docs.py [--check]

Plans are made by the real command (`ansible-playbook playbooks/plan.yml -i inventory/dell`). With --check nothing is
written, and the exit code is 1 if the committed text is not what the code gives.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins" / "module_utils")]

from heteroserve.plan.report import plan_report  # noqa: E402
from heteroserve.plan.schema import plan_from_json  # noqa: E402

from tests.bench import predictions  # noqa: E402

PAGE = ROOT / "docs" / "plan.md"
# The guide's own cluster: its four servers and its largest model, under the guide's tensor_parallel_size.
GUIDE = {
    "serving_plan_hosts": "{{ groups['guide'] }}",
    "models": [
        {
            "name": "llama-2-70b-chat",
            "card": "llama-2-70b",
            "context": 4096,
            "tensor_parallel_size": 4,
            "source": {"path": "/models/Llama-2-70b-chat-hf"},
        }
    ],
}


def planned(**variables: object) -> str:
    """The report of a run of the playbook on inventory/dell."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"state_dir": folder, "serving_plan_allow_unplaced": True, **variables}
        environment = {**os.environ, "ANSIBLE_CACHE_PLUGIN": "memory", "ANSIBLE_STDOUT_CALLBACK": "minimal"}
        program = Path(sys.executable).parent / "ansible-playbook"
        done = subprocess.run(
            [str(program), "playbooks/plan.yml", "-i", "inventory/dell", "-e", json.dumps(given)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return plan_report(plan_from_json(Path(folder, "plan.json").read_text(encoding="utf-8")))


def blocks() -> dict[str, str]:
    """Text of each marked part, by its name."""
    return {
        "predictions": predictions.tables(),
        "efficiencies": predictions.efficiencies(),
        "dell": f"```text\n{planned()}```\n",
        "guide": f"```text\n{planned(**GUIDE)}```\n",
    }


def filled(text: str) -> str:
    """The page with every marked part replaced."""
    for name, body in blocks().items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{PAGE}: no part is marked {start.strip()}")
        text = pattern.sub(f"{start}\n{body}\n{end}".replace("\\", r"\\"), text)
    return text


def main() -> int:
    """Fill the page, or compare."""
    before = PAGE.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
