"""Names and labels made from models, accelerators, hosts and cells, as pure functions. Imports nothing of HeteroServe.

A name that has to be changed or cut to fit ends in a hash of the whole, so that two models stay two. The exception is
the name of a cell, which people read: models whose cells would be called alike are refused (``cell_prefix``).
"""

from __future__ import annotations

import hashlib
import re

LABEL = "heteroserve.io/"
LABEL_VALUE = 63  # characters that Kubernetes takes, also of a label's name
VENDOR_LABEL = f"{LABEL}accelerator-vendor"
# An annotation: digest of all that a restart of the cell would carry out (plan, image, Ray's version, settings).
SPEC = f"{LABEL}spec"
PART_OF = {"app.kubernetes.io/part-of": "heteroserve", "app.kubernetes.io/managed-by": "heteroserve"}
# KubeRay, ray-operator/controllers/ray/utils/constant.go: a RayCluster's name has 53 characters (63 of a DNS label less
# "-serve-svc"), a RayService's 6 less, for the hyphen and five letters that make it a RayCluster's.
LONGEST_NAME = 47
# A node's name becomes its label kubernetes.io/hostname, so it has no more characters than a label's value.
NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def digest(text: str) -> str:
    """Six characters that tell a text from others."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def cut(text: str, longest: int, whole: str) -> str:
    """The text in at most ``longest`` characters, with a hash of ``whole`` at its end."""
    return f"{text[: longest - 7].strip('-._')}-{digest(whole)}".lstrip("-")


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which host9 comes before host10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def label_value(text: str, longest: int = LABEL_VALUE) -> str:
    """A name as a label's value, or the name of a label, takes it."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return text if short == text and len(text) <= longest else cut(short, longest, text)


def model_label(model: str) -> str:
    """The label of a node that carries a model."""
    return f"{LABEL}model-{label_value(model, LABEL_VALUE - len('model-'))}"


def object_name(model: str) -> str:
    """A model as the name of a Kubernetes object; case and dots are lost, so it always has the hash."""
    return cut(re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-"), 57, model)


def weights_folder(model: str) -> str:
    """The folder of a model's weights: its name without slashes. One that looks like another's ends in a hash."""
    return model.replace("/", "--") + (f"-{digest(model)}" if "--" in model else "")


def backend_name(model: str) -> str:
    """A model's name as HAProxy takes one. It stays the same when other models come and go."""
    short = re.sub(r"[^A-Za-z0-9_.-]+", "-", model)
    return f"model-{short}" if short == model else f"model-{short}-{digest(model)}"


def volume_name(cell: str, hosts: tuple[str, ...], path: str) -> str:
    """Volume and claim of a folder that a cell uses. Another path or host is another volume: they cannot change."""
    return f"{cell}-" + digest("\n".join([path, *hosts]))


def short_kind(kind: str) -> str:
    """An accelerator in a cell's name: "nvidia-h100-sxm-80gb" is "h100-sxm-80gb"."""
    vendor, _, rest = kind.partition("-")
    return rest if rest and vendor in ("nvidia", "amd", "intel", "habana") else kind


def cell_prefix(model: str, kind: str) -> str:
    """Model and accelerator as a DNS label that begins with a letter, as the name of a Kubernetes Service has to."""
    text = re.sub(r"[^a-z0-9]+", "-", f"{model}-{short_kind(kind)}".lower()).strip("-")
    if not text[:1].isalpha():
        text = f"m-{text}"
    return text if len(text) <= LONGEST_NAME - 4 else cut(text, LONGEST_NAME - 4, text)


def pool_name(model: str, kind: str, engine: str, tensor_parallel_size: int, hosts: int) -> str:
    """Model, accelerator, engine and size of a replica, which spans ``hosts``, in one name."""
    stages = f"x{hosts}" if hosts > 1 else ""
    label = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-")
    return f"{label}-{short_kind(kind)}-{engine}-tp{tensor_parallel_size}{stages}"


def node_name_fault(host: str) -> str | None:
    """What of a host's name Kubernetes would not take as a node's, for K3s is given it as it is; None if it would."""
    if len(host) > LABEL_VALUE:
        return f"the name has {len(host)} characters and a Kubernetes node's {LABEL_VALUE} at most"
    if not NODE_NAME.fullmatch(host):
        return "a Kubernetes node's name has lower case letters, digits, hyphens and dots only"
    return None
