"""Device plugins of GPUs: resources that they offer, and values of their charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..common.names import VENDOR_LABEL
from .charts import merged

RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}


@dataclass(frozen=True)
class Sharing:
    """How NVIDIA GPUs are handed out: by instances (MIG), and to how many pods at once (time slicing; 0 is off)."""

    mig_strategy: str = "none"  # "none" | "single" | "mixed"
    time_slicing: int = 0


def vendor_of(resource: str) -> str:
    """ "nvidia" for nvidia.com/gpu and nvidia.com/mig-1g.10gb."""
    return resource.partition(".")[0]


def values_of(vendor: str, sharing: Sharing, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the vendor's chart; ``extra`` are the user's, which win."""
    if vendor == "amd":
        # The chart's own selector asks for a label of Node Feature Discovery, which is not installed here.
        selector = {"feature.node.kubernetes.io/pci-0300_1002.present": None, VENDOR_LABEL: "amd"}
        return merged({"node_selector_enabled": True, "node_selector": selector}, extra)
    term = {"matchExpressions": [{"key": VENDOR_LABEL, "operator": "In", "values": ["nvidia"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    values: dict[str, Any] = {
        "runtimeClassName": "nvidia",
        "migStrategy": sharing.mig_strategy,
        "affinity": {"nodeAffinity": required},
    }
    if sharing.time_slicing:
        share = {"resources": [{"name": RESOURCES["nvidia"], "replicas": sharing.time_slicing}]}
        config = {"version": "v1", "flags": {"migStrategy": sharing.mig_strategy}, "sharing": {"timeSlicing": share}}
        values["config"] = {"map": {"default": _yaml(config)}, "default": "default"}
    return merged(values, extra)


def _yaml(value: Any, indent: str = "") -> str:
    """Mappings, lists of mappings, numbers and words without special characters, as YAML in block style."""
    lines = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines.append(f"{indent}{key}:\n{_yaml(item, indent + '  ')}")
        elif isinstance(item, list):
            entries = [_yaml(entry, f"{indent}    ").replace(f"{indent}    ", f"{indent}  - ", 1) for entry in item]
            lines.append(f"{indent}{key}:\n{''.join(entries)}")
        else:
            lines.append(f"{indent}{key}: {item}\n")
    return "".join(lines)
