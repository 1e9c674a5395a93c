"""The five measured cases of docs/plan.md by NVIDIA's aisimulate (formerly aiconfigurator), which must be installed.

    python tests/bench/compare_aisimulate.py

It installs nothing: `pip install aisimulate` takes some 850 MB of measured kernels, so use an environment of its own.
Prints its estimate, ours and what was measured for each case; without the command it says so and exits with 2.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "python_plugins" / "module_utils")]

from heteroserve.plan.model_cards import card_named  # noqa: E402
from heteroserve.plan.model_shape import config_of  # noqa: E402

from tests.bench import predictions  # noqa: E402


def estimate(program: str, model: str, size: int, clients: int) -> float | None:
    """tokens/s by the command's own words, None where it prints none."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config_of(card_named(model))), encoding="utf-8")
        command = [program, "cli", "estimate", "--model-path", folder, "--system", "h200_sxm", "--backend", "vllm"]
        command += ["--isl", "32", "--osl", str(predictions.OUTPUT), "--batch-size", str(clients)]
        command += ["--tp-size", str(size), "--estimate-mode", "agg"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=600)
    found = re.search(r"(?:tokens/s|throughput)\D{0,40}([\d,]+\.?\d*)", done.stdout, re.IGNORECASE)
    return float(found[1].replace(",", "")) if found else None


def main() -> int:
    """Run the five cases."""
    program = shutil.which("aisimulate") or shutil.which("aiconfigurator")
    if program is None:
        print("neither aisimulate nor aiconfigurator is on PATH", file=sys.stderr)
        return 2
    print("model        GPUs  clients  measured    ours  aisimulate  (figure in docs/plan.md)")
    for row in predictions.GPU:
        if row.aisimulate is None:
            continue
        other = estimate(program, row.model, row.size, row.clients)
        shown = f"{other:,.0f}" if other is not None else "no figure"
        ours = predictions.on_gpu(row)
        figures = f"{row.mean:9,.0f} {ours:7,.0f} {shown:>11}  ({row.aisimulate:,.0f})"
        print(f"{row.model:12} {row.size:4} {row.clients:8} {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
