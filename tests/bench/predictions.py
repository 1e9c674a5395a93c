"""What the planner predicts beside what was measured: the tables of docs/plan.md.

    PYTHONPATH=python_plugins/module_utils python tests/bench/predictions.py

Every row uses the one table of efficiencies; nothing is set for a row but the hardware, the model and the load.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import heteroserve.plan.efficiencies as table
from heteroserve.facts.declared import hardware_of
from heteroserve.plan.bays import device_of
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.roofline import Deployment, cpu_device, expect

PROMPT, OUTPUT = 27, 256  # 14 to 40 tokens asked, 256 answered


@dataclass(frozen=True)
class Row:
    """tokens/s that vLLM 0.25 reached: its own server, streamed answers. Several values: hosts or days of the same."""

    model: str
    gpu: str
    size: int  # tensor_parallel_size
    clients: int
    stream_interval: int
    measured: tuple[float, ...]
    aisimulate: float | None = None  # what aisimulate 0.12 predicts
    cell: bool = False  # measured at a cell's port, not at that of vLLM's own server

    @property
    def mean(self) -> float:
        """tokens/s."""
        return sum(self.measured) / len(self.measured)


H200, H100 = "nvidia-h200-sxm-141gb", "nvidia-h100-sxm-80gb"
# Random weights; the shape called 8B has 49,152 tokens in its vocabulary, as the tokenizer of the small model.
EIGHT = "llama-3.1-8b"
GPU = (
    Row("llama-2-7b", H200, 1, 1, 1, (218.0,), 182.4),
    Row("llama-2-7b", H200, 1, 32, 1, (5334.5,), 4675.0),
    Row("llama-2-7b", H200, 1, 256, 1, (14558.3, 13145.8), 14066.0),
    Row("llama-2-70b", H200, 2, 32, 1, (1433.8,), 1448.0),
    Row("llama-2-70b", H200, 2, 256, 1, (5811.8,), 6455.0),
    Row(EIGHT, H200, 1, 1, 1, (208.4, 209.4, 210.1)),
    Row(EIGHT, H200, 1, 32, 1, (5824.0, 5803.7, 5794.6)),
    Row(EIGHT, H200, 1, 256, 1, (12344.0, 13592.0, 14279.1)),
    Row(EIGHT, H200, 1, 512, 1, (15834.0, 14285.4, 15809.5)),
    Row(EIGHT, H200, 1, 32, 8, (5875.0, 5809.6, 5848.7, 5813.9)),
    Row(EIGHT, H200, 1, 256, 8, (20929.0, 21179.6, 22045.0, 21214.5)),
    Row(EIGHT, H200, 1, 512, 8, (23232.0, 21857.5, 24323.7, 22534.1)),
    Row(EIGHT, H200, 1, 32, 8, (5770.7, 5702.3), cell=True),
    Row(EIGHT, H200, 1, 256, 8, (21534.9, 20912.9), cell=True),
    Row(EIGHT, H200, 1, 512, 8, (24141.7, 20446.6), cell=True),
    Row(EIGHT, H100, 1, 1, 1, (157.0,)),
    Row(EIGHT, H100, 1, 32, 1, (4466.0,)),
    Row(EIGHT, H100, 1, 256, 1, (10424.0, 11218.0)),
    Row(EIGHT, H100, 1, 32, 8, (4430.0,)),
    Row(EIGHT, H100, 1, 256, 8, (18740.0, 18991.0)),
    Row(EIGHT, H100, 1, 512, 8, (21757.0,)),
    Row("llama-2-13b", H100, 1, 1, 1, (93.1,)),
    Row("llama-2-13b", H100, 1, 32, 1, (2451.5,)),
    Row("llama-2-13b", H100, 1, 256, 1, (7707.8,)),
    Row("llama-2-13b", H100, 2, 1, 1, (154.0,)),
    Row("llama-2-13b", H100, 2, 32, 1, (4006.0,)),
    Row("llama-2-13b", H100, 2, 256, 1, (12480.0,)),
)
# Dell's guide, vLLM 0.2.6, Llama 2 70B, tensor parallel 4: replicas on A100, on H100 PCIe, clients of each, tokens/s.
GUIDE = (
    (1, 0, 32, 621.4),
    (2, 0, 32, 1172.63),
    (3, 0, 32, 1551.94),
    (3, 1, 32, 1868.76),
    (1, 0, 256, 1475.64),
    (2, 0, 256, 2542.32),
    (3, 0, 256, 3222.89),
    (3, 1, 256, 4443.5),
)
# vLLM's own measurements for Llama 70B on four H100: 0.6.0 is 1.8 times 0.5.3 (blog of 2024-09-05), and V1 is up to
# 1.7 times V0 (blog of 2025-01-27). 0.2.6 is older still.
SINCE_GUIDE = (1.8, round(1.8 * 1.7, 2))
# Dell's guide, BigDL-LLM 2.4, Llama 2 7B sym_int8: sockets of Xeon 8480+ (56 cores, 112 threads each), hosts, tokens/s.
# vLLM for CPU, SmolLM2-135M, eager, two cores that the clients shared: processor, dtype, clients, tokens/s
# (tests/bench/bench_gateway.py, 38 tokens asked, 64 answered). AMX: a Xeon, through Ray Serve and the gateway.
# AVX2: the same kind of Xeon with everything beyond AVX2 hidden (tests/helpers/avx2_only.py), vLLM's own server,
# beside other work. EPYC: one with AVX2 only, whose cores others used too, through Ray Serve and the gateway.
AMX, AVX2 = ("avx512f", "avx512_bf16", "amx_bf16"), ("avx2",)
SMALL = (
    ("Xeon with AMX", AMX, "float32", 1, 15.4),
    ("Xeon with AMX", AMX, "float32", 4, 54.4),
    ("Xeon with AMX", AMX, "float32", 16, 117.5),
    ("Xeon with AMX", AMX, "bfloat16", 1, 24.2),
    ("Xeon with AMX", AMX, "bfloat16", 4, 81.1),
    ("Xeon with AMX", AMX, "bfloat16", 16, 256.0),
    ("Xeon, AVX2 alone", AVX2, "float32", 1, 13.1),
    ("Xeon, AVX2 alone", AVX2, "float32", 4, 32.7),
    ("Xeon, AVX2 alone", AVX2, "float32", 16, 69.4),
    ("Xeon, AVX2 alone", AVX2, "bfloat16", 1, 7.8),
    ("Xeon, AVX2 alone", AVX2, "bfloat16", 4, 13.7),
    ("Xeon, AVX2 alone", AVX2, "bfloat16", 16, 15.3),
    ("EPYC with AVX2", AVX2, "float32", 1, 10.8),
    ("EPYC with AVX2", AVX2, "float32", 4, 27.5),
    ("EPYC with AVX2", AVX2, "float32", 16, 48.5),
)
BIGDL = ((1, 1, 17.18), (2, 1, 30.26), (2, 2, 61.13))


def on_gpu(row: Row) -> float:
    """tokens/s of one replica."""
    shape = card_named(row.model)
    if row.model == EIGHT:
        shape = replace(shape, vocab=49152)
    deployment = Deployment(shape, "bfloat16", None, "vllm", row.size, 1, row.stream_interval)
    return expect(deployment, device_of(row.gpu), row.clients, PROMPT, OUTPUT).tokens_per_s


def sets(row: Row) -> bool:
    """Whether constants were set with it."""
    return row.gpu == H200 and not row.cell


def error(row: Row) -> float:
    """Predicted over measured, less one."""
    return on_gpu(row) / row.mean - 1


def guide(a100: int, h100: int, clients: int) -> float:
    """tokens/s of replicas of Llama 2 70B on four A100 SXM or four H100 PCIe each."""
    deployment = Deployment(card_named("llama-2-70b"), "bfloat16", None, "vllm", 4)
    one, other = device_of("nvidia-a100-sxm-80gb"), device_of("nvidia-h100-pcie-80gb", link="pcie")
    speeds = [expect(deployment, device, clients, PROMPT, OUTPUT).tokens_per_s for device in (one, other)]
    return a100 * speeds[0] + h100 * speeds[1]


def bigdl(sockets: int, hosts: int) -> float:
    """tokens/s of one replica on each socket of hosts with Xeon 8480+."""
    xeon = hardware_of({"cpu": "xeon-8480+", "sockets": 1, "memory_gib": 512}).cpu
    device = cpu_device(xeon.cores, 1 << 38, xeon.memory_bandwidth, xeon.isa)
    deployment = Deployment(card_named("llama-2-7b"), "bfloat16", "sym_int8", "bigdl")
    return sockets * hosts * expect(deployment, device, 1, PROMPT, OUTPUT).tokens_per_s


def small_on_cpu(isa: tuple[str, ...], dtype: str, clients: int) -> float:
    """tokens/s of the small model on two cores with these instruction sets, under the load of bench_gateway.py."""
    deployment = Deployment(card_named("smollm2-135m"), dtype, None, "vllm")
    return expect(deployment, cpu_device(2, 1 << 34, None, isa), clients, 38, 64).tokens_per_s


def percent(predicted: float, measured: float) -> str:
    """Error with its sign."""
    return f"{100 * (predicted / measured - 1):+.1f} %"


def _errors(rows: Iterable[Row]) -> str:
    """Mean and worst of some rows."""
    errors = [abs(100 * error(row)) for row in rows]
    return f"{sum(errors) / len(errors):.1f} % ({max(errors):.1f} %)"


def gpu_table() -> list[str]:
    """Predicted and measured on GPUs, with the errors of the rows that set constants and of those that did not."""
    lines = [
        "| model | GPUs | clients | stream_interval | measured | predicted | error | aisimulate | its error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in GPU:
        measured = " to ".join(f"{value:,.1f}" for value in sorted({min(row.measured), max(row.measured)}))
        name = row.gpu.split("-")[1].upper() + (", a cell" if row.cell else "")
        other = f"{row.aisimulate:,.1f} | {percent(row.aisimulate, row.mean)}" if row.aisimulate else " | "
        lines.append(
            f"| {row.model} | {row.size} x {name} | {row.clients} | {row.stream_interval} | {measured} "
            f"| {on_gpu(row):,.1f} | {percent(on_gpu(row), row.mean)} | {other} |"
        )
    simulated = [abs(100 * (row.aisimulate / row.mean - 1)) for row in GPU if row.aisimulate]
    theirs = f"{sum(simulated) / len(simulated):.1f} % ({max(simulated):.1f} %)"
    for title, rows, last in (
        ("mean (worst) error", GPU, theirs),
        ("of vLLM's server on H200, which set the constants", [row for row in GPU if sets(row)], ""),
        ("of the others, which set none", [row for row in GPU if not sets(row)], ""),
    ):
        lines.append(f"| {title} | | | | | | {_errors(rows)} | | {last} |")
    return lines


def tables() -> str:
    """The three tables in Markdown."""
    lines = gpu_table()
    low, high = SINCE_GUIDE
    lines += [
        "",
        f"| replicas | clients | measured, vLLM 0.2.6 | predicted | error | at 1/{low} | at 1/{high} |",
        "|---|---|---|---|---|---|---|",
    ]
    for a100, h100, clients, measured in GUIDE:
        predicted = guide(a100, h100, clients)
        what = f"{a100} on 4 x A100" + (f", {h100} on 4 x H100 PCIe" if h100 else "")
        errors_of = " | ".join(percent(predicted / factor, measured) for factor in (1.0, low, high))
        lines.append(f"| {what} | {clients} each | {measured:,.1f} | {predicted:,.1f} | {errors_of} |")
    lines += ["", "| processors | measured | predicted | error |", "|---|---|---|---|"]
    for sockets, hosts, measured in BIGDL:
        predicted = bigdl(sockets, hosts)
        what = f"Llama 2 7B, BigDL int8, Xeon 8480+, {sockets} socket{'s' if sockets > 1 else ''}" + (
            f" on each of {hosts} hosts" if hosts > 1 else ""
        )
        lines.append(f"| {what} | {measured:.2f} | {predicted:.2f} | {percent(predicted, measured)} |")
    for processor, isa, dtype, clients, measured in SMALL:
        predicted = small_on_cpu(isa, dtype, clients)
        what = f"SmolLM2-135M {dtype}, vLLM, 2 cores, {processor}, {clients} client{'s' if clients > 1 else ''}"
        lines.append(f"| {what} | {measured:.1f} | {predicted:.1f} | {percent(predicted, measured)} |")
    return "\n".join(lines) + "\n"


def efficiencies() -> str:
    """The table of efficiencies in Markdown."""
    lines = ["| constant | value | unit | source |", "|---|---|---|---|"]
    for name, value in vars(table).items():
        items = {name: value} if isinstance(value, table.Efficiency) else value
        if not isinstance(items, dict) or name.startswith("__"):
            continue
        for key, item in items.items():
            label = name if key == name else f"{name}[{key}]"
            lines.append(f"| {label} | {_short(item.value, item.unit)} | {item.unit} | {item.source} |")
    return "\n".join(lines) + "\n"


def _short(value: float, unit: str) -> str:
    """Three digits, bytes of memory in GiB."""
    memory = unit.startswith("bytes") and "bytes/s" not in unit and value >= table.MIB
    return f"{value / table.GIB:.3g} Gi" if memory else f"{value:.4g}"


if __name__ == "__main__":
    print(tables())
    print(efficiencies(), end="")
