"""GPUs as Kubernetes should count them, and why a count is not what the facts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..common.names import VENDOR_LABEL
from ..facts.hardware import Accelerator
from .gpu_plugins import RESOURCES, Sharing, vendor_of

MIG_PREFIX = "nvidia.com/mig-"
STRATEGY = "gpu_device_plugin_mig_strategy"
SLICING = "gpu_device_plugin_time_slicing"


@dataclass(frozen=True)
class Expected:
    """What one host should offer: devices by resource name, or why its settings cannot work."""

    resources: dict[str, int] = field(default_factory=dict)
    fault: str = ""

    @property
    def vendors(self) -> tuple[str, ...]:
        """Vendors whose plugin the host needs."""
        return tuple(vendor for vendor in RESOURCES if any(vendor_of(name) == vendor for name in self.resources))


def countable(item: Accelerator) -> bool:
    """Whether the vendor's plugin will offer a device, once its driver runs.

    A device without a driver, or with one that cannot compute (nouveau), is counted: the stage hosts gives it one. Not
    counted are what is passed through to a virtual machine, and what its own driver cannot use (lost, mismatched).
    """
    if item.usable:
        return True
    driver = (item.driver or "").split(" ")[0]
    return driver != "vfio-pci" and driver not in ("nvidia", "amdgpu")


def expected(host: str, accelerators: Sequence[Accelerator], sharing: Sharing) -> Expected:
    """The count of each resource that ``host`` should offer."""
    nvidia = _nvidia(host, [item for item in accelerators if item.vendor == "nvidia"], sharing)
    if nvidia.fault:
        return nvidia
    amd = [item for item in accelerators if item.vendor == "amd"]
    resources = dict(nvidia.resources)
    if amd:
        # Partitions of an Instinct are devices of their own, and the plugin counts them like whole ones.
        resources[RESOURCES["amd"]] = sum(1 for item in amd if countable(item))
    return Expected({name: count for name, count in resources.items() if count})


def _nvidia(host: str, items: Sequence[Accelerator], sharing: Sharing) -> Expected:
    parts = [item for item in items if (item.partition or "").startswith("mig-")]
    split = {item.pci_address for item in parts}
    whole = [item for item in items if item not in parts and item.pci_address not in split and countable(item)]
    profiles = Counter(str(item.partition) for item in parts)
    named = ", ".join(f"{count} {profile}" for profile, count in sorted(profiles.items()))
    if parts and sharing.mig_strategy == "none":
        return Expected(
            fault=f"{host} has MIG instances ({named}), and without a MIG strategy Kubernetes hands out whole GPUs:"
            f" set {STRATEGY} to {'single' if len(profiles) == 1 and not whole else 'mixed'}, or turn MIG off"
        )
    if parts and sharing.mig_strategy == "single" and (whole or len(profiles) > 1):
        also = f" and {_many(len(whole), 'GPU')} without MIG" if whole else ""
        return Expected(
            fault=f"{host} has {named}{also}, and {STRATEGY}: single takes hosts whose GPUs all have the same"
            " instances: set it to mixed"
        )
    times = sharing.time_slicing or 1
    if sharing.mig_strategy == "mixed":
        counts = {f"nvidia.com/{profile}": count for profile, count in profiles.items()}
        return Expected({RESOURCES["nvidia"]: len(whole) * times, **counts})
    return Expected({RESOURCES["nvidia"]: (len(whole) + len(parts)) * times} if items else {})


def shortage(host: str, accelerators: Sequence[Accelerator], needed: Mapping[str, int]) -> str:
    """A sentence if the plan gives models more devices of ``host`` than it has now; ``needed`` counts by vendor."""
    for vendor, count in needed.items():
        own = [item for item in accelerators if item.vendor == vendor]
        parents = {item.pci_address for item in own if item.partition}
        usable = sum(1 for item in own if countable(item))
        if count <= usable:
            continue
        lost = Counter(
            item.why_not for item in own if not countable(item) and (item.partition or item.pci_address not in parents)
        )
        why = "; ".join(f"{number}: {text}" for text, number in lost.items())
        return (
            f"{host}: the plan gives {count} of its {vendor.upper()} GPUs to models and {usable} can be used"
            f"{f' ({why})' if why else ''}: repair the host or re-plan"
        )
    return ""


@dataclass(frozen=True)
class HostState:
    """What the host itself shows: drivers that run, and how K3s finds NVIDIA's container runtime."""

    drivers: dict[str, bool] = field(default_factory=dict)
    runtime_path: str = ""  # of nvidia-container-runtime where K3s looks for it
    runtime_configured: bool = False  # K3s's containerd has the runtime nvidia


@dataclass(frozen=True)
class PodState:
    """The plugin's pod on a node."""

    name: str
    phase: str = "Running"
    ready: bool = True
    waiting: str = ""  # reason and message of the container that waits
    ended: str = ""  # how it ended last
    event: str = ""  # the last warning
    log: str = ""  # its last line


@dataclass(frozen=True)
class NodeState:
    """A node as the API shows it."""

    ready: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    capacity: dict[str, int] = field(default_factory=dict)
    allocatable: dict[str, int] = field(default_factory=dict)
    pods: dict[str, PodState] = field(default_factory=dict)  # by vendor


@dataclass(frozen=True)
class Difference:
    """Why a count is wrong; ``final`` if waiting does not help."""

    text: str
    final: bool = False


def differences(
    host: str, want: Expected, node: NodeState | None, state: HostState, sharing: Sharing
) -> list[Difference]:
    """One for each resource whose count is not the expected one."""
    if node is None:
        if not want.resources:
            return []
        return [
            Difference(
                f"{host}: is not a node of the cluster, so its GPUs are not counted: run the stage cluster", True
            )
        ]
    others = [name for name, count in node.allocatable.items() if vendor_of(name) in RESOURCES and count]
    found: list[Difference] = []
    named: set[str] = set()
    for name in dict.fromkeys([*want.resources, *sorted(others)]):
        count, wanted = node.allocatable.get(name, 0), want.resources.get(name, 0)
        # What is there too much is said once for a vendor: its reason is that of what is missing.
        if count == wanted or (not wanted and vendor_of(name) in named):
            continue
        named.add(vendor_of(name))
        difference = _reason(name, wanted, count, want, node, state, sharing)
        said = f"{host}: Kubernetes counts {count} {name}, the facts say {wanted}: {difference.text}"
        found.append(Difference(said, difference.final))
    return found


def _reason(
    name: str, wanted: int, count: int, want: Expected, node: NodeState, state: HostState, sharing: Sharing
) -> Difference:
    vendor = vendor_of(name)
    pod = node.pods.get(vendor)
    if not node.ready:
        return Difference("the node is not Ready, see `journalctl -u k3s-agent` on it")
    return (
        (_host_reason(vendor, state) if wanted else None)
        or (_pod_reason(vendor, pod, node) if wanted else None)
        or _count_reason(name, wanted, count, want, node, sharing)
        or Difference(f"the plugin's pod runs{_said(pod)}")
    )


def _host_reason(vendor: str, state: HostState) -> Difference | None:
    if not state.drivers.get(vendor):
        sign = {"nvidia": "/proc/driver/nvidia/version", "amd": "/dev/kfd"}[vendor]
        return Difference(
            f"the driver is not loaded (no {sign}): run the stage hosts, and look at `dmesg` if it did its part", True
        )
    if vendor == "nvidia" and not state.runtime_path:
        return Difference(
            "K3s does not find nvidia-container-runtime (looked in PATH and /usr/local/nvidia/toolkit): install"
            " NVIDIA's container toolkit, as the stage hosts does, and restart K3s on the host",
            True,
        )
    if vendor == "nvidia" and not state.runtime_configured:
        return Difference(
            f"K3s's containerd has no runtime nvidia although {state.runtime_path} is there: it was installed after K3s"
            " had started; restart K3s on the host",
            True,
        )
    return None


def _pod_reason(vendor: str, pod: PodState | None, node: NodeState) -> Difference | None:
    label = node.labels.get(VENDOR_LABEL)
    if label != vendor:
        has = f"has {VENDOR_LABEL}={label}" if label else f"has no label {VENDOR_LABEL}"
        return Difference(
            f"the node {has}, so no plugin is placed on it: run the stage cluster, which sets {VENDOR_LABEL}={vendor}",
            True,
        )
    if pod is None:
        why = f"; the node has the taint {', '.join(node.taints)}" if node.taints else ""
        return Difference(f"no pod of the plugin is on the node{why}")
    if pod.phase == "Running" and pod.ready:
        return None
    state = pod.waiting or pod.ended or f"phase {pod.phase}"
    # The warning is the only word on a pod that never started; of one that did, it repeats the reason.
    event = pod.event if not pod.ended and ": " not in pod.waiting else ""
    more = "".join(f"; {text}" for text in (pod.ended if pod.waiting else "", event) if text)
    return Difference(f"the plugin's pod {pod.name} does not run: {state}{more}{_said(pod)}")


def _count_reason(
    name: str, wanted: int, count: int, want: Expected, node: NodeState, sharing: Sharing
) -> Difference | None:
    pod = node.pods.get(vendor_of(name))
    capacity = node.capacity.get(name, 0)
    if wanted and count < capacity <= wanted:
        return Difference(f"the plugin says that {capacity - count} of {capacity} are not healthy{_said(pod)}")
    if name.startswith(MIG_PREFIX) or any(other.startswith(MIG_PREFIX) for other in node.allocatable):
        seen = ", ".join(
            f"{n} {key}" for key, n in sorted(node.allocatable.items()) if key.startswith(MIG_PREFIX) and n
        )
        if seen and not any(key.startswith(MIG_PREFIX) for key in want.resources):
            return Difference(
                f"MIG changes the count, the node offers {seen}: run the stage facts again, or turn MIG off"
            )
    if name == RESOURCES["nvidia"] and wanted and count:
        if sharing.time_slicing and count * sharing.time_slicing == wanted:
            return Difference(f"{SLICING} is {sharing.time_slicing} and the plugin does not share GPUs{_said(pod)}")
        single = wanted // (sharing.time_slicing or 1)
        if count > wanted and single and count % single == 0:
            return Difference(
                f"each GPU is counted {count // single} times, which time slicing or MIG instances do:"
                f" {SLICING} is {sharing.time_slicing or 'off'}, look at the plugin's configuration and at"
                f" `nvidia-smi -L`{_said(pod)}"
            )
    if not wanted:
        return Difference("the facts know of none: run the stage facts again")
    return None


def _said(pod: PodState | None) -> str:
    return f"; its last line: {pod.log}" if pod and pod.log else ""


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
