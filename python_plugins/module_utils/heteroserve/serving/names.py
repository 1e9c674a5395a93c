"""Names, labels and annotations of a cell's objects."""

from __future__ import annotations

import hashlib

from ..cluster.labels import LABEL, PART_OF, label_value
from ..plan.schema import Cell

# KubeRay, ray-operator/controllers/ray/utils/constant.go: a RayCluster's name has 53 characters (63 of a DNS label less
# "-serve-svc"), a RayService's 6 less, for the hyphen and five letters that make it a RayCluster's.
LONGEST_NAME = 47

CELL = f"{LABEL}cell"
MODEL = f"{LABEL}model"  # a label that may be shortened, and an annotation with the whole name
DIGEST = f"{LABEL}digest"  # of the cell in the plan
TAKES = f"{LABEL}takes"  # what the cell takes of each host, as JSON

TOKEN_KEY = "auth_token"  # of the token's Secret, as KubeRay reads it
ACCOUNT = "cell"
PRIORITY = "heteroserve-serving"


def labels(cell: Cell) -> dict[str, str]:
    """Labels of all that belongs to the cell."""
    return {**PART_OF, CELL: cell.name, MODEL: label_value(cell.model)}


def weights_claim(cell: Cell, path: str) -> str:
    """Volume and claim of a cell's weights. Another path or host is another volume: a volume's own cannot change."""
    digest = hashlib.sha256("\n".join([path, *cell.hosts]).encode()).hexdigest()[:6]
    return f"{cell.name}-{digest}"
