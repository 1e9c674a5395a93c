"""A prepared host: what the kernel, the limits and the firewall are, and what gets through."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import testinfra

SERVER, AGENT, GPU_AGENT = "server-1", "agent-1", "agent-2"
HARDENING = {"vm.panic_on_oom": 0, "vm.overcommit_memory": 1, "kernel.panic": 10, "kernel.panic_on_oops": 1}
INVENTORY = Path(__file__).parents[2] / f".cache/testcluster/hosts-{os.environ.get('HETEROSERVE_TEST_SET', '0')}.json"
DROPPED = 28  # curl: no answer in time
POD = "10.42.99.2"
# A pod as flannel and kube-proxy make one: behind the bridge cni0, reached by two NodePorts.
# The table of an earlier K3s on these hosts stays, empty.
MAKE_POD = f"""set -e
nft list table ip nat > /run/test-pod-nat 2> /dev/null || rm /run/test-pod-nat
ip link add cni0 type bridge; ip address add 10.42.99.1/24 dev cni0; ip link set cni0 up
ip netns add test-pod; ip link add veth-test type veth peer name eth0 netns test-pod
ip link set veth-test master cni0 up
ip -n test-pod address add {POD}/24 dev eth0; ip -n test-pod link set eth0 up; ip -n test-pod link set lo up
ip -n test-pod route add default via 10.42.99.1
systemd-run --quiet --collect --unit=test-pod ip netns exec test-pod python3 -m http.server 8000
for port in 30000 30001; do
  iptables -t nat -A PREROUTING -p tcp --dport $port -m addrtype --dst-type LOCAL -j DNAT --to-destination {POD}:8000
done
"""
REMOVE_POD = f"""systemctl stop test-pod; ip netns delete test-pod; ip link delete cni0
for port in 30000 30001; do
  iptables -t nat -D PREROUTING -p tcp --dport $port -m addrtype --dst-type LOCAL \\
    -j DNAT --to-destination {POD}:8000
done
if [ -e /run/test-pod-nat ]; then rm /run/test-pod-nat; else nft delete table ip nat; fi
"""


def name(host):
    return host.backend.host


def on(host):
    return testinfra.get_host(f"ansible://{host}", ansible_inventory=str(INVENTORY), sudo=True)


def address(host):
    return json.loads(INVENTORY.read_text())["all"]["hosts"][host]["ansible_host"]


def reaches(asker, to, port):
    return on(asker).run(f"curl --silent --max-time 2 http://{to}:{port}").rc != DROPPED


@pytest.fixture
def pod():
    agent = on(AGENT)
    agent.check_output(MAKE_POD)
    try:
        agent.check_output(f"curl --silent --retry 10 --retry-connrefused http://{POD}:8000")
        yield POD
    finally:
        agent.run(REMOVE_POD)


@pytest.mark.parametrize("key", HARDENING)
def test_the_hardening_guide_is_followed_now_and_at_each_start(host, key):
    assert host.sysctl(key) == HARDENING[key]
    assert host.file("/etc/sysctl.d/99-zz-heteroserve.conf").contains(f"^-{key} = {HARDENING[key]}$")


def test_what_was_before_is_noted(host):
    noted = host.file("/var/lib/heteroserve/was/host_prep_live.json")
    assert not noted.exists or noted.mode == 0o644


def test_swap_is_off_and_its_line_is_kept(host):
    lines = host.file("/etc/fstab").content_string.splitlines()
    assert [
        line for line in lines if line.startswith("# heteroserve, swap is off: /dev/disk/by-label/nothing none swap")
    ]
    assert not [line for line in lines if not line.startswith("#") and " swap " in line]


def test_memory_may_be_locked_where_a_gpu_reads_it(host):
    limit = host.check_output("systemctl show --property=DefaultLimitMEMLOCK --value")
    assert (limit == "infinity") == (name(host) == GPU_AGENT)


def test_large_pages_follow_the_plan(host):
    file = host.file("/etc/tmpfiles.d/heteroserve.conf")
    assert file.contains("transparent_hugepage") == (name(host) == AGENT)
    assert file.contains("scaling_governor") == (name(host) != SERVER)


def test_the_firewall_is_loaded_at_each_start(host):
    unit = host.service("heteroserve-firewall")
    assert unit.is_running
    assert unit.is_enabled
    assert host.run("nft list table inet heteroserve").rc == 0
    assert host.run("nft --check --file /etc/heteroserve/firewall.nft").rc == 0
    assert not host.service("heteroserve-firewall-undo.timer").is_running


@pytest.mark.parametrize(
    ("asker", "to", "port", "through"),
    [
        (AGENT, SERVER, 22, True),
        (AGENT, SERVER, 8080, True),  # the endpoint
        (AGENT, SERVER, 6443, True),  # K3s' API
        (AGENT, SERVER, 9999, False),  # nobody has named it
        (SERVER, AGENT, 10250, True),  # the kubelet
        (SERVER, AGENT, 6443, False),  # an agent has no API
        (SERVER, GPU_AGENT, 30000, False),  # a cell of another host
    ],
)
def test_what_the_plan_uses_gets_through_and_nothing_else(asker, to, port, through):
    """Nothing listens on most of them: what gets through is refused at once, what does not is never answered."""
    assert reaches(asker, address(to), port) == through


def test_a_node_port_is_open_to_the_gateway_alone(pod):
    """The pod's packets take kube-proxy's way: rewritten before routing, then forwarded."""
    assert reaches(SERVER, address(AGENT), 30000), "the gateway asks a cell"
    assert not reaches(GPU_AGENT, address(AGENT), 30000), "a host that is no gateway"
    assert not reaches(SERVER, address(AGENT), 30001), "the gateway asks for what monitoring may see alone"
    on(SERVER).check_output(f"ip route replace {pod} via {address(AGENT)}")
    try:
        assert not reaches(SERVER, pod, 8000), "a packet that is routed to a pod from outside"
    finally:
        on(SERVER).check_output(f"ip route delete {pod}")
