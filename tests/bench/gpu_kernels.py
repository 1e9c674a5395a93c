"""What the kernels of one decode step take on a GPU, beside what efficiencies.py expects of them.

    python tests/bench/gpu_kernels.py        (needs torch and one NVIDIA GPU with 80 GB; takes a minute)

Measures, with one CUDA graph a step as an engine replays it: device copy, a large matmul, and all matrices and small
kernels (norms, rotary, activation, residual) of Llama 2 7B and of one half of Llama 2 70B, without attention, at 1, 32
and 282 tokens a step. Prints JSON: the roofline's two parts, their root of squares, the measured time, and what is left
over for each layer.
"""

from __future__ import annotations

import json
import sys
from math import hypot
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python_plugins" / "module_utils"))
from heteroserve.facts.accelerators import card_for_name
from heteroserve.plan.efficiencies import GPU_LAYER, MATMUL, MEMORY
from heteroserve.plan.model_cards import card_named

TOKENS = (1, 32, 282)


def seconds(work: Any, times: int = 20) -> float:
    """Mean time of a callable on the GPU after three warm-ups."""
    for _ in range(3):
        work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / times / 1e3


class Layer:
    """Matrices of one layer, cut into ``parts`` as tensor parallelism does."""

    def __init__(self, name: str, parts: int) -> None:
        shape = card_named(name)
        heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim // parts
        self.query = shape.heads * shape.head_dim // parts

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(columns, rows, device="cuda", dtype=torch.bfloat16) * 0.01

        self.qkv, self.out = matrix(shape.hidden, heads), matrix(self.query, shape.hidden)
        self.up, self.down = (
            matrix(shape.hidden, 2 * shape.intermediate // parts),
            matrix(shape.intermediate // parts, shape.hidden),
        )
        self.norm = torch.ones(shape.hidden, device="cuda", dtype=torch.bfloat16)

    def run(self, x: torch.Tensor, matrices: bool = True) -> torch.Tensor:
        """Eleven kernels with the matrices, seven without."""
        size = (x.shape[-1],)
        y = functional.rms_norm(x, size, self.norm)
        qkv = functional.linear(y, self.qkv) if matrices else y.repeat(1, 2)
        rotated = qkv[:, : self.query] * 0.5
        x = x + (functional.linear(rotated, self.out) if matrices else y)
        y = functional.rms_norm(x, size, self.norm)
        gate_up = functional.linear(y, self.up) if matrices else qkv
        half = gate_up.shape[-1] // 2
        acted = functional.silu(gate_up[:, :half]) * gate_up[:, half:]
        return x + (functional.linear(acted, self.down) if matrices else y)


def graph_of(layers: list[Layer], tokens: int, hidden: int, matrices: bool) -> Any:
    """One step as a replayable graph."""
    x = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)

    def step() -> torch.Tensor:
        y = x
        for layer in layers:
            y = layer.run(y, matrices)
        return y

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def copy_rate() -> float:
    """Bytes/s of a device copy, read and written bytes counted."""
    source = torch.empty(2 << 30, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    return 2 * source.numel() * 2 / seconds(lambda: target.copy_(source))


def main() -> int:
    """Measure and print."""
    card = card_for_name(torch.cuda.get_device_name())
    if card is None:
        print(f"no card for {torch.cuda.get_device_name()}", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"gpu": card.kind}
    with torch.inference_mode():
        rate = copy_rate()
        result["copy"] = {"TB/s": round(rate / 1e12, 2), "of datasheet": round(rate / card.bandwidth, 3)}
        square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        speed = 2 * 8192**3 / seconds(lambda: square @ square)
        result["matmul"] = {"TFLOP/s": round(speed / 1e12), "of peak": round(speed / card.flops["bfloat16"], 3)}
        for name, parts in (("llama-2-7b", 1), ("llama-2-70b", 2)):
            result[name] = model_steps(name, parts, card)
            torch.cuda.empty_cache()
    print(json.dumps(result, indent=1))
    return 0


def model_steps(name: str, parts: int, card: Any) -> list[dict[str, float]]:
    """All layers of a model (of one part of it) at each number of tokens."""
    shape = card_named(name)
    layers = [Layer(name, parts) for _ in range(shape.layers)]
    weights = shape.layers * shape.linear_parameters_per_layer / parts
    out = []
    for tokens in TOKENS:
        memory = weights * 2 / (card.bandwidth * MEMORY["nvidia"].value)
        compute = 2 * weights * tokens / (card.flops["bfloat16"] * MATMUL["nvidia"].value)
        measured = seconds(graph_of(layers, tokens, shape.hidden, True).replay)
        small = seconds(graph_of(layers, tokens, shape.hidden, False).replay)
        left = (measured - hypot(memory, compute)) / shape.layers
        out.append(
            {
                "tokens": tokens,
                "memory_ms": round(memory * 1e3, 2),
                "compute_ms": round(compute * 1e3, 2),
                "joined_ms": round(hypot(memory, compute) * 1e3, 2),
                "measured_ms": round(measured * 1e3, 2),
                "left_us_a_layer": round(left * 1e6, 1),
                "expected_us_a_layer": GPU_LAYER.value * 1e6,
                "small_kernels_us_a_layer": round(small / shape.layers * 1e6, 1),
            }
        )
    return out


if __name__ == "__main__":
    sys.exit(main())
