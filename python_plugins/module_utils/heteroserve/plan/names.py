"""Names that follow from a model's, an accelerator's or a host's, each as short as its place wants it."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 47  # KubeRay's limit for a RayService, to whose name it appends


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which host9 comes before host10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def short_kind(kind: str) -> str:
    """An accelerator in a cell's name: "nvidia-h100-sxm-80gb" is "h100-sxm-80gb"."""
    vendor, _, rest = kind.partition("-")
    return rest if rest and vendor in ("nvidia", "amd", "intel", "habana") else kind


def cell_prefix(model: str, kind: str) -> str:
    """Model and accelerator as a DNS label that begins with a letter, as the name of a Kubernetes Service has to.

    A name that had to be cut ends in a hash of the whole.
    """
    text = re.sub(r"[^a-z0-9]+", "-", f"{model}-{short_kind(kind)}".lower()).strip("-")
    if not text[:1].isalpha():
        text = f"m-{text}"
    if len(text) <= LONGEST_NAME - 4:
        return text
    return f"{text[: LONGEST_NAME - 11].rstrip('-')}-{_short_hash(text)}"


def weights_folder(model: str) -> str:
    """The folder of a model's weights: its name without slashes. One that looks like another's ends in a hash."""
    return model.replace("/", "--") + (f"-{_short_hash(model)}" if "--" in model else "")


def backend_name(model: str) -> str:
    """A model's name as HAProxy takes one. It stays the same when other models come and go."""
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", model)
    return f"model-{short}" if short == model else f"model-{short}-{_short_hash(model)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def pool_name(model: str, kind: str, engine: str, tensor_parallel_size: int, hosts: int) -> str:
    """Model, accelerator, engine and size of a replica, which spans ``hosts``, in one name."""
    stages = f"x{hosts}" if hosts > 1 else ""
    label = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-")
    return f"{label}-{short_kind(kind)}-{engine}-tp{tensor_parallel_size}{stages}"
