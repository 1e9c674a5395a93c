"""PowerEdges for tests: stand-ins with their iDRACs (idrac.py), an inventory of them, images to start them from."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import io
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycdlib
import yaml

HELPER = Path(__file__).with_name("idrac.py")
PASSWORD = "planted-Idrac-word"
MACS = ["B0:7B:25:00:00:01", "B0:7B:25:00:00:02"]
BOSS = {
    "AHCI.Slot.2-1": {
        "name": "BOSS-N1 Monolithic",
        "drives": [
            {
                "Id": "Disk.Direct.0-0",
                "Model": "Dell DC NVMe",
                "SerialNumber": "PHYS0001",
                "CapacityBytes": 480103981056,
            }
        ],
    },
    "CPU.1": {
        "name": "PCIe SSD",
        "drives": [
            {"Id": "Disk.Bay.0", "Model": "Dell NVMe P5600", "SerialNumber": "DATA0001", "CapacityBytes": 3200631791616}
        ],
    },
}
SETTINGS: dict[str, Any] = {
    "user": "root",
    "password": PASSWORD,
    "power": "Off",
    "system": {"SKU": "ABC1234", "Model": "PowerEdge R760", "SerialNumber": "CNFCP1234", "HostName": ""},
    "bios": {"SysProfile": "PerfPerWattOptimizedDapc", "NodeInterleave": "Disabled", "BootMode": "Uefi"},
    "firmware": {"BIOS": "2.1.5", "Integrated Dell Remote Access Controller": "7.10.30.00"},
    "nics": MACS,
    "storage": BOSS,
    # As udev calls them: the mirrored pair of the BOSS is one drive.
    "os_drives": ["Dell_BOSS-N1_0123456789", "Dell_NVMe_P5600_DATA0001"],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A stand-in that runs."""

    folder: Path
    settings: dict[str, Any]

    def read(self, name: str) -> list[str]:
        """Lines of one of its logs: host.log, or changes.log with the requests that change something."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def get(self, path: str) -> dict[str, Any]:
        """What its iDRAC says, with the right password."""
        address = f"https://127.0.0.1:{self.settings['port']}"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        word = base64.b64encode(f"{self.settings['user']}:{self.settings['password']}".encode()).decode()
        asked = urllib.request.Request(f"{address}{path}", headers={"Authorization": f"Basic {word}"})
        with urllib.request.urlopen(asked, timeout=10, context=context) as answer:
            return dict(json.load(answer))


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own, as an iDRAC has."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = ["-subj", "/CN=idrac", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *words,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


@contextlib.contextmanager
def server(folder: Path, **changes: Any) -> Iterator[Server]:
    """A stand-in, until the block ends."""
    folder.mkdir(parents=True)
    key, cert = certificate(folder)
    own = {
        "folder": str(folder),
        "port": free_port(),
        "ssh_port": free_port(),
        "key": str(key),
        "certificate": str(cert),
    }
    made = Server(folder, {**SETTINGS, **own, **changes})
    (folder / "settings.json").write_text(json.dumps(made.settings))
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(HELPER), str(folder / "settings.json")], stdout=output, stderr=output
        )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", made.settings["port"]), timeout=1).close()
                break
            assert process.poll() is None, (folder / "output").read_text()
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Media:
    """A folder that BMCs reach by HTTP."""

    folder: Path
    url: str


@contextlib.contextmanager
def media(folder: Path) -> Iterator[Media]:
    """Served until the block ends."""
    folder.mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield Media(folder, f"http://127.0.0.1:{serving.server_port}")
        serving.shutdown()


def installer(path: Path, os: str) -> None:
    """A small image in place of a distribution's: it says which one it is, and how its kernel is started."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, rock_ridge="1.09", joliet=3, vol_ident="INSTALLER")
    files = {"os": f"{os}\n"}
    if os.startswith("ubuntu"):
        files["boot/grub/grub.cfg"] = "set timeout=30\nmenuentry 'Install' {\n\tlinux\t/casper/vmlinuz  ---\n}\n"
        for name in ("boot", "boot/grub"):
            image.add_directory(f"/{name.upper()}", rr_name=name.rpartition("/")[2], joliet_path=f"/{name}")
    for name, text in files.items():
        data = text.encode()
        parts = name.upper().split("/")
        parts[-1] = parts[-1] if "." in parts[-1] else f"{parts[-1]}."
        iso = "/" + "/".join(parts) + ";1"
        image.add_fp(io.BytesIO(data), len(data), iso, rr_name=name.rpartition("/")[2], joliet_path=f"/{name}")
    image.write(str(path))
    image.close()


def key(folder: Path) -> tuple[Path, str]:
    """A key pair: the file of the private one, the line of the public one."""
    path = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path, path.with_suffix(".pub").read_text().strip()


def inventory(folder: Path, hosts: dict[str, dict[str, Any]], settings: dict[str, Any]) -> Path:
    """An inventory that can be validated, with these hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, Any] = {name: {"hosts": {next(iter(hosts)): None}} for name in ("gateway", "k3s_server")}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {"serving": {"hosts": hosts}, **groups}}}))
    (folder / "group_vars").mkdir(exist_ok=True)
    model = {"name": "llama", "card": "llama-3.2-1b", "source": {"path": "/models/llama"}}
    values = {
        "runtime": "k3s",
        "state_dir": str(folder.parent / "state"),
        "models": [model],
        "cell_address": "{{ ansible_host }}",
        "cell_port_base": 30000,
        "gateway_address": "{{ ansible_host }}",
        "gateway_port": 8080,
        "gateway_stats_port": 8405,
        "ansible_user": "admin",
        "ansible_python_interpreter": sys.executable,
        # A run must not find the last one's connection open.
        "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none",
        "bare_metal_known_hosts": str(folder.parent / "known_hosts"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder.parent / 'known_hosts'}",
        **settings,
    }
    (folder / "group_vars" / "all.yml").write_text(yaml.safe_dump(values))
    return folder
