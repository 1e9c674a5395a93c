"""Labels and annotations of a cell's objects."""

from __future__ import annotations

from ..common.names import LABEL, PART_OF, label_value
from ..plan.schema import Cell

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
