"""Labels that HeteroServe writes on nodes and on its own objects."""

from __future__ import annotations

import hashlib
import re

LABEL = "heteroserve.io/"
LABEL_VALUE = 63  # characters that Kubernetes takes
# An annotation: digest of all that a restart of the cell would carry out (plan, image, Ray's version, settings).
SPEC = f"{LABEL}spec"
PART_OF = {"app.kubernetes.io/part-of": "heteroserve", "app.kubernetes.io/managed-by": "heteroserve"}


def label_value(text: str) -> str:
    """A name as a label takes it; one that had to be changed ends in a hash, so that two models stay two."""
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    if short == text and len(text) <= LABEL_VALUE:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{short[: LABEL_VALUE - 7].strip('-._')}-{digest}".lstrip("-")
