"""One engine's own loop over tokens, without a server: ``python engine_loops.py ENGINE FOLDER THREADS DTYPE``.

Reads lines "CLIENTS TOKENS" and answers each with the tokens/s of that many answers at once. bench_engines.py runs it
in the environment of the engine that it measures.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
Loop = Callable[[int, int], None]


def genai(folder: str, threads: int, dtype: str) -> Loop:
    """onnxruntime-genai's generator: the answers of a batch begin and end together."""
    import onnxruntime_genai as library

    model = library.Model(folder)
    ids = list(library.Tokenizer(model).encode(PROMPT))

    def run(clients: int, tokens: int) -> None:
        settings = library.GeneratorParams(model)
        most = len(ids) + tokens
        settings.set_search_options(max_length=most, min_length=most, batch_size=clients, do_sample=False)
        generator = library.Generator(model, settings)
        generator.append_tokens([ids] * clients if clients > 1 else ids)
        for _ in range(tokens):
            generator.generate_next_token()

    return run


def optimum(folder: str, threads: int, dtype: str) -> Loop:
    """Optimum's model in transformers' generate(), as the guide has it; exported to int8 at the first time."""
    import onnxruntime
    from optimum.onnxruntime import ORTModelForCausalLM, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    target = f"{folder.rstrip('/')}-optimum"
    if not os.path.exists(f"{target}-int8"):
        ORTModelForCausalLM.from_pretrained(folder, export=True).save_pretrained(target)
        made = AutoQuantizationConfig.avx2(is_static=False, per_channel=False)
        ORTQuantizer.from_pretrained(target).quantize(save_dir=f"{target}-int8", quantization_config=made)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = ORTModelForCausalLM.from_pretrained(f"{target}-int8", session_options=options)
    return transformers_loop(model, folder)


def bigdl(folder: str, threads: int, dtype: str) -> Loop:
    """BigDL-LLM's model in transformers' generate(); ``folder`` is what serving/engines/bigdl_convert.py has made."""
    import torch
    from bigdl.llm.transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    options = {"load_in_low_bit": "sym_int8", "trust_remote_code": False}
    return transformers_loop(AutoModelForCausalLM.from_pretrained(folder, **options).eval(), folder)


def transformers_loop(model: Any, folder: str) -> Loop:
    """The generate() that models of transformers have."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    ids = torch.tensor([tokenizer.encode(PROMPT, add_special_tokens=False).ids])

    def run(clients: int, tokens: int) -> None:
        given: Any = ids.repeat(clients, 1)
        model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )

    return run


def openvino(folder: str, threads: int, dtype: str) -> Loop:
    """OpenVINO GenAI's pipeline with continuous batching; ``folder`` is a GGUF file or an exported model."""
    import openvino_genai as library

    # As serving/engines/openvino.py does: the numbers that are computed with are those of the KV cache, too.
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    hints = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
    pipeline = library.LLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads, **hints)
    settings = library.GenerationConfig()
    settings.do_sample, settings.ignore_eos, settings.apply_chat_template = False, True, False

    def run(clients: int, tokens: int) -> None:
        settings.max_new_tokens = tokens
        pipeline.generate([PROMPT] * clients, settings)

    return run


LOOPS = {"genai": genai, "optimum": optimum, "openvino": openvino, "bigdl": bigdl}

if __name__ == "__main__":
    name, weights, count, numbers = sys.argv[1:5]
    said, sys.stdout = sys.stdout, sys.stderr  # libraries write what they like
    measured = LOOPS[name](weights, int(count), numbers)
    measured(1, 4)
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        at_once, length = map(int, line.split())
        began = time.monotonic()
        measured(at_once, length)
        print(at_once * length / (time.monotonic() - began), file=said, flush=True)
