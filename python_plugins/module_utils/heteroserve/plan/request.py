"""What the planner is asked: models, hosts and the settings of the whole plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..common.names import cell_prefix
from ..common.records import bounded, from_dict
from ..facts.accelerators import CARDS, AcceleratorCard
from ..facts.hardware import Hardware
from ..inventory.models import ModelRequest
from .builds import engines_of
from .model_cards import MODEL_CARDS, card_named
from .model_shape import QUANTIZATIONS, ModelShape, normal_dtype, shape_from_config
from .schema import Plan

RUNTIMES = ("ray", "k3s")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for (MaxLoRARanks, vllm/config/lora.py)


@dataclass(frozen=True)
class HostEntry:
    """A host that may carry models, and what of it the planner may use."""

    hardware: Hardware
    rack: str = ""
    address: str = ""  # on which its cells listen
    reserved_ports: tuple[int, ...] = ()
    memory_gib: float | None = None  # of RAM, at most
    cores: int | None = None  # processor cores, at most
    accelerators: tuple[int, ...] | None = None  # indices that may be used; all where left out


@dataclass(frozen=True)
class PlanOptions:
    """Settings of the whole plan."""

    port_base: int = bounded(18000, least=1024)  # first port of the first cell of each host
    reserve_memory_gib: float | None = bounded(None, least=0)  # RAM left to the host; else an eighth, 2 to 32 GiB
    allow_cpu: bool = True  # processors may carry models
    drivers_managed: bool = False  # a later stage installs GPU drivers: a GPU without one counts as usable
    builds: tuple[str, ...] = ()  # environments and images that there are; what the runtime can make where empty
    provided: tuple[str, ...] = ()  # builds whose images the site provides (images_references)
    prompt_tokens: int = bounded(32, least=1)  # lengths that the expectations are for
    output_tokens: int = bounded(256, least=1)
    stream_gap_ms: float = bounded(100, above=0)  # longest wait of a reader between two pieces of text
    token_ms: float = bounded(100, above=0)  # longest that a token may take, with all requests that run at once


@dataclass(frozen=True)
class PlanRequest:
    """All that a plan follows from: the same request gives the same plan."""

    runtime: str
    hosts: dict[str, HostEntry]
    models: tuple[ModelRequest, ...]
    gateways: tuple[str, ...] = ()
    previous: Plan | None = None
    replan: bool = False  # true: running replicas may move
    options: PlanOptions = field(default_factory=PlanOptions)
    described: Mapping[str, str] = field(default_factory=dict)  # where the shapes of models come from, by name
    problems: Mapping[str, str] = field(default_factory=dict)  # why the hub did not say it, by name
    cards: Mapping[str, AcceleratorCard] = field(default_factory=lambda: CARDS)  # ours, and the inventory's own


@dataclass(frozen=True)
class HostLimits:
    """What the inventory says of a host beside its hardware, ``serving_limits`` among it."""

    rack: str | int | None = None
    address: str | None = None  # on which its cells listen
    reserved_ports: tuple[int, ...] | None = None
    memory_gib: float | None = bounded(None, above=0)
    cores: int | None = bounded(None, least=1)
    accelerators: tuple[int, ...] | None = None


def host_limits(given: dict[str, Any], where: str) -> HostLimits:
    """Read a host's variables. Raises ``ValueError`` that names the key at fault."""
    return from_dict(HostLimits, given, where, texts=True)


def model_entry(given: dict[str, Any], where: str) -> ModelRequest:
    """Read an entry of ``models``; a key without a value counts as left out. Raises ``ValueError``."""
    return from_dict(ModelRequest, {key: value for key, value in given.items() if value is not None}, where, texts=True)


def options_of(given: dict[str, Any]) -> PlanOptions:
    """Read ``serving_plan_options``. Raises ``ValueError``."""
    return from_dict(PlanOptions, given, "serving_plan_options", texts=True)


def shared_cell_name(name: str, others: Collection[str]) -> str | None:
    """Another model whose cells would be called like those of ``name``."""
    own = cell_prefix(name, "cpu")
    return next((other for other in others if other != name and cell_prefix(other, "cpu") == own), None)


def card_for(request: ModelRequest) -> str | None:
    """The card that a model entry names, or whose name its hub id ends in ("meta-llama/Llama-3.1-8B-Instruct")."""
    if request.card:
        return request.card
    tail = (request.source.hub or "").rsplit("/", 1)[-1].lower()
    for ending in ("-instruct", "-chat-hf", "-chat-v1.0", "-chat", "-hf"):
        tail = tail.removesuffix(ending)
    return tail if tail in MODEL_CARDS else None


def shape_of(request: ModelRequest) -> ModelShape:
    """The model's shape. Raises ``ValueError`` when neither its card nor its config.json can say it."""
    if request.config is not None:
        return shape_from_config(request.config, request.name)
    card = card_for(request)
    if card is None:
        raise ValueError(
            f"{request.name}: its size is unknown, for it has no card and no config.json was found at "
            f"{request.source.path or request.source.hub or request.source.package or 'its source'}"
        )
    return card_named(card)


def draft_shape_of(request: ModelRequest) -> ModelShape | None:
    """The shape of the draft model, if the request has one. Raises ``ValueError`` as ``shape_of``."""
    draft = request.draft
    if draft is None:
        return None
    name = f"the draft of {request.name}"
    return shape_of(ModelRequest(name, source=draft.source, card=draft.card, config=draft.config))


def lora_rank(request: ModelRequest) -> int:
    """vLLM's ``max_lora_rank``: the least that it knows and all adapters fit into; 0 without adapters."""
    most = max((adapter.rank or 1 for adapter in request.lora_adapters), default=0)
    return most and next((rank for rank in LORA_RANKS if rank >= most), LORA_RANKS[-1])


def fault_of_rank(request: ModelRequest) -> str | None:
    """An adapter whose rank neither its entry nor its adapter_config.json tells, as "KEY: what is wrong"."""
    for adapter in request.lora_adapters:
        if adapter.rank is None:
            return (
                f"lora_adapters: the rank of {adapter.name} is unknown, for no adapter_config.json was found at "
                f"{adapter.source.path or adapter.source.hub}: set its `rank` to the `r` in that file"
            )
    return None


def faults_of(request: ModelRequest, shape: ModelShape | None, builds: Collection[str]) -> str | None:
    """The first setting of a model that no hardware could satisfy, as "KEY: what is wrong".

    Without a shape only what is wrong for every model.
    """
    if request.max_replicas is not None and request.max_replicas < max(1, request.min_replicas):
        return f"max_replicas: found {request.max_replicas}, less than min_replicas {request.min_replicas}"
    several = _fault_of_engines(request, builds)
    if several is not None:
        return several
    if request.engine is not None and request.engine not in engines_of(builds):
        return f"engine: found {request.engine!r}, this runtime has {', '.join(engines_of(builds)) or 'none'}"
    if request.context is not None and shape is not None and request.context > shape.most:
        return f"context: found {request.context}, the model knows {shape.most} positions"
    if request.dtype is not None:
        try:
            normal_dtype(request.dtype)
        except ValueError as fault:
            return str(fault)
    return (
        _fault_of_quantization(request, shape, builds)
        or _fault_of_parallelism(request, shape)
        or _fault_of_draft(request, shape)
        or _fault_of_adapters(request)
    )


def _fault_of_engines(request: ModelRequest, builds: Collection[str]) -> str | None:
    names = request.engines
    unknown = [name for name in names if name not in engines_of(builds)]
    if unknown:
        return f"engines: found {unknown[0]!r}, this runtime has {', '.join(engines_of(builds)) or 'none'}"
    if names and request.engine is not None:
        return f"engines: found {', '.join(names)}, and engine {request.engine}: name them in one of the two"
    if len(set(names)) < len(names):
        return f"engines: found {', '.join(names)}, each can be named once"
    if names and request.quantization is not None:
        return f"engines: quantization {request.quantization} is of one engine, set engine alone or remove it"
    if names and request.max_replicas is not None and request.max_replicas < len(names):
        return f"max_replicas: found {request.max_replicas}, less than the {len(names)} engines"
    return None


def _fault_of_draft(request: ModelRequest, shape: ModelShape | None) -> str | None:
    draft = request.draft
    if draft is None:
        return None
    if request.speculative_tokens is not None:
        return "draft: found with speculative_tokens, which is n-gram speculation: set one of the two"
    if shape is None or not (draft.config or card_for(ModelRequest("", draft.source, draft.card))):
        return None  # the plan, which reads config.json, looks again
    try:
        found = draft_shape_of(request)
    except ValueError as fault:
        return f"draft: {fault}"
    if found is not None and found.vocab != shape.vocab:
        return f"draft: found one with {found.vocab:,} tokens in its vocabulary, the model has {shape.vocab:,}"
    return None


def _fault_of_adapters(request: ModelRequest) -> str | None:
    for adapter in request.lora_adapters:
        if (adapter.rank or 0) > LORA_RANKS[-1]:
            return f"lora_adapters: {adapter.name} has rank {adapter.rank}, vLLM takes {LORA_RANKS[-1]} at most"
    return None


def _fault_of_quantization(request: ModelRequest, shape: ModelShape | None, builds: Collection[str]) -> str | None:
    name = request.quantization
    if name is None:
        return None
    known = [method.name for method in QUANTIZATIONS.values() if set(method.engines) & set(engines_of(builds))]
    if name not in known:
        return f"quantization: found {name!r}, expected one of {', '.join(known)}"
    if shape is not None and not QUANTIZATIONS[name].online and shape.quantization != name:
        own = shape.quantization or shape.dtype
        return f"quantization: {name} needs a checkpoint that was quantised so, this one is {own}"
    if shape is not None and shape.quantization not in (None, name):
        return f"quantization: found {name}, the checkpoint is {shape.quantization} already: remove it"
    if request.engine is not None and request.engine not in QUANTIZATIONS[name].engines:
        return f"quantization: {name} is of engine {QUANTIZATIONS[name].engines[0]}, found engine {request.engine}"
    return None


def _fault_of_parallelism(request: ModelRequest, shape: ModelShape | None) -> str | None:
    size = request.tensor_parallel_size
    if size is not None and shape is not None and not splits(shape, size):
        fits = ", ".join(str(item) for item in range(1, 17) if splits(shape, item))
        return (
            f"tensor_parallel_size: found {size}, which does not divide the {shape.heads} heads and "
            f"{shape.kv_heads} KV heads of this model; it can be split into {fits} parts"
        )
    return None


def splits(shape: ModelShape, size: int) -> bool:
    """vLLM's rule: heads and MLP divide evenly, KV heads divide evenly or are copied a whole number of times."""
    if size < 1 or shape.heads % size or shape.intermediate % size:
        return False
    return shape.kv_heads % size == 0 if shape.kv_heads >= size else size % shape.kv_heads == 0
