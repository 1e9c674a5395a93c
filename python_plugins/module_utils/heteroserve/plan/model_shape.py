"""The shape of a Llama model: parameters, bytes of weights, bytes of KV cache a token.

A shape comes from the ``config.json`` beside the weights, or from a card in ``model_cards.py``. The counts are exact
for the Llama family (grouped-query attention, gated MLP, RMS norms, optional tied embeddings), so a card can
be checked against the parameter counts that its publisher states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checkpoints import checkpoint_format
from .rope import context_of

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
DTYPE_NAMES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True)
class Quantization:
    """How the linear layers are stored; embeddings, norms and the output head keep the dtype."""

    name: str
    bits: float  # a weight, scales and zero points included
    engines: tuple[str, ...]
    online: bool  # the engine can quantise an ordinary checkpoint while loading
    vendors: tuple[str, ...]  # whose accelerators have kernels for it
    source: str
    stored: bool = True  # a checkpoint can be in this format


# Bits a weight: the stored integer plus scales (and zero points) divided by the group they serve.
QUANTIZATIONS: dict[str, Quantization] = {
    item.name: item
    for item in (
        Quantization("fp8", 8.0, ("vllm",), True, ("nvidia", "amd"), "one scale a tensor; docs.vllm.ai, FP8 W8A8"),
        Quantization(
            "gptq", 4.156, ("vllm",), False, ("nvidia", "amd", "cpu"), "4 bit, per 128: 16 bit scale, 4 bit zero"
        ),
        Quantization(
            "awq", 4.156, ("vllm",), False, ("nvidia", "amd", "cpu"), "4 bit, per 128: 16 bit scale, 4 bit zero"
        ),
        Quantization(
            "compressed-tensors", 8.0, ("vllm",), False, ("nvidia", "amd", "cpu"), "bits stand in the checkpoint"
        ),
        Quantization("quark", 8.0, ("vllm",), False, ("nvidia", "amd"), "AMD's FP8 checkpoints; vLLM docs, AMD Quark"),
        Quantization(
            "modelopt", 8.0, ("vllm",), False, ("nvidia", "amd"), "NVIDIA's FP8 checkpoints; vLLM docs, ModelOpt"
        ),
        Quantization(
            "modelopt_fp4", 4.5, ("vllm",), False, ("nvidia", "amd"), "NVFP4: 4 bit, an 8 bit scale for 16 weights"
        ),
        Quantization(
            "modelopt_mxfp8", 8.25, ("vllm",), False, ("nvidia", "amd"), "8 bit, an 8 bit scale for 32 weights"
        ),
        Quantization(
            "modelopt_mixed", 8.0, ("vllm",), False, ("nvidia", "amd"), "FP8 and NVFP4 layers: counted as FP8"
        ),
        Quantization(
            "inc", 4.156, ("vllm",), False, ("nvidia", "amd", "cpu"), "AutoRound; bits stand in the checkpoint"
        ),
        Quantization("mxfp8", 8.25, ("vllm",), True, ("nvidia", "amd"), "8 bit, an 8 bit scale for 32 weights"),
        Quantization("fp8_per_tensor", 8.0, ("vllm",), True, ("nvidia", "amd"), "one scale a tensor", False),
        Quantization("fp8_per_block", 8.0, ("vllm",), True, ("nvidia", "amd"), "one scale for 128 x 128", False),
        Quantization("fp8_per_channel", 8.0, ("vllm",), True, ("nvidia", "amd"), "one scale an output", False),
        Quantization("sym_int8", 8.5, ("bigdl",), True, ("cpu",), "ggml q8_0: a 16 bit scale for 32 weights"),
        Quantization("sym_int4", 4.5, ("bigdl",), True, ("cpu",), "ggml q4_0: a 16 bit scale for 32 weights"),
        Quantization(
            "int8", 9.25, ("openvino", "onnx"), True, ("cpu",), "MatMulNBits, per 32: 32 bit scale, 8 bit zero"
        ),
        Quantization(
            "int4", 5.125, ("openvino", "onnx"), True, ("cpu",), "MatMulNBits, per 32: 32 bit scale, 4 bit zero"
        ),
    )
}


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a decoder of the Llama family; ``context`` is the longest it was trained for, in tokens."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    tied: bool = False
    dtype: str = "bfloat16"  # of the published checkpoint
    quantization: str | None = None  # of the published checkpoint
    quantization_bits: float | None = None  # bits a weight of that checkpoint, scales included
    attention_bias: bool = False
    mlp_bias: bool = False
    longest: int = 0  # context that may be asked for where that is more than ``context``

    @property
    def most(self) -> int:
        """The longest context that an engine takes for it."""
        return max(self.context, self.longest)

    @property
    def linear_parameters_per_layer(self) -> int:
        """Weights of the matrices of one layer: q, k, v, o, gate, up and down."""
        query = self.heads * self.head_dim
        key_value = self.kv_heads * self.head_dim
        attention = self.hidden * (query + 2 * key_value) + query * self.hidden
        return attention + 3 * self.hidden * self.intermediate

    @property
    def small_parameters(self) -> int:
        """Norms and biases of all layers and the last norm: never quantised."""
        layer = 2 * self.hidden
        if self.attention_bias:
            layer += (self.heads + 2 * self.kv_heads) * self.head_dim + self.hidden
        if self.mlp_bias:
            layer += 2 * self.intermediate + self.hidden
        return self.layers * layer + self.hidden

    @property
    def embedding_parameters(self) -> int:
        """One vocabulary matrix: the input embedding, and as large again the output head unless tied."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, as the publisher counts them."""
        matrices = self.layers * self.linear_parameters_per_layer
        return matrices + self.small_parameters + self.embedding_parameters * (1 if self.tied else 2)

    @property
    def multiplied_parameters(self) -> int:
        """Weights that every generated token is multiplied by: all layers and the output head, not the look-up."""
        return self.layers * self.linear_parameters_per_layer + self.embedding_parameters

    def bits(self, quantization: str | None) -> float | None:
        """Bits a weight of the linear layers under ``quantization``, None where they keep the dtype."""
        if quantization is None:
            return None
        if quantization == self.quantization and self.quantization_bits is not None:
            return self.quantization_bits
        return QUANTIZATIONS[quantization].bits

    def _bytes(self, dtype: str, quantization: str | None, vocabulary_matrices: int) -> int:
        wide = DTYPE_BYTES[dtype]
        bits = self.bits(quantization)
        linear = self.layers * self.linear_parameters_per_layer
        linear_bytes = linear * wide if bits is None else int(linear * bits / 8)
        return linear_bytes + (self.small_parameters + vocabulary_matrices * self.embedding_parameters) * wide

    def weight_bytes(self, dtype: str, quantization: str | None = None) -> int:
        """Bytes that the weights take in memory."""
        return self._bytes(dtype, quantization, 1 if self.tied else 2)

    def streamed_bytes(self, dtype: str, quantization: str | None = None) -> int:
        """Bytes of weights read for one step: everything but the input embedding, of which a few rows are read."""
        return self._bytes(dtype, quantization, 1)

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values that one token of context takes, all layers together."""
        width = 1 if dtype == "fp8" else DTYPE_BYTES[dtype]
        return 2 * self.layers * self.kv_heads * self.head_dim * width

    def lora_bytes(self, rank: int, dtype: str, parts: int = 1) -> int:
        """Bytes that one adapter's place takes on each of ``parts`` accelerators.

        vLLM keeps room for both matrices of every linear layer. It divides what the layer itself divides: the rows of
        q, k, v, gate and up, the columns of o and down (vllm/lora/layers, without fully_sharded_loras).
        """
        query, key_value = self.heads * self.head_dim, max(self.kv_heads, parts) * self.head_dim
        wide = 5 * self.hidden + (query + 2 * key_value + 2 * self.intermediate) // parts
        narrow = 2 * self.hidden + (query + self.intermediate) // parts
        return self.layers * rank * (wide + narrow) * DTYPE_BYTES[dtype]

    def adapter_parameters(self, rank: int) -> int:
        """Weights of an adapter with this rank on every linear layer: what its file has at most."""
        return self.lora_bytes(rank, "bfloat16") // 2

    def attention_flops(self, context: int) -> int:
        """Floating point operations of attention for one token that looks back on ``context`` tokens."""
        return 4 * self.layers * self.heads * self.head_dim * context


def normal_dtype(name: str) -> str:
    """The long name of a dtype. Raises ``ValueError`` for one that the planner has no size of."""
    short = name.removeprefix("torch.")
    full = DTYPE_NAMES.get(short, short)
    if full not in DTYPE_BYTES:
        raise ValueError(f"dtype: found {name!r}, expected one of {', '.join(DTYPE_BYTES)}")
    return full


def shape_from_config(config: dict[str, Any], name: str = "model") -> ModelShape:
    """Read a Hugging Face ``config.json`` of a Llama checkpoint.

    Raises ``ValueError`` naming the key at fault, also for an architecture whose size this module cannot count.
    """
    architectures = config.get("architectures") or ["LlamaForCausalLM"]
    if config.get("model_type", "llama") != "llama":
        raise ValueError(f"config.json of {name}: found model type {config['model_type']!r}, expected 'llama'")
    if "LlamaForCausalLM" not in architectures:
        raise ValueError(f"config.json of {name}: found architecture {architectures[0]!r}, expected 'LlamaForCausalLM'")
    heads = _whole(config, "num_attention_heads", name)
    hidden = _whole(config, "hidden_size", name)
    read = {item.name: item.bits for item in QUANTIZATIONS.values() if item.stored and "vllm" in item.engines}
    method, bits = checkpoint_format(config, name, read)
    context, longest = context_of(config, name)
    stored = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return ModelShape(
        name=name,
        layers=_whole(config, "num_hidden_layers", name),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        intermediate=_whole(config, "intermediate_size", name),
        vocab=_whole(config, "vocab_size", name),
        context=context,
        longest=longest if longest > context else 0,
        tied=bool(config.get("tie_word_embeddings", False)),
        dtype=normal_dtype(stored),
        quantization=method,
        quantization_bits=bits,
        attention_bias=bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def config_of(shape: ModelShape) -> dict[str, Any]:
    """The ``config.json`` of a plain Llama checkpoint of this shape: the inverse of ``shape_from_config``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": shape.dtype,
        "rms_norm_eps": 1e-5,
    }


def _whole(config: dict[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"config.json of {name}: {key}: found {value!r}, expected a positive number")
    return value
