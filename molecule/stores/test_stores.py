"""The registry gives images to who knows the password, and weights reach every host whole."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
import testinfra.host
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEY = ROOT / ".cache/testcluster/ssh_key"
STATE = ROOT / ".cache/testcluster" / f"state-{os.environ.get('HETEROSERVE_TEST_SET', '0')}"
TINY = "/var/lib/heteroserve/models/example--tiny"
PARTIAL = "/var/lib/heteroserve/models/.partial/example--tiny"
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
Host = testinfra.host.Host


def of(host: Host, *names: str) -> None:
    """Go on for these hosts only."""
    if host.backend.get_hostname() not in names:
        pytest.skip("another host's test")


def command(*options: str) -> list[str]:
    """What brings the weights, without looking at the registry."""
    playbook = ["ansible-playbook", f"--inventory={ROOT}/molecule/inventory", str(HERE / "models.yml")]
    return [*playbook, *options]


def run(*options: str) -> str:
    """Bring the weights; what was printed."""
    done = subprocess.run(command(*options), cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sums(host: Host, folder: str) -> str:
    """SHA-256 of the weights in a folder."""
    return str(host.check_output("cd %s && sha256sum *.safetensors *.json | grep -v heteroserve", folder))


@pytest.fixture(scope="module")
def images() -> dict[str, dict[str, str]]:
    return dict(json.loads((STATE / "images.json").read_text()))


@pytest.fixture(scope="module")
def endpoint(images: dict[str, dict[str, str]]) -> str:
    return next(iter(images.values()))["reference"].partition("/")[0]


def test_the_registry_listens_on_the_clusters_address_only(host: Host, endpoint: str) -> None:
    of(host, "server-1")
    listening = [line for line in host.check_output("ss -ltnH").splitlines() if ":5000 " in line]
    assert len(listening) == 1
    assert listening[0].split()[3] == endpoint
    assert host.service("heteroserve-registry").is_enabled
    assert not host.service("docker-registry").is_running


def test_an_agent_pulls_by_digest_over_tls(host: Host, endpoint: str, images: dict[str, dict[str, str]]) -> None:
    """Manifest, configuration and layers, each with the checksum that its name says."""
    of(host, "agent-1")
    assert sorted(images) == ["docker.io/example/one:1", "ghcr.io/example/two:2", "quay.io/example/three:3"]
    # The password goes through a file, as on a real host: never on a command line.
    password = (STATE / "secrets/registry-password").read_text().strip()
    host.run("umask 077; printf 'user = \"heteroserve:%s\"' > /root/curlrc", password)
    curl = (
        "curl -sSfL --config /root/curlrc --cacert /etc/heteroserve/registry/ca/ca.crt -H 'Accept: {}' https://{}/v2/{}"
    )
    kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
    for name, image in images.items():
        repository = image["reference"].partition("/")[2].partition("@")[0]
        asked = curl.format(kinds, endpoint, f"{repository}/manifests/{image['digest']}")
        assert host.check_output(f"{asked} | sha256sum").split()[0] == image["digest"].removeprefix("sha256:"), name
        manifest = json.loads(host.check_output(asked))
        for blob in [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]:
            got = host.check_output(f"{curl.format('*/*', endpoint, f'{repository}/blobs/{blob}')} | sha256sum")
            assert got.split()[0] == blob.removeprefix("sha256:")
    host.run("rm /root/curlrc")


def test_nobody_pulls_without_the_password_or_trust(host: Host, endpoint: str) -> None:
    of(host, "agent-1", "agent-2")
    trust = "--cacert /etc/heteroserve/registry/ca/ca.crt"
    code = "curl -s -o /dev/null -w '%{http_code}'"
    assert host.check_output(f"{code} {trust} https://{endpoint}/v2/example/one/manifests/1") == "401"
    assert host.check_output(f"{code} {trust} -u heteroserve:wrong https://{endpoint}/v2/") == "401"
    assert host.run(f"curl -s https://{endpoint}/v2/").rc == 60  # a certificate that nobody vouches for
    assert host.run(f"curl -sf http://{endpoint}/v2/").rc != 0


def test_secrets_are_roots(host: Host) -> None:
    of(host, "server-1")
    password = (STATE / "secrets/registry-password").read_text().strip()
    for name, mode in {"auth.json": 0o600, "server.key": 0o640, "htpasswd": 0o640}.items():
        assert host.file(f"/etc/heteroserve/registry/{name}").mode == mode
    assert password not in host.check_output("journalctl --no-pager")
    assert password not in host.check_output("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; true")
    for path in STATE.glob("registry/*.key"):
        assert path.stat().st_mode & 0o077 == 0


def test_weights_are_whole_and_readable(host: Host) -> None:
    of(host, "agent-1", "agent-2")
    assert f"{FIRST}" in sums(host, TINY)
    assert host.file(f"{TINY}/{FIRST}").mode == 0o644
    assert host.file(TINY).mode == 0o755
    if host.backend.get_hostname() == "agent-1":
        assert host.file("/var/lib/heteroserve/models/own").linked_to == "/srv/weights/own"
    else:
        assert not host.file("/var/lib/heteroserve/models/own").exists


def test_only_serving_hosts_get_weights(host: Host) -> None:
    of(host, "server-1")
    address = host.check_output("ss -ltnH | awk '{print $4}' | grep :8730")
    refused = host.run("rsync rsync://%s/example--tiny/", address)
    assert refused.rc != 0
    assert "@ERROR: Unknown module" in refused.stderr  # it does not even say that there is one


def test_a_killed_copy_goes_on_and_a_corrupted_file_is_replaced(host: Host) -> None:
    """The copying on agent-2 is killed as by a power cut, with the run that asked for it; agent-1's disk errs."""
    of(host, "agent-2")
    expected = sums(host, TINY)
    host.check_output("rm -r %s", TINY)
    process = subprocess.Popen(
        command("-e", "model_store_limit_mb=4"), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while int(host.run("stat -c %%s %s/%s", PARTIAL, FIRST).stdout or 0) < 6_000_000:
        assert time.monotonic() < deadline, "the copy did not begin"
        time.sleep(0.5)
    os.killpg(process.pid, 9)
    pids = host.check_output("pgrep -f 'model_copy|rsync --append' || true").split()
    host.run("kill -9 " + " ".join(pids))
    assert host.run("test -e %s", TINY).rc != 0  # half a folder is never taken for a whole one
    size, inode = host.check_output("stat -c '%%s %%i' %s/%s", PARTIAL, FIRST).split()
    assert 6_000_000 <= int(size) < 24_000_000
    other = testinfra.get_host("ansible://agent-1", ansible_inventory=host.backend.ansible_inventory, sudo=True)
    kept = other.check_output("stat -c %%i %s/%s", TINY, SECOND)
    other.check_output("printf rotten | dd of=%s/%s bs=1 seek=9000000 conv=notrunc", TINY, FIRST)
    assert sums(other, TINY) != expected
    run()
    assert sums(host, TINY) == expected
    assert host.file(f"{TINY}/{FIRST}").mode == 0o644
    # The same file was continued, not started again.
    assert host.check_output("stat -c %%i %s/%s", TINY, FIRST) == inode
    assert sums(other, TINY) == expected
    # Only what was wrong was fetched.
    assert other.check_output("stat -c %%i %s/%s", TINY, SECOND) == kept


def test_rot_that_left_size_and_time_alone_is_found_on_request(host: Host) -> None:
    of(host, "agent-1")
    expected = sums(host, TINY)
    rot = f"""touch -r {TINY}/{FIRST} /root/time && printf rotten | dd of={TINY}/{FIRST} bs=1 seek=9000000 conv=notrunc
    touch -r /root/time {TINY}/{FIRST} && rm /root/time"""
    host.check_output(rot)
    run("-e", "model_store_verify=true")
    assert sums(host, TINY) == expected


def test_a_disk_that_is_too_small_is_said_before_anything_is_copied(host: Host) -> None:
    of(host, "agent-2")
    host.check_output("mkdir -p /mnt/small && mount -t tmpfs -o size=20m tmpfs /mnt/small")
    try:
        done = subprocess.run(
            command("-e", "model_store_path=/mnt/small/models", "--limit=server-1,agent-2"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode != 0
        assert "model example/tiny needs 48.0 MB of disk and /mnt/small" in done.stdout
        assert "set model_store_path to a larger disk" in done.stdout
    finally:
        host.check_output("umount /mnt/small && rmdir /mnt/small")
        other = testinfra.get_host("ansible://server-1", ansible_inventory=host.backend.ansible_inventory, sudo=True)
        other.check_output("rm -r /mnt/small")


MORE = ("agent-3", "agent-4", "agent-5")
AGENTS = ("agent-1", "agent-2", *MORE)
PREFIX = f"hs{os.environ.get('HETEROSERVE_TEST_SET', '0')}"


@pytest.fixture
def more_hosts(host: Host, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Three more hosts that serve the model; what runs need to know of them."""
    of(host, "server-1")
    made = ["ansible-playbook", "molecule/hosts/create.yml", f"--inventory={ROOT}/molecule/inventory"]
    # Where the key is follows from the folder of the inventory that a host is in.
    more = [f"--inventory={HERE}/inventory", "-e", f"ansible_ssh_private_key_file={KEY}"]
    state = yaml.safe_load((HERE / "vars/main.yml").read_text())["state"]
    state["plan"]["cells"] += [{"name": name, "model": "example/tiny", "hosts": [name]} for name in MORE]
    (tmp_path / "state.json").write_text(json.dumps({"state": state}))
    try:
        subprocess.run([*made, *more, f"--limit=localhost,{','.join(MORE)}"], cwd=ROOT, check=True, timeout=400)
        settings = ("-e", "model_store_streams=1", "-e", "model_store_fanout=2")
        yield (*more, f"--extra-vars=@{tmp_path}/state.json", *settings)
    finally:
        for name in MORE:
            subprocess.run(["podman", "rm", "--force", "--time=0", f"{PREFIX}-{name}"], check=True)
            volumes = [f"{PREFIX}-{name}-{volume}" for volume in ("rancher", "kubelet")]
            subprocess.run(["podman", "volume", "rm", "--force", *volumes], check=True)
        subprocess.run([*made, "--limit=localhost,agent-1"], cwd=ROOT, check=True, timeout=400)


def test_weights_spread_from_host_to_host(host: Host, more_hosts: tuple[str, ...]) -> None:
    """The first run is killed while hosts offer weights; the second gives them on, and leaves no offer behind."""
    agents = [testinfra.get_host(f"podman://{PREFIX}-{name}") for name in AGENTS]
    expected = sums(host, "/srv/weights/tiny")
    for agent in agents:
        agent.check_output("rm -rf %s", TINY)
    process = subprocess.Popen(
        command(*more_hosts, "-e", "model_store_limit_mb=3"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 420
    while agents[0].run("systemctl is-active heteroserve-weights").rc != 0:
        assert time.monotonic() < deadline, "nobody offers weights"
        time.sleep(0.5)
    time.sleep(3)
    os.killpg(process.pid, 9)
    for agent in agents:
        pids = agent.check_output("pgrep -f 'model_copy|rsync --append' || true").split()
        agent.run("kill -9 " + " ".join(pids))
    assert agents[0].check_output("systemctl show --property RuntimeMaxUSec --value heteroserve-weights") == "10min 48s"
    assert [agent.file(TINY).exists for agent in agents] == [True, False, False, False, False]
    # The others may not copy from it: it serves this one client alone.
    (allowed,) = [
        line for line in agents[0].file("/run/heteroserve-weights.conf").content_string.splitlines() if "allow" in line
    ]
    assert len(allowed.partition("=")[2].split()) == 1

    before = int(host.check_output("cat /sys/class/net/eth0/statistics/tx_bytes"))
    said = run(*more_hosts)
    sent = int(host.check_output("cat /sys/class/net/eth0/statistics/tx_bytes")) - before
    assert "2 hosts give to 2" in said
    assert [sums(agent, TINY) for agent in agents] == [expected] * len(agents)
    assert sent < 2.5 * 48_000_000, "the store has sent the weights more than twice"
    for agent in agents:
        assert agent.run("systemctl cat heteroserve-weights").rc != 0
        assert not agent.file("/run/heteroserve-weights.conf").exists
        assert ":8730" not in agent.check_output("ss -ltnH")
    assert "changed" not in run(*more_hosts).partition("Hosts of the models")[2].partition("PLAY RECAP")[0]
