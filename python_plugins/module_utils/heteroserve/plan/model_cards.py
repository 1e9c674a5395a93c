"""Shapes of the Llama family, for planning where no ``config.json`` is at hand.

Source of each: the ``config.json`` in the publisher's repository named in the comment. The exact parameter count
is what that repository's safetensors index adds up to, and ``tests/unit/plan`` checks the arithmetic against it.
"""

from __future__ import annotations

from difflib import get_close_matches

from .model_shape import ModelShape


def _llama(
    name: str,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vocab: int,
    context: int,
    *,
    tied: bool = False,
    head_dim: int | None = None,
    dtype: str = "bfloat16",
) -> ModelShape:
    head = head_dim or hidden // heads
    return ModelShape(name, layers, hidden, heads, kv_heads, head, intermediate, vocab, context, tied, dtype)


MODEL_CARDS: dict[str, ModelShape] = {
    card.name: card
    for card in (
        # meta-llama/Llama-2-*-chat-hf
        _llama("llama-2-7b", 32, 4096, 32, 32, 11008, 32000, 4096, dtype="float16"),
        _llama("llama-2-13b", 40, 5120, 40, 40, 13824, 32000, 4096, dtype="float16"),
        _llama("llama-2-70b", 80, 8192, 64, 8, 28672, 32000, 4096, dtype="float16"),
        # meta-llama/Llama-3.1-*-Instruct
        _llama("llama-3.1-8b", 32, 4096, 32, 8, 14336, 128256, 131072),
        _llama("llama-3.1-70b", 80, 8192, 64, 8, 28672, 128256, 131072),
        _llama("llama-3.1-405b", 126, 16384, 128, 8, 53248, 128256, 131072),
        # meta-llama/Llama-3.2-*-Instruct
        _llama("llama-3.2-1b", 16, 2048, 32, 8, 8192, 128256, 131072, tied=True),
        _llama("llama-3.2-3b", 28, 3072, 24, 8, 8192, 128256, 131072, tied=True),
        # meta-llama/Llama-3.3-70B-Instruct: the shape of 3.1 70B
        _llama("llama-3.3-70b", 80, 8192, 64, 8, 28672, 128256, 131072),
        # HuggingFaceTB/SmolLM2-135M-Instruct
        _llama("smollm2-135m", 30, 576, 9, 3, 1536, 49152, 8192, tied=True),
        # TinyLlama/TinyLlama-1.1B-Chat-v1.0
        _llama("tinyllama-1.1b", 22, 2048, 32, 4, 5632, 32000, 2048),
    )
}


def card_named(name: str) -> ModelShape:
    """The card ``name``. Raises ``ValueError`` that names the nearest ones."""
    card = MODEL_CARDS.get(name)
    if card is None:
        near = get_close_matches(name, list(MODEL_CARDS), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"card: found {name!r}{hint} Known are {', '.join(MODEL_CARDS)}")
    return card
