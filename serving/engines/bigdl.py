"""BigDL-LLM on processors: a Llama in its low-bit format, which its own kernels multiply.

Its makers have archived it, so no plan takes it by itself; it serves who asks for it (``engine: bigdl``). Answers are
computed one after the other, a token of each in turn: transformers 4.31 has no cache for rows of different lengths.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.engines.converted import converted
from serving.engines.cpu_binding import own_threads
from serving.engines.sampling import Logits
from serving.engines.stepping import READERS, Part, SteppingEngine

CONVERTER = "serving.engines.bigdl_convert"
FORMAT = "2"  # of what the converter makes; raise it when that changes


class Arguments(BaseModel):
    """Engine arguments."""

    model_config = ConfigDict(extra="forbid")

    max_model_len: int = Field(gt=0)
    max_num_seqs: int = Field(default=1, gt=0)
    kv_cache_tokens: int = Field(default=0, ge=0, description="tokens in the cache, all answers together")
    quantization: Literal["sym_int4", "sym_int8"] = "sym_int8"
    threads: int = Field(default=0, ge=0, description="0: as many as the replica has cores")


class BigdlModel:
    """The model, and keys and values of each slot as the model returned them."""

    def __init__(self, folder: Path, precision: str, slots: int, threads: int) -> None:
        # Threads that wait for the next product would take the cores of everything else, the server's too: on two busy
        # cores a token took 2.4 s with them and 0.08 s without (one run each). Read when the library is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import torch
        from bigdl.llm.transformers import AutoModelForCausalLM

        self._torch = torch
        torch.set_num_threads(threads)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), load_in_low_bit=precision, trust_remote_code=False
        ).eval()
        self.slots, self.vocabulary = slots, int(self._model.config.vocab_size)
        self._held: list[Any] = [None] * (slots + READERS)

    def run(self, parts: Sequence[Part]) -> Sequence[Logits]:
        """One step, a part after the other."""
        with self._torch.inference_mode():
            return [self._append(part) for part in parts]

    def _append(self, part: Part) -> Logits:
        ids = self._torch.tensor([list(part.tokens)])
        found = self._model(input_ids=ids, past_key_values=self._held[part.slot], use_cache=True)
        self._held[part.slot] = found.past_key_values
        logits: Logits = found.logits[0, -1].float().numpy()
        return logits

    def move(self, source: int, target: int, length: int) -> None:
        """Hand a slot's tokens over."""
        self._held[target], self._held[source] = self._held[source], None

    def free(self, slot: int) -> None:
        """Forget a slot's tokens."""
        self._held[slot] = None

    def close(self) -> None:
        """Let the weights go."""
        self._model, self._held = None, []


def load(path: str, arguments: Arguments) -> SteppingEngine:
    """The engine with a model's weights, which are converted first where they are not yet."""
    from serving.openai.text import CheckpointText

    folder = converted(Path(path), "bigdl", FORMAT, arguments.quantization, CONVERTER)
    model = BigdlModel(folder, arguments.quantization, arguments.max_num_seqs, arguments.threads or own_threads())
    text = CheckpointText(Path(path), folder / "tokenizer.json")
    return SteppingEngine(model, text, arguments.max_model_len, arguments.kv_cache_tokens)
