"""OpenVINO on processors, with a Llama that optimum-intel has exported.

The graph's attention is replaced by the operator that OpenVINO's own pipelines use for continuous batching
(PagedAttention: a cache in blocks, a list of blocks for each answer), so answers of different lengths are computed in
one step. Those pipelines choose the tokens themselves and do not show their probabilities; this file runs the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from serving.engines.converted import converted
from serving.engines.cpu_binding import own_threads
from serving.engines.sampling import Logits
from serving.engines.stepping import READERS, Part, SteppingEngine

CONVERTER = "serving.engines.openvino_convert"
FORMAT = "1"  # of what the converter makes; raise it when that changes
BLOCK = 32  # tokens; the operator's kernels for processors know no other (openvino.genai, cache_manager.hpp)


PRECISIONS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


class Arguments(BaseModel):
    """Engine arguments."""

    model_config = ConfigDict(extra="forbid")

    max_model_len: int = Field(gt=0)
    max_num_seqs: int = Field(default=1, gt=0)
    kv_cache_tokens: int = Field(default=0, ge=0, description="tokens in the cache, all answers together")
    quantization: Literal["int4", "int8"] | None = Field(default=None, description="of the weights; none: as they are")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(default="float32", description="computed and kept")
    threads: int = Field(default=0, ge=0, description="0: as many as the replica has cores")


class OpenVinoModel:
    """The graph and its KV cache."""

    def __init__(self, folder: Path, slots: int, tokens: int, threads: int, dtype: str) -> None:
        """``tokens``: how many the cache holds, all slots together."""
        import openvino
        from openvino._offline_transformations import paged_attention_transformation

        core = openvino.Core()
        graph = core.read_model(folder / "openvino_model.xml")
        paged_attention_transformation(graph)
        _only_last_tokens(graph)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "KV_CACHE_PRECISION": PRECISIONS[dtype],
            # The replica's cores are set for the whole process; OpenVINO would count from the machine's first.
            "ENABLE_CPU_PINNING": False,
        }
        compiled: Any = core.compile_model(graph, "CPU", settings)
        self.slots = slots
        self.vocabulary = int(compiled.output("logits").partial_shape[-1].get_length())
        self._request: Any = compiled.create_infer_request()
        self._tensor = openvino.Tensor
        # Each slot's last block is filled in part. Blocks that nothing was written to take no memory.
        blocks = -(-tokens // BLOCK) + slots + READERS
        for place in compiled.inputs:
            name = place.get_any_name()
            if name.startswith(("key_cache.", "value_cache.")):
                # Which format and shape a block has, the kernels for this processor decide.
                shape = [blocks, *(part.get_length() for part in list(place.partial_shape)[1:])]
                self._request.set_tensor(name, openvino.Tensor(place.element_type, openvino.Shape(shape)))
        self._free = list(range(blocks))
        self._blocks: list[list[int]] = [[] for _ in range(slots + READERS)]

    def run(self, parts: Sequence[Part]) -> Logits:
        """One step: each part is a row of the operator's ragged batch."""
        counts = np.array([len(part.tokens) for part in parts])
        ends = np.array([part.start for part in parts]) + counts
        tables = [self._table(part.slot, int(end)) for part, end in zip(parts, ends, strict=True)]
        self._give("input_ids", np.concatenate([part.tokens for part in parts]), np.int64)
        positions = [np.arange(part.start, end) for part, end in zip(parts, ends, strict=True)]
        self._give("position_ids", np.concatenate(positions), np.int64)
        self._give("past_lens", [part.start for part in parts], np.int32)
        self._give("subsequence_begins", np.cumsum([0, *counts]), np.int32)
        self._give("block_indices", np.concatenate(tables), np.int32)
        self._give("block_indices_begins", np.cumsum([0, *(len(table) for table in tables)]), np.int32)
        self._give("max_context_len", ends.max(), np.int32)
        self._give(LAST, np.cumsum(counts) - 1, np.int64)
        self._request.infer()
        logits: Logits = self._request.get_tensor("logits").data.reshape(len(parts), -1)
        return logits

    def _table(self, slot: int, tokens: int) -> list[int]:
        """The blocks of a slot, with room for so many tokens."""
        blocks = self._blocks[slot]
        while len(blocks) * BLOCK < tokens:
            blocks.append(self._free.pop())
        return blocks[: -(-tokens // BLOCK)]

    def _give(self, name: str, values: Any, kind: type) -> None:
        self._request.set_tensor(name, self._tensor(np.array(values, dtype=kind)))

    def move(self, source: int, target: int, length: int) -> None:
        """Hand a slot's blocks to another; nothing is copied."""
        self.free(target)
        self._blocks[target], self._blocks[source] = self._blocks[source], []

    def free(self, slot: int) -> None:
        """Give a slot's blocks back."""
        self._free += self._blocks[slot]
        self._blocks[slot] = []

    def close(self) -> None:
        """Let the weights and the cache go."""
        self._request = None


LAST = "last_tokens"


def _only_last_tokens(graph: Any) -> None:
    """Let the graph compute the logits of the tokens that the new input names; a prompt needs only its last one's."""
    from openvino import opset13

    product = graph.output("logits").get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    chosen = opset13.parameter([-1], np.int64, LAST)
    chosen.output(0).set_names({LAST})
    taken = opset13.gather(product.input_value(0), chosen, opset13.constant(0, np.int64))
    product.input(0).replace_source_output(taken.output(0))
    graph.add_parameters([chosen])
    graph.validate_nodes_and_infer_types()


def load(path: str, arguments: Arguments) -> SteppingEngine:
    """The engine with a model's weights, which are converted first where they are not yet."""
    from serving.openai.text import CheckpointText

    precision = arguments.quantization or "as-is"
    folder = converted(Path(path), "openvino", FORMAT, precision, CONVERTER)
    threads = arguments.threads or own_threads()
    # A prompt may be read beside an answer that takes the whole cache.
    tokens = max(arguments.kv_cache_tokens, arguments.max_model_len) + arguments.max_model_len
    model = OpenVinoModel(folder, arguments.max_num_seqs, tokens, threads, arguments.dtype)
    return SteppingEngine(model, CheckpointText(Path(path)), arguments.max_model_len, arguments.kv_cache_tokens)
