"""What Kubernetes should count, and the reason when it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from heteroserve.cluster.gpu_counts import Expected, HostState, NodeState, PodState, differences, expected, shortage
from heteroserve.cluster.gpu_plugins import Sharing, values_of
from heteroserve.common.names import VENDOR_LABEL
from heteroserve.facts.hardware import Accelerator, hardware_from_dict

from python_plugins.modules.cluster.gpu_node_state import state_of

MACHINES = Path(__file__).parents[2] / "fixtures" / "machines"


def machine(name: str) -> tuple[Accelerator, ...]:
    return hardware_from_dict(json.loads((MACHINES / name / "verdict.json").read_text())).accelerators


def gpus(count: int, **changes: Any) -> tuple[Accelerator, ...]:
    one = Accelerator(0, "nvidia", "H100", "nvidia-h100-sxm-80gb", 80, driver="nvidia 580", pci_address="0")
    return tuple(replace(one, index=index, pci_address=str(index), **changes) for index in range(count))


def instances(parent: str, *profiles: str) -> tuple[Accelerator, ...]:
    """A GPU with MIG on, and its instances."""
    (whole,) = gpus(1, usable=False, why_not="MIG is on")
    parts = [
        replace(whole, pci_address=parent, partition=f"mig-{name}", usable=True, why_not=None) for name in profiles
    ]
    return (replace(whole, pci_address=parent), *parts)


@pytest.mark.parametrize(
    ("name", "resources"),
    [
        ("xe9680-h100", {"nvidia.com/gpu": 8}),
        ("xe9680-mi300x", {"amd.com/gpu": 8}),
        ("xe9680-mi300x-cpx", {"amd.com/gpu": 64}),  # its partitions, and not the eight that are split
        ("gpu-no-driver", {"nvidia.com/gpu": 2}),  # the stage hosts gives them a driver
        ("driver-mismatch", {}),
        ("xe9680-gaudi3", {}),  # no plugin of ours
        ("r7615-cpu", {}),
    ],
)
def test_what_machines_should_offer(name: str, resources: dict[str, int]) -> None:
    assert expected(name, machine(name), Sharing()) == Expected(resources)


@pytest.mark.parametrize(
    ("items", "sharing", "resources"),
    [
        (gpus(2), Sharing("none"), {"nvidia.com/gpu": 2}),
        (gpus(2), Sharing("single"), {"nvidia.com/gpu": 2}),
        (gpus(2), Sharing("mixed"), {"nvidia.com/gpu": 2}),
        (gpus(2), Sharing("none", 4), {"nvidia.com/gpu": 8}),
        (instances("0", "1g.10gb", "1g.10gb"), Sharing("single"), {"nvidia.com/gpu": 2}),
        (instances("0", "1g.10gb", "1g.10gb"), Sharing("single", 3), {"nvidia.com/gpu": 6}),
        (
            (*gpus(1), *instances("9", "1g.10gb", "1g.10gb", "3g.40gb")),
            Sharing("mixed", 2),  # instances have names of their own and are not shared
            {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 2, "nvidia.com/mig-3g.40gb": 1},
        ),
        (gpus(2, usable=False, why_not="bound to vfio-pci", driver="vfio-pci"), Sharing(), {}),
        ((*gpus(1), *gpus(1, usable=False, why_not="nvidia-smi does not list it")), Sharing(), {"nvidia.com/gpu": 1}),
    ],
)
def test_sharing_changes_what_is_offered(
    items: tuple[Accelerator, ...], sharing: Sharing, resources: dict[str, int]
) -> None:
    assert expected("h", items, sharing).resources == resources


@pytest.mark.parametrize(
    ("items", "strategy", "says"),
    [
        (instances("0", "1g.10gb"), "none", "set gpu_device_plugin_mig_strategy to single"),
        ((*gpus(1), *instances("9", "1g.10gb")), "none", "set gpu_device_plugin_mig_strategy to mixed"),
        (instances("0", "1g.10gb", "3g.40gb"), "single", "set it to mixed"),
        ((*gpus(1), *instances("9", "1g.10gb")), "single", "1 GPU without MIG"),
    ],
)
def test_a_strategy_that_cannot_represent_a_host_is_a_fault(
    items: tuple[Accelerator, ...], strategy: str, says: str
) -> None:
    assert says in expected("h", items, Sharing(strategy)).fault


@pytest.mark.parametrize(
    ("name", "needed", "says"),
    [
        ("xe9680-h100", {"nvidia": 8}, ""),
        ("xe9680-mi300x-cpx", {"amd": 64}, ""),
        ("xe9680-h100", {"amd": 1}, "the plan gives 1 of its AMD GPUs to models and 0 can be used"),
        ("driver-mismatch", {"nvidia": 4}, "0 can be used (4: the kernel module and the library of the driver differ)"),
    ],
)
def test_a_plan_that_needs_more_than_there_is(name: str, needed: dict[str, int], says: str) -> None:
    text = shortage("h", machine(name), needed)
    assert says in text
    assert bool(text) == bool(says)


def test_values_of_nvidia() -> None:
    values = values_of("nvidia", Sharing(), {"image": {"repository": "mine"}})
    assert values["runtimeClassName"] == "nvidia"
    assert values["migStrategy"] == "none"
    assert values["image"] == {"repository": "mine"}
    assert "config" not in values
    terms = values["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["key"] == VENDOR_LABEL


def test_time_slicing_is_written_as_the_plugin_reads_it() -> None:
    config = values_of("nvidia", Sharing("mixed", 4), {})["config"]
    assert config["default"] in config["map"]
    assert yaml.safe_load(config["map"]["default"]) == {
        "version": "v1",
        "flags": {"migStrategy": "mixed"},
        "sharing": {"timeSlicing": {"resources": [{"name": "nvidia.com/gpu", "replicas": 4}]}},
    }


def test_values_of_amd_take_the_charts_own_selector_away() -> None:
    values = values_of("amd", Sharing("none", 4), {})
    assert values["node_selector"][VENDOR_LABEL] == "amd"
    assert values["node_selector"]["feature.node.kubernetes.io/pci-0300_1002.present"] is None


WANT = Expected({"nvidia.com/gpu": 8})
FINE = HostState({"nvidia": True}, "/usr/bin/nvidia-container-runtime", True)
POD = PodState("plugin-x", log="started")
NODE = NodeState(labels={VENDOR_LABEL: "nvidia"}, pods={"nvidia": POD})


def counted(count: int, node: NodeState = NODE, name: str = "nvidia.com/gpu") -> NodeState:
    return replace(node, capacity={name: count}, allocatable={name: count})


OFF = Sharing()


def only(node: NodeState | None, state: HostState = FINE, want: Expected = WANT, sharing: Sharing = OFF) -> Any:
    (found,) = differences("h", want, node, state, sharing)
    return found


def test_an_equal_count_is_fine_whatever_else_is_seen() -> None:
    assert differences("h", WANT, counted(8), HostState(), Sharing()) == []
    assert differences("h", Expected(), NodeState(), HostState(), Sharing()) == []
    assert differences("h", Expected(), None, HostState(), Sharing()) == []


@pytest.mark.parametrize(
    ("node", "state", "says", "final"),
    [
        (None, FINE, "is not a node of the cluster", True),
        (NODE, HostState(), "the driver is not loaded (no /proc/driver/nvidia/version)", True),
        (NODE, replace(FINE, runtime_path=""), "K3s does not find nvidia-container-runtime", True),
        (NODE, replace(FINE, runtime_configured=False), "it was installed after K3s had started", True),
        (replace(NODE, labels={}), FINE, f"the node has no label {VENDOR_LABEL}", True),
        (replace(NODE, labels={VENDOR_LABEL: "cpu"}), FINE, f"the node has {VENDOR_LABEL}=cpu", True),
        (replace(NODE, pods={}), FINE, "no pod of the plugin is on the node", False),
        (replace(NODE, pods={}, taints=("a:NoSchedule",)), FINE, "the node has the taint a:NoSchedule", False),
        (replace(NODE, ready=False), FINE, "the node is not Ready", False),
        (NODE, FINE, "the plugin's pod runs; its last line: started", False),
    ],
)
def test_why_nothing_is_counted(node: NodeState | None, state: HostState, says: str, final: bool) -> None:
    found = only(node, state)
    assert says in found.text
    assert found.final == final


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        (PodState("p", "Pending", False, "ErrImagePull: no such host"), "p does not run: ErrImagePull: no such host"),
        (
            PodState("p", "Running", False, "CrashLoopBackOff", "ended with status 1 (Error)", "", "NVML not found"),
            "CrashLoopBackOff; ended with status 1 (Error); its last line: NVML not found",
        ),
        (
            PodState("p", "Pending", False, "ContainerCreating", "", 'no runtime for "nvidia" is configured'),
            'ContainerCreating; no runtime for "nvidia" is configured',
        ),
        (PodState("p", "Pending", False), "does not run: phase Pending"),
    ],
)
def test_why_a_pod_does_not_run(pod: PodState, says: str) -> None:
    assert says in only(replace(NODE, pods={"nvidia": pod})).text


@pytest.mark.parametrize(
    ("node", "sharing", "want", "says"),
    [
        (counted(16), Sharing(), 8, "each GPU is counted 2 times"),
        (counted(8), Sharing("none", 4), 32, "gpu_device_plugin_time_slicing is 4 and the plugin does not share GPUs"),
        (replace(counted(8), allocatable={"nvidia.com/gpu": 7}), Sharing(), 8, "1 of 8 are not healthy"),
        (counted(7), Sharing(), 8, "counts 7 nvidia.com/gpu, the facts say 8"),
        (
            replace(NODE, allocatable={"nvidia.com/gpu": 7, "nvidia.com/mig-1g.10gb": 7}),
            Sharing("mixed"),
            8,
            "MIG changes the count, the node offers 7 nvidia.com/mig-1g.10gb",
        ),
        (counted(2, name="amd.com/gpu"), Sharing(), 0, "counts 2 amd.com/gpu, the facts say 0: the facts know of none"),
    ],
)
def test_why_another_number_is_counted(node: NodeState, sharing: Sharing, want: int, says: str) -> None:
    wanted = Expected({"nvidia.com/gpu": want} if want else {})
    assert says in only(node, FINE, wanted, sharing).text


def test_amd_needs_no_container_runtime() -> None:
    node = NodeState(labels={VENDOR_LABEL: "amd"})
    text = only(node, HostState({"amd": True}), Expected({"amd.com/gpu": 8})).text
    assert "no pod of the plugin is on the node" in text
    assert "/dev/kfd" in only(node, HostState(), Expected({"amd.com/gpu": 8})).text


@pytest.mark.parametrize(
    ("section", "configured"),
    [
        ('[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]', True),
        ('[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia"]', True),
        ("[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']", True),
        ('[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."nvidia-cdi"]', False),
        ("[plugins]", False),
    ],
)
def test_what_a_host_shows(tmp_path: Path, section: str, configured: bool) -> None:
    config = tmp_path / "k3s/agent/etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"{section}\n  runtime_type = 'io.containerd.runc.v2'\n")
    runtime = tmp_path / "usr/bin/nvidia-container-runtime"
    runtime.parent.mkdir(parents=True)
    runtime.touch()
    state = state_of(tmp_path, tmp_path / "k3s")
    assert state["runtime_configured"] == configured
    assert state["runtime_path"] == ""  # it cannot be run
    runtime.chmod(0o755)
    assert state_of(tmp_path, tmp_path / "k3s")["runtime_path"] == "/usr/bin/nvidia-container-runtime"
    assert state["drivers"] == {"nvidia": False, "amd": False}
