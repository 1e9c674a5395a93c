"""Export a Llama checkpoint for ``serving.engines.onnx``.

``python -m serving.engines.onnx_convert WEIGHTS TARGET PRECISION``
"""

from __future__ import annotations

import runpy
import sys
import tempfile

BITS = {"int8": "int8", "int4": "int4", "float32": "fp32"}
# k_quant searches scales and offsets that keep each block's error small. The default rounds: with it the 135M model of
# inventory/local no longer knew the capital of France in int8. Level 4 multiplies in int8; level 1, in float32, took
# 50 times as long a token on a processor with AVX2.
QUANTISED = ["algo_config=k_quant", "accuracy_level=4"]


def arguments(weights: str, target: str, precision: str, cache: str) -> list[str]:
    """Of the builder's command line. It computes only the last token's logits of a prompt."""
    more = QUANTISED if precision != "float32" else []
    places = ["-i", weights, "-o", target, "-c", cache]
    return ["builder", *places, "-p", BITS[precision], "-e", "cpu", "--extra_options", "prune_lm_head=true", *more]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        weights, target, precision = sys.argv[1:4]
        sys.argv = arguments(weights, target, precision, folder)
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
