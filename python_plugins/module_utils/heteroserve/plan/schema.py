"""plan.json: which model runs where, with which engine, and what may be expected of it.

The plan is the seam of the whole suite: what comes before it discovers, what comes after it carries out
and looks at no hardware again. Sizes are bytes, times seconds, rates tokens a second of generated text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from ..common.records import from_dict, to_dict
from ..inventory.models import ModelSource
from .builds import Build

PLAN_VERSION = 1


@dataclass(frozen=True)
class Beside:
    """A folder of weights that an engine loads beside the model's own: an adapter, or the draft model."""

    name: str  # of an adapter: what clients call
    model: str  # to which it belongs
    kind: str  # "adapter" | "draft"
    source: ModelSource
    weight_bytes: int  # of its files
    folder: str  # in the store of the hosts
    config: str = "config.json"  # the file that says what it is
    rank: int = 0  # of an adapter, like the next two, which are its model's
    context: int = 0
    backend: str = ""


@dataclass(frozen=True)
class PlannedModel:
    """A model that at least one cell serves."""

    name: str  # what clients call
    source: ModelSource
    context: int  # tokens that prompt and answer may have together
    dtype: str  # "bfloat16", "float16" or "float32"
    quantization: str | None
    parameters: int
    weight_bytes: int  # at dtype and quantization
    kv_bytes_per_token: int
    chat: bool = True  # has a chat template
    folder: str = ""  # of its weights, in the store of the hosts
    backend: str = ""  # HAProxy's, which knows by it which of its cells are drained
    described_by: str = ""  # where its dimensions and its format come from
    beside: tuple[Beside, ...] = ()

    @property
    def adapters(self) -> tuple[Beside, ...]:
        """LoRA adapters, which clients call by their own names."""
        return tuple(item for item in self.beside if item.kind == "adapter")

    @property
    def draft(self) -> Beside | None:
        """The model that proposes tokens."""
        return next((item for item in self.beside if item.kind == "draft"), None)


@dataclass(frozen=True)
class Expectation:
    """What one cell is expected to do at ``concurrency`` requests at once (prompt and answer lengths in the plan)."""

    concurrency: int
    tokens_per_s: float
    time_per_output_token_s: float
    time_to_first_token_s: float


@dataclass(frozen=True)
class Placement:
    """One replica: its host (or hosts) and the accelerators that it takes on each; none for a CPU replica."""

    hosts: tuple[str, ...]
    devices: tuple[tuple[int, ...], ...] = ()  # one tuple of indices a host, in the order of ``hosts``
    cores: int = 0  # of each host, for a CPU replica
    numa_node: int | None = None  # that a CPU replica is bound to, counted from 0, where the host has several
    # Where a CPU replica's cores begin, counted from 0 in its node; none for one that has its host to itself.
    first_core: int | None = None
    # Under the runtime ray, in the order of ``devices``: what the vendor's own runtime calls them (see ``handover``).
    visible: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Limits:
    """What every replica of a cell is started with, and what that adds up to."""

    max_model_len: int  # tokens
    max_num_seqs: int  # requests that run at once
    kv_cache_bytes: int
    kv_cache_tokens: int
    memory_bytes: int  # of the accelerators (or of the host, for CPU): weights, KV cache and overhead
    host_memory_bytes: int  # RAM that the replica's processes take


@dataclass(frozen=True)
class Cell:
    """The part of a pool that is updated, and can fail, as a unit: one Ray cluster with one application."""

    name: str
    pool: str
    model: str
    engine: str  # "vllm" | "openvino" | "onnx" | "bigdl" | "echo"
    build: str  # environment or image that runs it: "vllm-cpu", "vllm-cuda", "vllm-rocm", ...
    accelerator: str  # kind, or "cpu"
    vendor: str  # "nvidia" | "amd" | "intel" | "habana" | "cpu"
    tensor_parallel_size: int
    hosts: tuple[str, ...]
    replicas: tuple[Placement, ...]
    limits: Limits
    engine_args: dict[str, Any]  # beyond what limits say, as the engine names them
    ports: dict[str, int]  # what the cell listens on, by name; "serve" is its OpenAI port
    weight: int  # share of the gateway's traffic, from expected tokens/s, 1 to 256
    expected: tuple[Expectation, ...]
    address: str = ""  # on which it listens: of its first host
    start_s: int = 900  # seconds that a start may take, with weights on a slow disk and nothing compiled before
    digest: str = ""  # changes whenever carrying the cell out would do something else


@dataclass(frozen=True)
class Pool:
    """All replicas of one model on one kind of accelerator with one engine and one tensor_parallel_size."""

    name: str
    model: str
    engine: str
    accelerator: str
    tensor_parallel_size: int
    replicas: int
    limited_by: str  # "memory bandwidth" | "compute" | "KV cache" | ...
    headroom: str  # one sentence
    tokens_per_s: float  # at the largest expectation's concurrency


@dataclass(frozen=True)
class Reason:
    """Why a host or a model was left out (or only partly used), and what would change that."""

    subject: str  # name of the host or model
    kind: str  # "host" | "model"
    text: str  # the one arithmetic reason
    change: str = ""
    model: str = ""  # whose entry the settings belong to
    # New values of keys of that entry that help, tried by the planner (null: remove the key); none where no key does.
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GatewayPlan:
    """What the gateway needs to know beyond the cells."""

    hosts: tuple[str, ...]
    body_bytes: int  # of a request that fills the longest context with plain text; few are longer


@dataclass(frozen=True)
class Plan:
    """Everything that the stages after the plan carry out."""

    runtime: str
    models: tuple[PlannedModel, ...]
    pools: tuple[Pool, ...]
    cells: tuple[Cell, ...]
    gateway: GatewayPlan
    reasons: tuple[Reason, ...] = ()
    advice: tuple[str, ...] = ()  # what one more host of each kind would add
    prompt_tokens: int = 32  # lengths that the expectations are for
    output_tokens: int = 256
    version: int = PLAN_VERSION
    builds: tuple[Build, ...] = ()  # the rows of the builds that its cells run
    unplaced: tuple[str, ...] = field(default=())  # models with no replica at all: the run stops


def cell_digest(cell: Cell, model: PlannedModel) -> str:
    """Hash of all that a restart of the cell would carry out: not the weight, the expectations or the old digest."""
    material = to_dict(replace(cell, weight=0, expected=(), digest=""))
    material["model"] = to_dict(model)
    for key in ("address", "start_s"):
        del material[key]  # they follow from what is in it
    for key in ("folder", "backend", "described_by"):
        del material["model"][key]
    if not material["model"]["beside"]:
        del material["model"]["beside"]  # so that a cell without it keeps its digest
    for replica in material["replicas"]:
        if replica["first_core"] is None:
            del replica["first_core"]  # nothing is bound: such a cell is what it was before there was this field
        del replica["devices" if replica["visible"] else "visible"]  # where they are follows from what they are
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:16]


def plan_to_json(plan: Plan) -> str:
    """The file's text: the same plan gives the same bytes."""
    return json.dumps(to_dict(plan), indent=2, sort_keys=True) + "\n"


def plan_from_json(text: str) -> Plan:
    """Read plan.json back. Raises ``ValueError`` when it was written by another version or by hand."""
    data = json.loads(text)
    if data.get("version") != PLAN_VERSION:
        raise ValueError(f"version: found {data.get('version')}, expected {PLAN_VERSION}: run the plan stage again")
    return from_dict(Plan, data)
