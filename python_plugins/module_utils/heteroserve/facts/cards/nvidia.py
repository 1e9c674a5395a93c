"""NVIDIA data centre GPUs.

Datasheets print peaks with sparsity where they can; here they are halved to dense. NVLink figures count both
directions; here one. PCI ids: pci.ids and the list of supported GPUs in the driver's README. ``memory`` is what
CUDA reports (nvidia-smi's total less its reserve) under drivers 535 to 580; a probe that reads it overrides it.
"""

from __future__ import annotations

from .card import GIB, GIGA, MIB, PCIE3, PCIE4, PCIE5, AcceleratorCard, peaks

AMPERE = peaks(bfloat16=312, float16=312, int8=624)
HOPPER = peaks(bfloat16=989.4, float16=989.4, fp8=1978.9, int8=1978.9)
HOPPER_NVL = peaks(bfloat16=835.5, float16=835.5, fp8=1671, int8=1671)


def _sxm(
    kind: str,
    name: str,
    sold: int,
    seen: int,
    rate: float,
    flops: dict[str, float],
    links: float,
    tdp: int,
    source: str,
    ids: tuple[str, ...],
    pcie: float,
) -> AcceleratorCard:
    """A module on a board with NVLink: ``sold`` GiB, ``seen`` MiB, ``rate`` GB/s, ``links`` GB/s one way."""
    return AcceleratorCard(
        kind, "nvidia", name, sold * GIB, seen * MIB, rate * GIGA, flops, "nvlink", links * GIGA, tdp, source, ids, pcie
    )


def _pcie(
    kind: str,
    name: str,
    sold: int,
    seen: int,
    rate: float,
    flops: dict[str, float],
    tdp: int,
    source: str,
    ids: tuple[str, ...],
    pcie: float = PCIE4,
    bridge: float | None = None,
    subsystems: dict[str, tuple[str, ...]] | None = None,
) -> AcceleratorCard:
    """A PCIe card; ``bridge`` is GB/s one way of its optional NVLink bridge."""
    return AcceleratorCard(
        kind=kind,
        vendor="nvidia",
        name=name,
        memory_sold=sold * GIB,
        memory=seen * MIB,
        bandwidth=rate * GIGA,
        flops=flops,
        link="pcie",
        link_bandwidth=pcie,
        tdp=tdp,
        source=source,
        pci_ids=ids,
        pcie_bandwidth=pcie,
        bridge="nvlink" if bridge else None,
        bridge_bandwidth=bridge * GIGA if bridge else None,
        subsystems=subsystems or {},
    )


A100 = "NVIDIA A100 Tensor Core GPU datasheet"
H100 = "NVIDIA H100 Tensor Core GPU datasheet"
H200 = "NVIDIA H200 Tensor Core GPU datasheet"
V100 = "NVIDIA V100 Tensor Core GPU datasheet"
VOLTA_SXM = peaks(float16=125)
VOLTA_PCIE = peaks(float16=112)
ADA_ID = ("10de:26b1",)

NVIDIA: tuple[AcceleratorCard, ...] = (
    _sxm("nvidia-v100-sxm-16gb", "Tesla V100-SXM2-16GB", 16, 16160, 900, VOLTA_SXM, 150, 300, V100,
         ("10de:1db1",), PCIE3),
    _sxm("nvidia-v100-sxm-32gb", "Tesla V100-SXM2-32GB", 32, 32501, 900, VOLTA_SXM, 150, 300, V100,
         ("10de:1db5",), PCIE3),
    _pcie("nvidia-v100-pcie-16gb", "Tesla V100-PCIE-16GB", 16, 16160, 900, VOLTA_PCIE, 250, V100,
          ("10de:1db4",), PCIE3),
    _pcie("nvidia-v100-pcie-32gb", "Tesla V100-PCIE-32GB", 32, 32501, 900, VOLTA_PCIE, 250, V100,
          ("10de:1db6",), PCIE3),
    _pcie("nvidia-v100s-pcie-32gb", "Tesla V100S-PCIE-32GB", 32, 32501, 1134, peaks(float16=130), 250, V100,
          ("10de:1df6",), PCIE3),
    _pcie("nvidia-t4-16gb", "Tesla T4", 16, 14912, 320, peaks(float16=65, int8=130), 70,
          "NVIDIA T4 Tensor Core GPU product brief", ("10de:1eb8",), PCIE3),
    _sxm("nvidia-a100-sxm-40gb", "NVIDIA A100-SXM4-40GB", 40, 40336, 1555, AMPERE, 300, 400, A100,
         ("10de:20b0",), PCIE4),
    _sxm("nvidia-a100-sxm-80gb", "NVIDIA A100-SXM4-80GB", 80, 81153, 2039, AMPERE, 300, 400, A100,
         ("10de:20b2",), PCIE4),
    _pcie("nvidia-a100-pcie-40gb", "NVIDIA A100-PCIE-40GB", 40, 40336, 1555, AMPERE, 250, A100,
          ("10de:20b1", "10de:20f1"), bridge=300),
    _pcie("nvidia-a100-pcie-80gb", "NVIDIA A100 80GB PCIe", 80, 81050, 1935, AMPERE, 300, A100,
          ("10de:20b5",), bridge=300),
    _pcie("nvidia-a30-24gb", "NVIDIA A30", 24, 24062, 933, peaks(bfloat16=165, float16=165, int8=330), 165,
          "NVIDIA A30 Tensor Core GPU datasheet", ("10de:20b7",), bridge=100),
    _pcie("nvidia-a10-24gb", "NVIDIA A10", 24, 22515, 600, peaks(bfloat16=125, float16=125, int8=250), 150,
          "NVIDIA A10 Tensor Core GPU datasheet", ("10de:2236",)),
    _pcie("nvidia-a40-48gb", "NVIDIA A40", 48, 45404, 696, peaks(bfloat16=149.7, float16=149.7, int8=299.3), 300,
          "NVIDIA A40 GPU datasheet", ("10de:2235",), bridge=56.25),
    # The A16 has the same id: only the subsystem tells them apart. The A2 has eight lanes.
    _pcie("nvidia-a2-16gb", "NVIDIA A2", 16, 14890, 200, peaks(bfloat16=18, float16=18, int8=36), 60,
          "NVIDIA A2 Tensor Core GPU datasheet", ("10de:25b6",), PCIE4 / 2,
          subsystems={"10de:25b6": ("10de:157e",)}),
    _pcie("nvidia-l4-24gb", "NVIDIA L4", 24, 22478, 300, peaks(bfloat16=121, float16=121, fp8=242.5, int8=242.5), 72,
          "NVIDIA L4 Tensor Core GPU datasheet", ("10de:27b8",)),
    _pcie("nvidia-l40-48gb", "NVIDIA L40", 48, 45457, 864,
          peaks(bfloat16=181.05, float16=181.05, fp8=362, int8=362), 300, "NVIDIA L40 GPU datasheet", ("10de:26b5",)),
    _pcie("nvidia-l40s-48gb", "NVIDIA L40S", 48, 45457, 864,
          peaks(bfloat16=362.05, float16=362.05, fp8=733, int8=733), 350, "NVIDIA L40S GPU datasheet",
          ("10de:26b9",)),
    _pcie("nvidia-rtx-6000-ada-48gb", "NVIDIA RTX 6000 Ada Generation", 48, 48517, 960,
          peaks(bfloat16=364.2, float16=364.2, fp8=728.5, int8=728.5), 300,
          "NVIDIA RTX 6000 Ada Generation datasheet", ADA_ID,
          subsystems={"10de:26b1": ("10de:16a1", "1028:16a1", "103c:16a1", "17aa:16a1")}),
    _sxm("nvidia-h100-sxm-80gb", "NVIDIA H100 80GB HBM3", 80, 81079, 3352, HOPPER, 450, 700, H100,
         ("10de:2330",), PCIE5),
    _pcie("nvidia-h100-pcie-80gb", "NVIDIA H100 PCIe", 80, 81079, 2039,
          peaks(bfloat16=756, float16=756, fp8=1513, int8=1513), 350, H100, ("10de:2331",), PCIE5, bridge=300),
    _pcie("nvidia-h100-nvl-94gb", "NVIDIA H100 NVL", 94, 95350, 3938, HOPPER_NVL, 400,
          "NVIDIA H100 NVL product brief", ("10de:2321",), PCIE5, bridge=300),
    _sxm("nvidia-h200-sxm-141gb", "NVIDIA H200", 141, 143156, 4800, HOPPER, 450, 700, H200, ("10de:2335",), PCIE5),
    _pcie("nvidia-h200-nvl-141gb", "NVIDIA H200 NVL", 141, 143156, 4800, HOPPER_NVL, 600, H200,
          ("10de:233b",), PCIE5, bridge=450),
    _sxm("nvidia-b200-sxm-180gb", "NVIDIA B200", 180, 182632, 8000,
         peaks(bfloat16=2250, float16=2250, fp8=4500, int8=4500), 900, 1000, "NVIDIA HGX B200 datasheet",
         ("10de:2901",), PCIE5),
    # A superchip's GPU and its Grace processor have memory of their own, joined by NVLink-C2C; four GB200 (NVL4) or 72
    # (NVL72) are joined by NVLink. The NVL72's figures are divided by 72, and halved where they are with sparsity.
    _sxm("nvidia-gb200-186gb", "NVIDIA GB200", 186, 188416, 8000,
         peaks(bfloat16=2500, float16=2500, fp8=5000, int8=5000), 900, 1200, "NVIDIA GB200 NVL72 datasheet",
         ("10de:2941",), PCIE5),
    _pcie("nvidia-gh200-96gb", "NVIDIA GH200 480GB", 96, 97280, 4000, HOPPER, 1000,
          "NVIDIA GH200 Grace Hopper Superchip datasheet", ("10de:2342",), PCIE5),
    _pcie("nvidia-gh200-144gb", "NVIDIA GH200 144G HBM3e", 144, 146432, 4900, HOPPER, 1000,
          "NVIDIA GH200 Grace Hopper Superchip datasheet", ("10de:2348",), PCIE5),
    # Its memory is the host's: nvidia-smi prints [N/A]. An eighth is left to the system. The datasheet has 1 PFLOP/s at
    # FP4 with sparsity: an eighth of that at bfloat16.
    _pcie("nvidia-gb10-128gb", "NVIDIA GB10", 128, 114688, 273, peaks(bfloat16=125, float16=125, fp8=250, int8=250),
          140, "NVIDIA DGX Spark datasheet", ("10de:2e12",), PCIE5),
    # Of GeForce cards: peaks with sums in 32 bit, as vLLM multiplies, without sparsity.
    _pcie("nvidia-rtx-3090-24gb", "NVIDIA GeForce RTX 3090", 24, 24124, 936,
          peaks(bfloat16=71, float16=71, int8=284), 350, "NVIDIA Ampere GA102 GPU Architecture whitepaper",
          ("10de:2204",), bridge=56.25),
    _pcie("nvidia-rtx-4090-24gb", "NVIDIA GeForce RTX 4090", 24, 24080, 1008,
          peaks(bfloat16=165.2, float16=165.2, fp8=330.3, int8=660.6), 450,
          "NVIDIA Ada GPU Architecture whitepaper", ("10de:2684",)),
    _pcie("nvidia-rtx-5090-32gb", "NVIDIA GeForce RTX 5090", 32, 32110, 1792,
          peaks(bfloat16=209.5, float16=209.5, fp8=419, int8=838), 575,
          "NVIDIA RTX Blackwell GPU Architecture whitepaper", ("10de:2b85",), PCIE5),
    _pcie("nvidia-rtx-pro-6000-96gb", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, 97249, 1792,
          peaks(bfloat16=503.8, float16=503.8, fp8=1007.6, int8=1007.6), 600,
          "NVIDIA RTX PRO 6000 Blackwell Workstation Edition datasheet", ("10de:2bb1",), PCIE5),
    _pcie("nvidia-rtx-pro-6000-max-q-96gb", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96, 97249, 1792,
          peaks(bfloat16=438.9, float16=438.9, fp8=877.9, int8=877.9), 300,
          "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition datasheet", ("10de:2bb4",), PCIE5),
    _pcie("nvidia-rtx-pro-6000-server-96gb", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 96, 97249, 1597,
          peaks(bfloat16=503.8, float16=503.8, fp8=1007.6, int8=1007.6), 600,
          "NVIDIA RTX PRO 6000 Blackwell Server Edition datasheet", ("10de:2bb5",), PCIE5),
)  # fmt: skip
