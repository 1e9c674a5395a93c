"""KV capacity that the planner predicts against what vLLM prints, on the GPU of this machine.

    python tests/gpu/kv_capacity.py [--cards llama-3.1-8b llama-2-7b]

Needs vLLM and one NVIDIA GPU; no weights: vLLM fills the shapes of the cards with random numbers. For each card the
planner plans for this machine's facts, vLLM is started with the plan's own settings, and the tokens of its line
"GPU KV cache size" are compared. Exit status 1 if one is off by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python_plugins" / "module_utils"))
from heteroserve.common.machine import open_machine
from heteroserve.facts.collect import collect
from heteroserve.inventory.models import ModelSource
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.model_shape import config_of
from heteroserve.plan.planner import HostEntry, ModelRequest, PlanRequest, make_plan
from heteroserve.plan.schema import Cell

START = """
import json, sys
from vllm import LLM
if __name__ == "__main__":
    LLM(**json.loads(sys.argv[1]))
"""


def planned(name: str) -> Cell:
    """The cell that the planner makes of this machine for one card."""
    model = ModelRequest(name=name, card=name, source=ModelSource(path="/random"), context=4096, max_replicas=1)
    plan = make_plan(PlanRequest("ray", {"here": HostEntry(collect(open_machine()))}, (model,)))
    if not plan.cells:
        raise SystemExit(f"{name}: {plan.reasons[0].text}")
    return plan.cells[0]


def printed(name: str, cell: Cell) -> int:
    """Tokens of KV cache that vLLM says it has with the settings of a cell."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config_of(card_named(name))))
        settings = {
            "model": folder,
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "dtype": "bfloat16",
            "max_model_len": cell.limits.max_model_len,
            "max_num_seqs": cell.limits.max_num_seqs,
            "tensor_parallel_size": cell.tensor_parallel_size,
            **cell.engine_args,
        }
        done = subprocess.run(
            [sys.executable, "-c", START, json.dumps(settings)], capture_output=True, encoding="utf-8"
        )
    found = re.search(r"GPU KV cache size: ([\d,]+) tokens", done.stdout + done.stderr)
    if not found:
        raise SystemExit(f"{name}: vLLM did not start:\n{(done.stdout + done.stderr)[-3000:]}")
    return int(found[1].replace(",", ""))


def main() -> int:
    """Print a row for each card; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cards", nargs="+", default=["llama-3.1-8b", "llama-2-7b"])
    worst = 0.0
    print(f"{'card':<16} {'accelerator':<24} {'max_num_seqs':>12} {'predicted':>10} {'printed':>10} {'error':>7}")
    for name in parser.parse_args().cards:
        cell = planned(name)
        tokens = printed(name, cell)
        error = cell.limits.kv_cache_tokens / tokens - 1
        worst = max(worst, abs(error))
        print(
            f"{name:<16} {cell.accelerator:<24} {cell.limits.max_num_seqs:>12}"
            f" {cell.limits.kv_cache_tokens:>10,} {tokens:>10,} {error:>+7.1%}"
        )
    return int(worst > 0.05)


if __name__ == "__main__":
    sys.exit(main())
