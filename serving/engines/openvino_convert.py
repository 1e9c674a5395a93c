"""Export a Llama checkpoint for ``serving.engines.openvino``.

``python -m serving.engines.openvino_convert WEIGHTS TARGET PRECISION``
"""

from __future__ import annotations

import sys
from typing import Any

# One scale and offset for each row of a matrix; in groups of 64 weights where 4 bits are too few for whole rows.
COMPRESSION: dict[str, dict[str, Any] | None] = {
    "int8": {"bits": 8, "sym": False},
    "int4": {"bits": 4, "sym": False, "group_size": 64, "ratio": 1.0},
    "as-is": None,  # the checkpoint's own format
}


def convert(weights: str, target: str, precision: str) -> None:
    """Write OpenVINO's form of the model, its weights compressed by NNCF."""
    from optimum.intel import OVWeightQuantizationConfig
    from optimum.intel.openvino import OVModelForCausalLM

    compression = COMPRESSION[precision]
    quantization = None if compression is None else OVWeightQuantizationConfig(**compression)
    model = OVModelForCausalLM.from_pretrained(
        weights, export=True, compile=False, quantization_config=quantization, load_in_8bit=False
    )
    model.save_pretrained(target)


if __name__ == "__main__":
    convert(*sys.argv[1:4])
