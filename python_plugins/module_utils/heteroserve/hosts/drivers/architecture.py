"""Which of NVIDIA's kernel modules, and which driver branches, a GPU can be driven by.

The open module needs the GSP processor that came with Turing; the proprietary one ends before Blackwell and Grace.
Sources: "Kernel Modules" of NVIDIA's Driver Installation Guide (Maxwell to Volta: proprietary; Turing and newer: open
is the recommended one), the appendix "Supported NVIDIA GPU products" of the driver's README, and NVIDIA's note that
Grace Hopper and Blackwell need the open module. Branch 580 is the last one for Maxwell, Pascal and Volta.
"""

from __future__ import annotations

from dataclasses import dataclass

from .host import Gpu


@dataclass(frozen=True)
class Architecture:
    """A GPU generation: its device ids (first and last, per pci.ids) and what drives it."""

    name: str
    ids: tuple[tuple[int, int], ...]
    modules: tuple[str, ...]  # the recommended one first
    first: int  # driver branch
    last: int | None = None


PROPRIETARY, OPEN, BOTH = ("proprietary",), ("open",), ("open", "proprietary")
ARCHITECTURES = (
    Architecture("Kepler", ((0x0FC0, 0x12FF),), PROPRIETARY, 304, 470),
    Architecture("Maxwell", ((0x1340, 0x15EF), (0x1600, 0x17FF)), PROPRIETARY, 340, 580),
    Architecture("Pascal", ((0x15F0, 0x15FF), (0x1B00, 0x1D7F)), PROPRIETARY, 367, 580),
    Architecture("Volta", ((0x1D80, 0x1DFF),), PROPRIETARY, 384, 580),
    Architecture("Turing", ((0x1E00, 0x1FFF), (0x2180, 0x21FF)), BOTH, 410),
    Architecture("Ampere", ((0x2080, 0x20FF), (0x2200, 0x22FF), (0x2400, 0x25FF)), BOTH, 450),
    Architecture("Grace Hopper", ((0x2342, 0x2342), (0x2348, 0x2348)), OPEN, 535),
    Architecture("Hopper", ((0x2300, 0x23FF),), BOTH, 525),
    Architecture("Ada Lovelace", ((0x2600, 0x28FF),), BOTH, 525),
    Architecture("Blackwell", ((0x2900, 0x2FFF),), OPEN, 570),
    Architecture("Blackwell Ultra", ((0x3100, 0x32FF),), OPEN, 580),
)
# A device id that no range has is newer than this table, and what is new has the open module alone.
UNKNOWN = Architecture("unknown", (), OPEN, 580)


def architecture_of(gpu: Gpu) -> Architecture:
    """The generation by device id; the first range that has it counts."""
    device = int(gpu.pci_id.split(":")[1], 16) if gpu.pci_id else -1
    found = (item for item in ARCHITECTURES if any(low <= device <= high for low, high in item.ids))
    return next(found, UNKNOWN)


def choose_modules(gpus: tuple[Gpu, ...], branch: int, asked: str) -> tuple[str, str]:
    """The kernel modules ("open" or "proprietary") that drive all ``gpus``, and why.

    Raises ``ValueError`` with a sentence where no module does, or where the branch is not for a GPU.
    """
    kinds = {gpu.kind: architecture_of(gpu) for gpu in gpus}
    for kind, item in kinds.items():
        if branch < item.first:
            raise ValueError(
                f"{kind} ({item.name}) needs driver branch {item.first} or newer and nvidia_driver_branch is {branch}:"
                f" set it to {max(item.first, 580)}"
            )
        if item.last is not None and branch > item.last:
            raise ValueError(
                f"{kind} ({item.name}) is driven by branches up to {item.last} and nvidia_driver_branch is {branch}:"
                f" set it to {item.last} on this host"
            )
    possible = [name for name in BOTH if all(name in item.modules for item in kinds.values())]
    needs = ", ".join(f"{kind} ({item.name}) needs the {item.modules[0]} one" for kind, item in kinds.items())
    if not possible:
        raise ValueError(f"one kernel module cannot drive all GPUs of this host: {needs}; take one kind out")
    if asked == "auto":
        only = len(possible) == 1
        return possible[0], f"{needs}" if only else "the open kernel modules are NVIDIA's choice since Turing"
    if asked not in possible:
        raise ValueError(f"nvidia_driver_kernel_modules is {asked} and {needs}: set it to auto")
    return asked, f"nvidia_driver_kernel_modules is {asked}"


def is_blackwell(gpus: tuple[Gpu, ...]) -> bool:
    """Whether the GPUs' switches are of the fourth generation, which NVLink's subnet manager runs."""
    return any(architecture_of(gpu).name.startswith("Blackwell") for gpu in gpus)
