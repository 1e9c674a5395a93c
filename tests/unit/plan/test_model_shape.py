"""Parameters and bytes against what the publishers state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heteroserve.plan.model_cards import MODEL_CARDS, card_named
from heteroserve.plan.model_shape import config_of, shape_from_config

# Number of parameters of each checkpoint, from the publisher's safetensors index.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
}

LLAMA_3_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


@pytest.mark.parametrize("name", sorted(MODEL_CARDS))
def test_parameters(name: str) -> None:
    assert card_named(name).parameters == PARAMETERS[name]


def test_weights_and_kv_of_known_models() -> None:
    card = card_named("llama-2-70b")
    assert card.weight_bytes("bfloat16") == pytest.approx(138e9, rel=0.001)
    assert card.weight_bytes("bfloat16", "fp8") == pytest.approx(69.5e9, rel=0.01)
    assert card.kv_bytes_per_token("bfloat16") == 80 * 2 * 8 * 128 * 2
    assert card_named("smollm2-135m").weight_bytes("bfloat16") == 269_030_016


def test_config_gives_the_card() -> None:
    shape = shape_from_config(LLAMA_3_8B, "llama-3.1-8b")
    assert shape == card_named("llama-3.1-8b")


def test_the_first_llama_has_as_many_kv_heads_as_heads() -> None:
    config = {key: value for key, value in LLAMA_3_8B.items() if key != "num_key_value_heads"}
    assert shape_from_config(config).kv_heads == 32


def test_head_dim_may_differ_from_hidden_by_heads() -> None:
    assert shape_from_config({**LLAMA_3_8B, "head_dim": 64}).kv_bytes_per_token("bfloat16") == 2 * 32 * 8 * 64 * 2


@pytest.mark.parametrize(
    ("given", "method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq", 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", 8.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq", 4 + 20 / 64),
        ({"quant_method": "fp8"}, "fp8", 8.0),
        ({"quant_method": "quark"}, "quark", 8.0),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", 8.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt_fp4", 4.5),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
            "compressed-tensors",
            8.0,
        ),
    ],
)
def test_quantised_checkpoints(given: dict[str, Any], method: str, bits: float) -> None:
    shape = shape_from_config({**LLAMA_3_8B, "quantization_config": given})
    assert (shape.quantization, shape.quantization_bits) == (method, bits)
    plain = shape.weight_bytes("bfloat16")
    assert shape.weight_bytes("bfloat16", method) < plain * (0.45 if bits < 5 else 0.6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": "gemma2"}, "found model type 'gemma2'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "found architecture 'LlamaForSequenceClassification'"),
        ({"hidden_size": None}, "hidden_size: found None"),
        ({"quantization_config": {"quant_method": "hqq"}}, "quant_method: found 'hqq'"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quant_method: found 'bitsandbytes'"),
        ({"torch_dtype": "float8"}, "dtype: found 'float8'"),
    ],
)
def test_what_cannot_be_counted_is_an_error(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        shape_from_config({**LLAMA_3_8B, **change}, "mine")


def test_a_wrong_card_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'llama-3.1-8b'"):
        card_named("lama-3.1-8b")


@pytest.mark.parametrize("name", sorted(MODEL_CARDS))
def test_a_config_made_from_a_card_gives_the_card_back(name: str) -> None:
    card = card_named(name)
    assert shape_from_config(config_of(card), name) == replace(card, name=name)
