"""The BIOS profile for inference: each attribute with its reason and where Dell says so.

Few on purpose: what is here is changed on every host. Attributes that a model does not have are left out, as those of
Intel and AMD differ. ``bare_metal_bios`` adds to it, changes it, and takes away from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Attribute:
    """A BIOS attribute by its name in Dell's attribute registry."""

    name: str
    value: str
    reason: str
    source: str = ""


PROFILE = (
    Attribute(
        "SysProfile",
        "PerfOptimized",
        "processors and memory run at their highest frequency, without C states, so a request to an idle host does not"
        " wait for cores to wake up",
        "Dell Info Hub: BIOS Settings for Optimized Performance on Next-Generation Dell PowerEdge Servers, table 1",
    ),
    Attribute(
        "NodeInterleave",
        "Disabled",
        "Linux sees which memory, cores and GPUs belong together, and replicas on processors are bound to them",
        "Dell TechCenter: New BIOS Can Increase Linux Performance with 12th Generation PowerEdge Servers",
    ),
    Attribute(
        "BootMode",
        "Uefi",
        "the images of installers are started that way here, and Secure Boot is there in no other mode",
        "Dell: Boot Mode Considerations: BIOS vs. UEFI, 4.6",
    ),
)


def profile(changes: Mapping[str, Any]) -> tuple[Attribute, ...]:
    """The profile with the inventory's changes; an empty value takes an attribute out."""
    own = tuple(Attribute(name, str(value), "bare_metal_bios has it") for name, value in changes.items() if value)
    return (*(item for item in PROFILE if item.name not in changes), *own)


def differing(attributes: Mapping[str, Any], wanted: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Attributes that the host has and that have another value."""
    return tuple(item for item in wanted if item.name in attributes and str(attributes[item.name]) != item.value)
