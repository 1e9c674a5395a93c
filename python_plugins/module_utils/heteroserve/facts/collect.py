"""All probes of a host at once, each in a thread of its own, joined into one ``Hardware``.

The slowest probe sets the time. A probe that fails, or that is not back when the deadline has passed, leaves its
facts empty and a problem that says so: the host itself never fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..common.machine import Machine
from .allowance import Allowance, probe_allowance
from .cpu import cpu_from, parse_cpuinfo, probe_cpu, probe_numa
from .findings import Findings
from .gpus import AcceleratorFacts, probe_accelerators
from .hardware import Cpu, Disk, Hardware, Problem
from .memory import MemoryFacts, probe_memory
from .network import NetworkFacts, probe_network
from .platform import PlatformFacts, probe_platform
from .storage import probe_disk

T = TypeVar("T")
COMMANDS_IN_A_ROW = 4  # that one probe may run one after the other, each with its time-out


@dataclass
class _Job:
    """One probe under way."""

    name: str
    thread: threading.Thread
    result: list[Findings[Any]]
    fault: list[str]


def collect(machine: Machine, model_path: str = "/", cluster_addresses: tuple[str, ...] = ()) -> Hardware:
    """Everything that can be known of ``machine``. Does not raise for anything that the host does."""
    deadline = time.monotonic() + COMMANDS_IN_A_ROW * machine.timeout
    limits = _join(_start("allowance", lambda: Findings(probe_allowance(machine))), deadline, Allowance())
    allowance = limits.value
    cpu = _join(_start("cpu", lambda: probe_cpu(machine, allowance)), deadline, parse_cpuinfo(""))
    identity = cpu.value
    jobs = (
        _start("memory", lambda: probe_memory(machine, identity, allowance)),
        _start("accelerators", lambda: probe_accelerators(machine)),
        _start("network", lambda: probe_network(machine, cluster_addresses)),
        _start("disk", lambda: probe_disk(machine, model_path)),
        _start("platform", lambda: probe_platform(machine, identity.hypervisor)),
    )
    memory = _join(jobs[0], deadline, MemoryFacts())
    gpus = _join(jobs[1], deadline, AcceleratorFacts())
    network = _join(jobs[2], deadline, NetworkFacts())
    disks: Findings[tuple[Disk, ...]] = _join(jobs[3], deadline, ())
    platform = _join(jobs[4], deadline, PlatformFacts())
    findings: tuple[Findings[Any], ...] = (limits, cpu, memory, gpus, network, disks, platform)
    problems = [problem for part in findings for problem in part.problems]
    return Hardware(
        cpu=_with_memory(cpu_from(identity, probe_numa(machine, allowance), allowance.quota), memory.value),
        memory=memory.value.total,
        memory_available=memory.value.available,
        accelerators=gpus.value.accelerators,
        nics=network.value.nics,
        disks=disks.value,
        address=network.value.address,
        driver_versions=gpus.value.drivers or {},
        problems=(*problems, *_secure_boot(platform.value, problems)),
        sources={key: text for part in findings for key, text in part.sources.items()},
        **vars(platform.value),
    )


def _with_memory(cpu: Cpu, memory: MemoryFacts) -> Cpu:
    return replace(cpu, memory_channels=memory.channels, memory_mts=memory.mts, memory_bandwidth=memory.bandwidth)


def _secure_boot(platform: PlatformFacts, problems: list[Problem]) -> tuple[Problem, ...]:
    """Secure Boot matters where a driver still has to be loaded."""
    waiting = {problem.code for problem in problems} & {"no-driver", "driver-not-loaded", "driver-mismatch"}
    if not platform.secure_boot or not waiting:
        return ()
    text = "Secure Boot is on: the kernel refuses a driver module whose key is not enrolled"
    fix = "use the distribution's signed modules, enroll the module's key (mokutil --import), or turn Secure Boot off"
    return (Problem("secure-boot", text, fix),)


def _start(name: str, probe: Callable[[], Findings[T]]) -> _Job:
    result: list[Findings[Any]] = []
    fault: list[str] = []

    def work() -> None:
        try:
            result.append(probe())
        except Exception as error:  # a broken probe must not take the others with it
            fault.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return _Job(name, thread, result, fault)


def _join(job: _Job, deadline: float, empty: T) -> Findings[T]:
    job.thread.join(max(0.0, deadline - time.monotonic()))
    if job.result:
        return job.result[0]
    if job.fault:
        problem = Problem("probe-failed", f"the probe of {job.name} failed: {job.fault[0]}", "report it as a defect")
    else:
        problem = Problem("probe-timeout", f"the probe of {job.name} did not end in time", "raise `timeout`")
    return Findings(empty, (problem,))
