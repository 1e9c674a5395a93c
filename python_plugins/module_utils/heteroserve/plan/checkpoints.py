"""In which format a checkpoint is stored, from the ``quantization_config`` of its config.json.

``tests/unit/plan/test_pinned_vllm.py`` compares these tables with the list of the pinned vLLM.
"""

from __future__ import annotations

from typing import Any

# Other names of a format, by that of ``model_shape.QUANTIZATIONS``.
SAME = {
    "auto_awq": "awq",
    "awq_marlin": "awq",
    "auto_gptq": "gptq",
    "gptq_marlin": "gptq",
    "auto-round": "inc",
    "compressed_tensors": "compressed-tensors",
}
# Methods of vLLM that are not planned for, and why.
NOT_READ = {
    "fbgemm_fp8": "vLLM has deprecated it",
    "fp_quant": "vLLM has deprecated it",
    "torchao": "the engine's environment has no torchao",
    "experts_int8": "it is for mixtures of experts",
    "moe_wna16": "it is for mixtures of experts",
    "mxfp4": "it is for mixtures of experts",
    "gpt_oss_mxfp4": "it is for mixtures of experts",
    "int8_per_channel_weight_only": "it is for mixtures of experts",
    "nvfp4_per_token": "it is for mixtures of experts",
    "deepseek_v4_fp8": "it is for DeepSeek V4",
    "humming": "it names kernels, no format",
    "online": "it needs a table of its own: set one of the methods by name",
}
MODELOPT = {
    "FP8": "modelopt",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt",
    "FP8_PB_WO": "modelopt",
    "NVFP4": "modelopt_fp4",
    "W4A16_NVFP4": "modelopt_fp4",
    "MXFP8": "modelopt_mxfp8",
    "MIXED_PRECISION": "modelopt_mixed",
}


def checkpoint_format(config: dict[str, Any], name: str, known: dict[str, float]) -> tuple[str | None, float | None]:
    """Method and bits a weight, scales included; (None, None) for weights that keep their dtype.

    ``known`` has vLLM's methods with their usual bits. Raises ``ValueError`` for any other.
    """
    stored = config.get("quantization_config") or config.get("compression_config") or {}
    if not isinstance(stored, dict):
        raise ValueError(f"config.json of {name}: quantization_config: found {stored!r}, expected a mapping")
    if not stored:
        return None, None
    method = str(stored.get("quant_method") or "").lower()
    method = SAME.get(method, method)
    if method.startswith("modelopt") or _made_by_modelopt(stored):
        method = _modelopt(stored, name)
    if method in NOT_READ:
        raise ValueError(f"config.json of {name}: quant_method: found {method!r}, {NOT_READ[method]}")
    if method not in known:
        raise ValueError(
            f"config.json of {name}: quant_method: found {method!r}, expected one of {', '.join(sorted(known))}"
        )
    if method in ("gptq", "awq", "inc"):
        return method, _grouped(stored)
    if method == "compressed-tensors":
        return method, _compressed(stored)
    if method == "quark":
        return method, _quark(stored)
    return method, known[method]


def _made_by_modelopt(stored: dict[str, Any]) -> bool:
    inner = stored.get("quantization")
    return (stored.get("producer") or {}).get("name") == "modelopt" or (
        isinstance(inner, dict) and "modelopt_quant_config" in inner
    )


def _modelopt(stored: dict[str, Any], name: str) -> str:
    inner = stored.get("quantization")
    algorithm = str((inner if isinstance(inner, dict) else stored).get("quant_algo") or "FP8").upper()
    if algorithm not in MODELOPT:
        raise ValueError(
            f"config.json of {name}: quant_algo: found {algorithm!r}, expected one of {', '.join(MODELOPT)}"
        )
    return MODELOPT[algorithm]


def _grouped(stored: dict[str, Any]) -> float:
    """A 16 bit scale and a zero point of the weights' own width for each group."""
    bits = int(stored.get("bits") or stored.get("w_bit") or 4)
    group = int(stored.get("group_size") or stored.get("q_group_size") or 128)
    return bits + ((16 + bits) / group if group > 0 else 0.0)


def _compressed(stored: dict[str, Any]) -> float:
    groups = stored.get("config_groups") or {}
    first: dict[str, Any] = next(iter(groups.values()), {})
    weights = first.get("weights") or {}
    bits = int(weights.get("num_bits") or 8)
    group = weights.get("group_size")
    return bits + (16 / int(group) if group and int(group) > 0 else 0.0)


def _quark(stored: dict[str, Any]) -> float:
    """AMD's checkpoints are 8 bit, or 4 bit with an 8 bit scale for 32 weights (MXFP4)."""
    weight = (stored.get("global_quant_config") or {}).get("weight") or {}
    each = weight if isinstance(weight, list) else [weight]
    kinds = [str(one.get("dtype", "")) for one in each if isinstance(one, dict)]
    return 4.25 if any("4" in kind.replace("e4m3", "").replace("e4m", "") for kind in kinds) else 8.0
