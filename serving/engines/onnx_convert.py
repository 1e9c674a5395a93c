"""Export a Llama checkpoint for ``serving.engines.onnx``.

``python -m serving.engines.onnx_convert WEIGHTS TARGET PRECISION``
"""

from __future__ import annotations

import runpy
import sys
import tempfile

BITS = {"int8": "int8", "int4": "int4", "float32": "fp32"}
# k_quant searches scales and offsets that keep each block's error small. In int4 the output head and the matrices that
# matter most in half of the layers are int8: two thirds of the error remain, at the same speed. Level 4 rounds what is
# multiplied to int8, too. Level 1 does not, but has no kernel for int8 (1.3 tokens/s where level 4 gave 39), and half
# the speed in int4. docs/engines.md has the errors.
METHODS = {"int8": "k_quant", "int4": "k_quant_mixed"}
LEVEL = 4


def arguments(weights: str, target: str, precision: str, cache: str) -> list[str]:
    """Of the builder's command line. It computes only the last token's logits of a prompt."""
    more = [f"algo_config={METHODS[precision]}", f"accuracy_level={LEVEL}"] if precision in METHODS else []
    places = ["-i", weights, "-o", target, "-c", cache]
    return ["builder", *places, "-p", BITS[precision], "-e", "cpu", "--extra_options", "prune_lm_head=true", *more]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        weights, target, precision = sys.argv[1:4]
        sys.argv = arguments(weights, target, precision, folder)
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
