"""ONNX Runtime on processors, with a Llama that onnxruntime-genai's model builder has exported.

The exported graph has one operator for a layer's attention (GroupQueryAttention) that takes a length for each row and
writes into the cache in place. So answers of different lengths are computed in one step, which onnxruntime-genai's own
generator cannot (its engine with continuous batching is for CUDA alone), and this file runs the graph itself.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from serving.engines.converted import converted
from serving.engines.cpu_binding import own_threads
from serving.engines.sampling import Logits
from serving.engines.stepping import READERS, Part, SteppingEngine

CONVERTER = "serving.engines.onnx_convert"
FORMAT = "2"  # of what the converter makes; raise it when that changes


class Arguments(BaseModel):
    """Engine arguments."""

    model_config = ConfigDict(extra="forbid")

    max_model_len: int = Field(gt=0)
    max_num_seqs: int = Field(default=1, gt=0)
    kv_cache_tokens: int = Field(default=0, ge=0, description="tokens in the cache, all answers together")
    quantization: Literal["int4", "int8"] | None = Field(default="int8", description="of the weights; none: float32")
    threads: int = Field(default=0, ge=0, description="0: as many as the replica has cores")


class Cache:
    """Keys or values of one layer, for all slots. Pages that nothing was written to take no memory."""

    def __init__(self, slots: int, heads: int, length: int, size: int) -> None:
        self.shape = (slots, heads, length, size)
        self._row = heads * length * size * 4
        self._memory = mmap.mmap(-1, slots * self._row)
        self.array = np.frombuffer(self._memory, dtype=np.float32).reshape(self.shape)

    def address(self, slot: int) -> int:
        """Where a slot's part begins."""
        return int(self.array.ctypes.data) + slot * self._row

    def free(self, slot: int) -> None:
        """Give a slot's memory back to the system; it reads as zeros from then on."""
        first, last = slot * self._row, (slot + 1) * self._row
        first, last = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class OnnxModel:
    """The exported graph and its KV cache."""

    def __init__(self, folder: Path, slots: int, length: int, threads: int) -> None:
        import onnxruntime

        settings = json.loads((folder / "genai_config.json").read_text())["model"]
        decoder = settings["decoder"]
        self.slots, self.vocabulary = slots, int(settings["vocab_size"])
        self._layers = int(decoder["num_hidden_layers"])
        shape = (slots + READERS, int(decoder["num_key_value_heads"]), length, int(decoder["head_size"]))
        self._caches = [(Cache(*shape), Cache(*shape)) for _ in range(self._layers)]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that wait would otherwise keep their cores busy, which the server and other replicas need: measured on
        # two cores that others used too, a step took half to a third of the time without.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / decoder["filename"]), options, providers=["CPUExecutionProvider"]
        )

    def run(self, parts: Sequence[Part]) -> Sequence[Logits]:
        """One step: the answers in one pass, since rows of a pass have the same number of tokens, then each prompt."""
        ready = [part for place, part in enumerate(parts) if part.slot == place and len(part.tokens) == 1]
        rows: list[Logits] = []
        if ready:
            ids = np.array([part.tokens for part in ready], dtype=np.int64)
            rows += list(self._run(0, ids, [part.start + 1 for part in ready]))
        for part in parts[len(ready) :]:
            ids = np.array([part.tokens], dtype=np.int64)
            rows += list(self._run(part.slot, ids, [part.start + len(part.tokens)]))
        return rows

    def _run(self, slot: int, ids: Any, lengths: Sequence[int]) -> Logits:
        rows = len(lengths)
        bound = self._session.io_binding()
        # A row's length is the sum of its mask.
        mask = (np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]).astype(np.int64)
        bound.bind_cpu_input("input_ids", ids)
        bound.bind_cpu_input("attention_mask", mask)
        bound.bind_output("logits", "cpu")
        for layer, pair in enumerate(self._caches):
            for cache, name in zip(pair, ("key", "value"), strict=True):
                place = ("cpu", 0, np.float32, (rows, *cache.shape[1:]), cache.address(slot))
                bound.bind_input(f"past_key_values.{layer}.{name}", *place)
                bound.bind_output(f"present.{layer}.{name}", *place)
        self._session.run_with_iobinding(bound)
        logits: Logits = bound.get_outputs()[0].numpy()[:, -1, :]
        return logits

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's tokens."""
        for pair in self._caches:
            for cache in pair:
                cache.array[target, :, :length] = cache.array[source, :, :length]
        self.free(source)

    def free(self, slot: int) -> None:
        """Give a slot's memory back."""
        for pair in self._caches:
            for cache in pair:
                cache.free(slot)

    def close(self) -> None:
        """Let the weights and the cache go."""
        self._session = None
        self._caches = []


def load(path: str, arguments: Arguments) -> SteppingEngine:
    """The engine with a model's weights, which are converted first where they are not yet."""
    from serving.openai.text import CheckpointText

    precision = arguments.quantization or "float32"
    folder = converted(Path(path), "onnx", FORMAT, precision, CONVERTER)
    threads = arguments.threads or own_threads()
    model = OnnxModel(folder, arguments.max_num_seqs, arguments.max_model_len, threads)
    return SteppingEngine(model, CheckpointText(Path(path)), arguments.max_model_len, arguments.kv_cache_tokens)
