"""One host or several: processors, memory, GPUs of every vendor, power, network and disks."""

from __future__ import annotations

from ..panels import BAD, GOOD, Bars, Choice, Page, Panel, Query, Section
from ..queries import GPU_POWER, RATE, SERVER_POWER

HOST = 'host=~"$host"'
DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs|devtmpfs|nsfs|fuse.*", mountpoint!~"/(run|var/lib/kubelet)/.*"'
WIRES = 'device!~"lo|veth.*|cni.*|flannel.*|docker.*|podman.*|br-.*|tun.*"'
IDLE = 'mode=~"idle|iowait"'
CORES = 'mode="idle"'
GPU = "{{host}} GPU {{gpu}}{{gpu_id}}"


def node(name: str, where: str = "") -> str:
    """A figure of node_exporter."""
    return f'node_{name}{{job="node", {HOST}{", " + where if where else ""}}}'


def gpu(names: str) -> str:
    """A figure of GPUs, by the names that vendors give it."""
    return f'{{__name__=~"{names}", {HOST}}}' if "|" in names else f"{names}{{{HOST}}}"


def rate(of: str) -> str:
    """A counter, a second."""
    return f"rate({of}[{RATE}])"


PAGE = Page(
    name="host",
    title="Host",
    about="Processors, memory, GPUs of every vendor, power, network and disks of one host or several.",
    choices=(Choice("host", 'label_values(up{job=~"node|dcgm|amd|power"}, host)'),),
    sections=(
        Section(
            "Processors and memory",
            (
                Panel(
                    "Processors",
                    "Share of all cores that is busy.",
                    (
                        Query(
                            f"1 - sum by (host) (avg by (host, mode) ({rate(node('cpu_seconds_total', IDLE))}))",
                            "{{host}}",
                        ),
                    ),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Memory",
                    "Share of RAM that is not available to programs. Pages that can be dropped count as available.",
                    (Query(f"1 - {node('memory_MemAvailable_bytes')} / {node('memory_MemTotal_bytes')}", "{{host}}"),),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Load for each core",
                    "Processes that run or want to, for each core. Above 1 they wait for each other.",
                    (
                        Query(
                            f"{node('load1')} / on (host) count by (host) ({node('cpu_seconds_total', CORES)})",
                            "{{host}}",
                        ),
                    ),
                ),
            ),
        ),
        Section(
            "GPUs",
            (
                Panel(
                    "GPU use",
                    "Share of time in which the GPU computed something (NVIDIA: GPU_UTIL, AMD: gfx activity).",
                    (Query(gpu("DCGM_FI_DEV_GPU_UTIL|gpu_gfx_activity"), GPU),),
                    unit="percent",
                    high=100,
                ),
                Panel(
                    "GPU memory",
                    "Used share of each GPU's memory. vLLM takes all that the plan gives it when it starts.",
                    (
                        Query(
                            f"{gpu('DCGM_FI_DEV_FB_USED')} / ignoring (__name__)"
                            f" ({gpu('DCGM_FI_DEV_FB_USED')} + ignoring (__name__) {gpu('DCGM_FI_DEV_FB_FREE')})",
                            GPU,
                        ),
                        Query(f"{gpu('gpu_used_vram')} / ignoring (__name__) {gpu('gpu_total_vram')}", GPU),
                    ),
                    unit="percentunit",
                    high=1,
                ),
                Panel(
                    "Memory interface",
                    "Share of time in which the GPU's memory was read or written: what limits decoding.",
                    (
                        Query(f"{gpu('DCGM_FI_PROF_DRAM_ACTIVE')} * 100", GPU),
                        Query(gpu("gpu_umc_activity"), GPU),
                    ),
                    unit="percent",
                    high=100,
                ),
                Panel(
                    "GPU temperature",
                    "The GPU's own (AMD: junction or edge) and its memory's.",
                    (
                        Query(gpu("DCGM_FI_DEV_GPU_TEMP|gpu_junction_temperature|gpu_edge_temperature"), GPU),
                        Query(gpu("DCGM_FI_DEV_MEMORY_TEMP|gpu_memory_temperature"), GPU + " memory"),
                    ),
                    unit="celsius",
                ),
                Panel(
                    "Clocks",
                    "Clock of the cores. One that falls under load is throttled.",
                    (Query(f"{gpu('DCGM_FI_DEV_SM_CLOCK|gpu_clock')} * 1e6", GPU),),
                    unit="hertz",
                ),
                Panel(
                    "Throttled",
                    "1 where power or heat slows the GPU down. AMD reports it for MI3xx only.",
                    (
                        Query(f"{rate(gpu('DCGM_FI_DEV_POWER_VIOLATION'))} > bool 0", GPU + " power"),
                        Query(f"{rate(gpu('DCGM_FI_DEV_THERMAL_VIOLATION'))} > bool 0", GPU + " heat"),
                        Query(f"{gpu('gpu_violation_ppt_residency_percentage')} > bool 0", GPU + " power"),
                        Query(f"{gpu('gpu_violation_socket_thermal_residency_percentage')} > bool 0", GPU + " heat"),
                    ),
                    high=1,
                ),
            ),
        ),
        Section(
            "Faults of GPUs",
            (
                Bars(
                    "Last XID",
                    "NVIDIA's code of the last fault, 0 for none; docs/alerts.md says which mean a broken GPU.",
                    (Query(gpu("DCGM_FI_DEV_XID_ERRORS"), GPU),),
                    steps=((GOOD, None), (BAD, 1)),
                    empty="no NVIDIA GPU",
                ),
                Bars(
                    "Errors that ECC could not correct",
                    "Since the driver was loaded (NVIDIA) or in all (AMD). Not zero: the GPU needs a reset at least.",
                    (Query(gpu("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL|gpu_ecc_uncorrect_total"), GPU),),
                    steps=((GOOD, None), (BAD, 1)),
                    empty="no GPU",
                ),
                Bars(
                    "Remapped rows",
                    "Rows of memory that were replaced after errors which ECC could not correct (NVIDIA).",
                    (Query(gpu("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"), GPU),),
                    steps=((GOOD, None), (BAD, 1)),
                    empty="no NVIDIA GPU",
                    width=4,
                ),
                Bars(
                    "Health",
                    "AMD's verdict on each GPU: 1 is healthy.",
                    (Query(gpu("gpu_health"), GPU),),
                    high=1,
                    steps=((BAD, None), (GOOD, 1)),
                    empty="no AMD GPU",
                    width=4,
                ),
            ),
        ),
        Section(
            "Power and temperature",
            (
                Panel(
                    "Server power",
                    "What the whole server draws, as its iDRAC says.",
                    (Query(f"max by (host) ({SERVER_POWER}{{{HOST}}})", "{{host}}"),),
                    unit="watt",
                ),
                Panel("GPU power", "What each GPU draws.", (Query(gpu(GPU_POWER), GPU),), unit="watt"),
                Panel(
                    "Inlet and exhaust",
                    "Temperature of the air before and behind the server, as its iDRAC says.",
                    (Query(f"idrac_sensors_temperature{{{HOST}}}", "{{host}} {{name}}"),),
                    unit="celsius",
                ),
            ),
        ),
        Section(
            "Network and disks",
            (
                Panel(
                    "Network in",
                    "Bits a second that each interface received.",
                    (Query(f"{rate(node('network_receive_bytes_total', WIRES))} * 8", "{{host}} {{device}}"),),
                    unit="bps",
                ),
                Panel(
                    "Network out",
                    "Bits a second that each interface sent.",
                    (Query(f"{rate(node('network_transmit_bytes_total', WIRES))} * 8", "{{host}} {{device}}"),),
                    unit="bps",
                ),
                Panel(
                    "Disk traffic",
                    "Bytes a second that were read and written.",
                    (
                        Query(f"sum by (host) ({rate(node('disk_read_bytes_total'))})", "{{host}} read"),
                        Query(f"sum by (host) ({rate(node('disk_written_bytes_total'))})", "{{host}} written"),
                    ),
                    unit="Bps",
                ),
                Bars(
                    "Disk space",
                    "Used share of each file system; above 85 % the kubelet begins to remove images.",
                    (
                        Query(
                            f"1 - {node('filesystem_avail_bytes', DISKS)} / {node('filesystem_size_bytes', DISKS)}",
                            "{{host}} {{mountpoint}}",
                        ),
                    ),
                    unit="percentunit",
                    high=1,
                    width=24,
                    height=6,
                    steps=((GOOD, None), ("orange", 0.75), (BAD, 0.85)),
                ),
            ),
        ),
    ),
)
