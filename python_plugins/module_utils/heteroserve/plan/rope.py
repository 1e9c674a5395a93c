"""How long a context a checkpoint knows, as vLLM 0.29 derives ``max_model_len`` from config.json.

vllm/config/model.py (_get_and_verify_max_len), vllm/transformers_utils/model_arch_config_convertor.py, and what
transformers 5 makes of the rope settings before. ``tests/unit/plan/test_pinned_vllm.py`` compares the two.
"""

from __future__ import annotations

from typing import Any

# Keys that say how many positions there are; the least of them counts.
LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
DEFAULT_LENGTH = 2048  # of transformers' LlamaConfig
# Rope types that vLLM implements (model_executor/layers/rotary_embedding), and numbers that each must have.
ROPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": (),
    "proportional": (),
    "ntk": ("factor",),
    "mllama4": (),
    "xdrope": (),
    "deepseek_yarn": ("factor",),
    "deepseek_llama_scaling": ("factor",),
    "openpangu": (),
    "telechat3-yarn": ("factor",),
}
OLD_NAMES = {"su": "longrope", "mrope": "default"}
COUNTED_IN = ("llama3", "longrope")  # whose factor max_position_embeddings has in it


def context_of(config: dict[str, Any], name: str) -> tuple[int, int]:
    """Tokens of context that the engine takes by itself, and the most that may be asked for.

    YaRN's factor stretches the positions that the model was trained with, where config.json names them: often
    max_position_embeddings is the product already. A factor that is null is 1. LongRoPE answers best within the
    trained positions. Raises ``ValueError`` that names the key of what vLLM does not read.
    """
    positions = _positions(config, name)
    key, table = next(
        ((key, config[key]) for key in ("rope_scaling", "rope_parameters") if config.get(key)), ("rope_scaling", {})
    )
    where = f"config.json of {name}: {key}"
    if not isinstance(table, dict):
        raise ValueError(f"{where}: found {table!r}, expected a mapping")
    if all(isinstance(one, dict) for one in table.values()):
        return positions, positions  # a table for each type of layer: a Llama has one type, and vLLM reads none of them
    kind = _kind(table, where)
    missing = [number for number in ROPES[kind] if number not in table]
    if missing:
        raise ValueError(f"{where}.{missing[0]}: missing, rope type {kind!r} needs it")
    if kind in COUNTED_IN:
        trained = config.get("original_max_position_embeddings")
        return (int(trained) if kind == "longrope" and trained else positions), positions
    if kind == "yarn":
        outside = config.get("original_max_position_embeddings")
        trained = table.get("original_max_position_embeddings", positions) if outside is None else outside
        positions = int(_number(trained, f"{where}.original_max_position_embeddings"))
    factor = table.get("factor", 1.0)
    length = int(positions * (1.0 if factor is None else _number(factor, f"{where}.factor")))
    return length, length


def _positions(config: dict[str, Any], name: str) -> int:
    if own := config.get("model_max_length"):
        return int(_number(own, f"config.json of {name}: model_max_length"))
    lengths = {key: config[key] for key in LENGTHS if config.get(key) is not None}
    lengths.setdefault("max_position_embeddings", DEFAULT_LENGTH)
    return int(min(_number(value, f"config.json of {name}: {key}") for key, value in lengths.items()))


def _kind(table: dict[str, Any], where: str) -> str:
    new, old = table.get("rope_type"), table.get("type")
    if new and old and OLD_NAMES.get(str(old), old) != OLD_NAMES.get(str(new), new):
        raise ValueError(f"{where}: found rope_type {new!r} and type {old!r}, remove one of them")
    found = str(new or old or "default")
    kind = OLD_NAMES.get(found, found)
    if kind not in ROPES:
        raise ValueError(f"{where}.rope_type: found {found!r}, expected one of {', '.join(ROPES)}")
    return kind


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{where}: found {value!r}, expected a number above 0")
    return float(value)
