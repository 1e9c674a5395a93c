"""Names, labels and annotations of a cell's objects."""

from __future__ import annotations

import hashlib
import re

from ..cluster.k3s import LABEL, LABEL_VALUE
from ..plan.schema import Cell, PlannedModel

# KubeRay, ray-operator/controllers/ray/utils/constant.go: a RayCluster's name has 53 characters (63 of a DNS label less
# "-serve-svc"), a RayService's 6 less, for the hyphen and five letters that make it a RayCluster's.
LONGEST_NAME = 47

CELL = f"{LABEL}cell"
MODEL = f"{LABEL}model"  # a label that may be shortened, and an annotation with the whole name
DIGEST = f"{LABEL}digest"  # of the cell in the plan
SPEC = f"{LABEL}spec"  # of all that a restart of the cell would carry out: plan, image, Ray's version, settings
TAKES = f"{LABEL}takes"  # what the cell takes of each host, as JSON
PART_OF = {"app.kubernetes.io/part-of": "heteroserve", "app.kubernetes.io/managed-by": "heteroserve"}

TOKEN_KEY = "auth_token"  # of the token's Secret, as KubeRay reads it
ACCOUNT = "cell"
PRIORITY = "heteroserve-serving"


def label_value(text: str) -> str:
    """A name as a label takes it; one that had to be changed ends in a hash, so that two models stay two."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    if short == text and len(text) <= LABEL_VALUE:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{short[: LABEL_VALUE - 7].strip('-._')}-{digest}".lstrip("-")


def labels(cell: Cell) -> dict[str, str]:
    """Labels of all that belongs to the cell."""
    return {**PART_OF, CELL: cell.name, MODEL: label_value(cell.model)}


def weights_path(models_path: str, model: PlannedModel) -> str:
    """Where model_store puts the weights on a host, and where a pod finds them."""
    return f"{models_path.rstrip('/')}/{model.folder}"


def weights_claim(cell: Cell, path: str) -> str:
    """Volume and claim of a cell's weights. Another path or host is another volume: a volume's own cannot change."""
    digest = hashlib.sha256("\n".join([path, *cell.hosts]).encode()).hexdigest()[:6]
    return f"{cell.name}-{digest}"
