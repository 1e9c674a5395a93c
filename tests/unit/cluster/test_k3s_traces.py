"""What of a host is K3s's, and what is not."""

from __future__ import annotations

from heteroserve.cluster.k3s_traces import descendants_of_shims, is_interface, is_ipset, mounts_below, without_rules

SHIM = "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address /run/k3s/containerd/containerd.sock"
OTHER = "/usr/bin/containerd-shim-runc-v2 -namespace moby -id 2 -address /run/containerd/containerd.sock"
TABLE = """overlay / overlay rw 0 0
/dev/sdb /var/lib/rancher ext4 rw 0 0
tmpfs /var/lib/kubelet/pods/1/volumes/token tmpfs rw 0 0
shm /run/k3s/containerd/x/shm tmpfs rw 0 0
overlay /run/k3s/containerd/x/rootfs overlay rw 0 0
tmpfs /var/lib/kubelet/pods/2/a\\040b tmpfs rw 0 0
nsfs /run/netns/cni-12 nsfs rw 0 0
tmpfs /run/user/0 tmpfs rw 0 0
"""
RULES = """*filter
:INPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-SERVICES
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def test_pods_are_what_k3s_s_shims_hold() -> None:
    table = {1: (0, "init"), 10: (1, SHIM), 11: (10, "pause"), 12: (11, "sh"), 20: (1, OTHER), 21: (20, "redis")}
    assert descendants_of_shims(table) == {10, 11, 12}


def test_a_disk_of_the_host_s_own_stays_mounted() -> None:
    found = mounts_below(TABLE, ("/run/k3s", "/run/netns/cni-", "/var/lib/kubelet", "/var/lib/rancher"))
    assert "/var/lib/rancher" not in found
    assert "/run/user/0" not in found
    assert "/var/lib/kubelet/pods/2/a b" in found
    assert found.index("/var/lib/kubelet/pods/1/volumes/token") < found.index("/run/netns/cni-12")


def test_interfaces() -> None:
    assert all(is_interface(name, "") for name in ("cni0", "flannel.1", "flannel-wg"))
    assert is_interface("veth12ab", "cni0")
    assert not is_interface("veth12ab", "docker0")
    assert not is_interface("eno1", "")


def test_sets_of_addresses() -> None:
    assert is_ipset("KUBE-SRC-ABC")
    assert not is_ipset("fail2ban")


def test_other_rules_stay() -> None:
    kept = without_rules(RULES)
    assert kept is not None
    assert "--dport 22" in kept
    assert "KUBE" not in kept
    assert "flanneld" not in kept
    assert without_rules(kept) is None
