"""What the planner predicts beside what was measured: the tables of docs/plan.md.

    PYTHONPATH=python_plugins/module_utils python tests/bench/predictions.py

Every row uses the one table of efficiencies; nothing is set for a row but the hardware, the model and the load.
"""

from __future__ import annotations

import heteroserve.plan.efficiencies as table
from heteroserve.facts.declared import hardware_of
from heteroserve.plan.bays import device_of
from heteroserve.plan.model_cards import card_named
from heteroserve.plan.roofline import Deployment, cpu_device, expect

PROMPT, OUTPUT = 27, 256  # 14 to 40 tokens asked, 256 answered

# Plain vLLM 0.25 on H200: model, tensor_parallel_size, clients, measured tokens/s, what aisimulate 0.12 predicts.
H200 = (
    ("llama-2-7b", 1, 1, 218.0, 182.4),
    ("llama-2-7b", 1, 32, 5334.5, 4675.0),
    ("llama-2-7b", 1, 256, 14558.3, 14066.0),
    ("llama-2-70b", 2, 32, 1433.8, 1448.0),
    ("llama-2-70b", 2, 256, 5811.8, 6455.0),
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


def h200(model: str, size: int, clients: int) -> float:
    """tokens/s of one replica on H200."""
    deployment = Deployment(card_named(model), "bfloat16", None, "vllm", size)
    return expect(deployment, device_of("nvidia-h200-sxm-141gb"), clients, PROMPT, OUTPUT).tokens_per_s


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


def tables() -> str:
    """The three tables in Markdown."""
    lines = [
        "| model | GPUs | clients | measured | predicted | error | aisimulate | its error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors: list[tuple[float, float]] = []
    for model, size, clients, measured, other in H200:
        predicted = h200(model, size, clients)
        errors.append((abs(predicted / measured - 1), abs(other / measured - 1)))
        lines.append(
            f"| {model} | {size} x H200 | {clients} | {measured:,.1f} | {predicted:,.1f} "
            f"| {percent(predicted, measured)} | {other:,.1f} | {percent(other, measured)} |"
        )
    mean = [100 * sum(error[column] for error in errors) / len(errors) for column in (0, 1)]
    worst = [100 * max(error[column] for error in errors) for column in (0, 1)]
    low, high = SINCE_GUIDE
    lines += [
        f"| mean (worst) error | | | | | {mean[0]:.1f} % ({worst[0]:.1f} %) | | {mean[1]:.1f} % ({worst[1]:.1f} %) |",
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
