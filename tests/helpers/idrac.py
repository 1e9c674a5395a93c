"""A stand-in for a PowerEdge with its iDRAC: sushy-tools' Redfish emulator, and a thin layer of what Dell adds to it.

Of the emulator are the service root, who may log in, power, boot override, managers, NICs, and virtual media, which it
really fetches. Of the layer, which was written after descriptions of Dell's API and not after an iDRAC: identifiers,
BIOS attributes that a job applies at the next start, firmware, drives, sessions.

The layer also is the host. Started from virtual media it does what an installer would, as far as it can be judged from
outside: it takes the answers from the volume CIDATA or OEMDRV, looks for the disk among the drives, and then lets in
who may, by SSH, with a new host key. Nothing is installed: a command that comes by SSH runs on this machine, and sees
the files of the host in place of a few of its own.

    python tests/helpers/idrac.py SETTINGS.json
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import io
import json
import re
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import asyncssh
import bcrypt
import pycdlib
import yaml
from flask import Response, request
from sushy_tools.emulator.main import RedfishAuthMiddleware, app
from sushy_tools.emulator.resources.systems import fakedriver

SYSTEM, MANAGER = "System.Embedded.1", "iDRAC.Embedded.1"
SYSTEM_URI, MANAGER_URI = f"/redfish/v1/Systems/{SYSTEM}", f"/redfish/v1/Managers/{MANAGER}"
BIOS, JOBS = f"{SYSTEM_URI}/Bios", f"{MANAGER_URI}/Oem/Dell/Jobs"
FIRMWARE = "/redfish/v1/UpdateService/FirmwareInventory"
UPDATE = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate"
SESSIONS = "/redfish/v1/SessionService/Sessions"
MARK = "/etc/heteroserve-installation"
RELEASES = {
    "ubuntu": 'ID=ubuntu\nVERSION_ID="{}"\n',
    "rocky": 'ID="rocky"\nVERSION_ID="{}.4"\n',
    "rhel": 'ID="rhel"\nVERSION_ID="{}.4"\n',
}


def files_of(path: str) -> tuple[str, dict[str, str]]:
    """Label of a volume, and its text files by name."""
    image = pycdlib.PyCdlib()
    image.open(path)
    try:
        label = image.pvd.volume_identifier.decode().strip()
        found = {}
        for folder, _, names in image.walk(rr_path="/"):
            for name in names:
                stream = io.BytesIO()
                image.get_file_from_iso_fp(stream, rr_path=f"{folder.rstrip('/')}/{name}")
                found[f"{folder.rstrip('/')}/{name}"] = stream.getvalue().decode(errors="replace")
        return label, found
    finally:
        image.close()


class Refused(Exception):
    """An installer stopped; the host waits for somebody at its console."""


class Host:
    """What is behind the iDRAC."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.folder = Path(settings["folder"])
        self.users: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.log: list[str] = []
        self.server: asyncssh.SSHAcceptor | None = None
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        if installed := settings.get("installed"):
            self.users = {installed["user"]: installed["key"]}
            self.files = {"/etc/os-release": self.release(installed["os"]), MARK: "of before\n"}
            self.key = asyncssh.generate_private_key("ssh-ed25519")

    @staticmethod
    def release(os: str) -> str:
        name, _, version = os.rpartition("-")
        return RELEASES[name].format(version)

    def say(self, what: str) -> None:
        self.log.append(what)
        (self.folder / "host.log").write_text("\n".join(self.log) + "\n")

    def start(self, media: list[str] | None) -> None:
        """Power on, from these images or from the disk."""
        self.stop()
        if media is not None:
            try:
                self.install(media)
            except Refused as why:
                self.say(f"stopped: {why}")
                return
        elif not self.users:
            self.say("found nothing to start from")
            return
        self.say("started")
        asyncio.run_coroutine_threadsafe(self.listen(), self.loop).result(10)

    def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None

    def install(self, media: list[str]) -> None:
        """What an unattended installation leaves behind."""
        volumes = {}
        for path in media:
            label, files = files_of(path)
            volumes[label] = files
        installer = next((files for files in volumes.values() if "/os" in files), None)
        if installer is None:
            raise Refused("no image of an installer")
        wanted = installer["/os"].strip()
        if wanted.startswith("ubuntu"):
            if " autoinstall " not in installer.get("/boot/grub/grub.cfg", ""):
                raise Refused("Continue with autoinstall? (yes|no)")
            user, keys, mark, globs = self.autoinstall(volumes.get("CIDATA", {}))
        else:
            user, keys, mark, globs = self.kickstart(volumes.get("OEMDRV", {}))
        drives = self.settings["os_drives"]
        fitting = [name for name in drives if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]
        if len(fitting) != 1:
            raise Refused(f"{len(fitting)} drives fit {globs}")
        self.users, self.key = {user: keys}, asyncssh.generate_private_key("ssh-ed25519")
        self.files = {"/etc/os-release": self.release(wanted), MARK: mark}
        self.say(f"installed {wanted} on {fitting[0]}")

    def autoinstall(self, files: dict[str, str]) -> tuple[str, str, str, list[str]]:
        asked = yaml.safe_load(files["/user-data"])["autoinstall"]
        self.same_nic(next(iter(asked["network"]["ethernets"].values()))["match"]["macaddress"])
        cloud = asked["user-data"]
        written = next(item for item in cloud["write_files"] if item["path"] == MARK)
        match = asked["storage"]["layout"]["match"]
        globs = [match.get("serial") or match.get("model")]
        user = cloud["users"][0]
        return user["name"], "\n".join(user["ssh_authorized_keys"]), written["content"], globs

    def kickstart(self, files: dict[str, str]) -> tuple[str, str, str, list[str]]:
        text = files["/ks.cfg"]
        self.same_nic(re.findall(r"^network .*--device=(\S+)", text, re.MULTILINE)[0])
        user = re.findall(r"^user --name=(\S+)", text, re.MULTILINE)[0]
        keys = re.findall(rf'^sshkey --username={user} "(.*)"', text, re.MULTILINE)
        mark = re.findall(rf"^(?:echo|printf) (\S+) *> *{MARK}", text, re.MULTILINE)[0]
        return user, "\n".join(keys), f"{mark}\n", [re.findall(r"^wanted='(.*)'$", text, re.MULTILINE)[0]]

    def same_nic(self, mac: str) -> None:
        if mac.lower() not in [nic.lower() for nic in self.settings["nics"]]:
            raise Refused(f"no NIC has {mac}")

    async def listen(self) -> None:
        host = self

        class Login(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                known = [asyncssh.import_public_key(line) for line in host.users.get(username, "").splitlines()]
                return key in known

        async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
            command = process.command or "true"
            for name, text in host.files.items():
                path = host.folder / name.strip("/").replace("/", "-")
                path.write_text(text)
                command = command.replace(name, str(path))
            child = await asyncio.create_subprocess_shell(
                command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
            process.exit(await child.wait())

        self.server = await asyncssh.listen(
            "127.0.0.1",
            self.settings["ssh_port"],
            server_factory=Login,
            server_host_keys=[self.key],
            process_factory=run,
            encoding=None,
        )


class Idrac:
    """What Dell has beside the standard."""

    def __init__(self, settings: dict[str, Any], host: Host) -> None:
        self.settings, self.host = settings, host
        self.bios = dict(settings["bios"])
        self.firmware = dict(settings["firmware"])
        self.pending: dict[str, Any] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.tokens: set[str] = set()
        self.changes: list[str] = []  # requests that change something

    def job(self, kind: str, apply: dict[str, Any]) -> str:
        name = f"JID_{100 + len(self.jobs)}"
        body = {"Id": name, "JobType": kind, "JobState": "Scheduled", "PercentComplete": 0, "Message": "scheduled"}
        self.jobs[name] = {"body": body, "apply": apply}
        return name

    def run_jobs(self) -> None:
        """What waits for a start of the host happens at it."""
        for job in self.jobs.values():
            if job["body"]["JobState"] == "Scheduled":
                self.bios.update(job["apply"].get("bios", {}))
                self.firmware.update(job["apply"].get("firmware", {}))
                job["body"].update(JobState="Completed", PercentComplete=100, JobStatus="OK")
        self.pending = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Response | None:
        """The layer's own resources; None for all that is the emulator's."""
        if method != "GET" and not path.startswith(SESSIONS):
            self.changes.append(f"{method} {path}")
            (self.host.folder / "changes.log").write_text("\n".join(self.changes) + "\n")
        if path == "/redfish/v1/Managers":
            return self.json({"Members": [{"@odata.id": MANAGER_URI}]})
        if path == MANAGER_URI:
            version = self.firmware["Integrated Dell Remote Access Controller"]
            return self.json({"Id": MANAGER, "FirmwareVersion": version, "Model": "16G Monolithic"})
        if path == BIOS:
            settings = {"SettingsObject": {"@odata.id": f"{BIOS}/Settings"}, "SupportedApplyTimes": ["OnReset"]}
            return self.json({"Id": "Bios", "Attributes": self.bios, "@Redfish.Settings": settings})
        if path == f"{BIOS}/Settings" and method == "GET":
            return self.json({"Id": "Settings", "Attributes": self.pending})
        if path == f"{BIOS}/Settings":
            self.pending.update(body["Attributes"])
            return self.json({}, 202, f"{JOBS}/{self.job('BIOSConfiguration', {'bios': dict(self.pending)})}")
        if path == f"{BIOS}/BiosRegistry":
            entries = [{"AttributeName": name, "Type": "String"} for name in self.bios]
            return self.json({"RegistryEntries": {"Attributes": entries}})
        if path == JOBS:
            return self.json({"Members": [job["body"] for job in self.jobs.values()]})
        if found := re.fullmatch(rf"({JOBS}|/redfish/v1/TaskService/Tasks)/(\w+)", path):
            job = self.jobs[found[2]]["body"]
            task = {"TaskState": {"Scheduled": "Starting"}.get(job["JobState"], job["JobState"]), "TaskStatus": "OK"}
            return self.json(job if found[1] == JOBS else {"Id": found[2], "@odata.type": "#Task.v1_4_0.Task", **task})
        if path == FIRMWARE:
            return self.json(
                {"Members": [{"@odata.id": f"{FIRMWARE}/{number}"} for number in range(len(self.firmware))]}
            )
        if path.startswith(f"{FIRMWARE}/"):
            name, version = list(self.firmware.items())[int(path.rpartition("/")[2])]
            return self.json({"Id": f"Installed-0-{version}", "Name": name, "Version": version, "Updateable": True})
        if path == UPDATE:
            return self.update(body["ImageURI"])
        if path.startswith(f"{SYSTEM_URI}/Storage"):
            return self.storage(path.removeprefix(f"{SYSTEM_URI}/Storage").strip("/").split("/"))
        return None

    def update(self, uri: str) -> Response:
        """A firmware's file is called COMPONENT_VERSION.EXE here."""
        name, _, version = uri.rpartition("/")[2].removesuffix(".EXE").rpartition("_")
        component = next(item for item in self.firmware if name.lower() in item.lower())
        job = self.job("FirmwareUpdate", {"firmware": {component: version}})
        if "Controller" in component:  # the iDRAC itself waits for no start of the host
            self.run_jobs()
        return Response(status=202, headers={"Location": f"/redfish/v1/TaskService/Tasks/{job}"})

    def storage(self, parts: list[str]) -> Response:
        uri, controllers = f"{SYSTEM_URI}/Storage", self.settings["storage"]
        if parts == [""]:
            return self.json({"Members": [{"@odata.id": f"{uri}/{name}"} for name in controllers]})
        drives = controllers[parts[0]]["drives"]
        if len(parts) == 1:
            members = [{"@odata.id": f"{uri}/{parts[0]}/{drive['Id']}"} for drive in drives]
            named = [{"Name": controllers[parts[0]]["name"]}]
            return self.json({"Id": parts[0], "Drives": members, "StorageControllers": named})
        drive = next(drive for drive in drives if drive["Id"] == parts[1])
        return self.json({"@odata.id": f"{uri}/{parts[0]}/{parts[1]}", **drive})

    def added(self, path: str) -> dict[str, Any]:
        """What Dell says in the emulator's resources."""
        if path == "/redfish/v1":
            session = {"@odata.id": "/redfish/v1/SessionService"}
            return {"Vendor": "Dell", "RedfishVersion": "1.20.1", "SessionService": session}
        if path == SYSTEM_URI:
            names = ("SKU", "Model", "SerialNumber", "HostName")
            own = {name: self.settings["system"][name] for name in names}
            return {
                **own,
                "Manufacturer": "Dell Inc.",
                "Bios": {"@odata.id": BIOS},
                "BiosVersion": self.firmware["BIOS"],
            }
        return {}

    @staticmethod
    def json(body: dict[str, Any], status: int = 200, location: str = "") -> Response:
        headers = {"Location": location} if location else {}
        return Response(json.dumps(body), status, headers, content_type="application/json")


class Sessions:
    """Logs in by session, as Dell's modules do: the emulator knows names and passwords alone."""

    def __init__(self, inner: Any, idrac: Idrac, basic: str) -> None:
        self.inner, self.idrac, self.basic = inner, idrac, basic

    def __call__(self, environment: dict[str, Any], start: Any) -> Any:
        path, method = environment["PATH_INFO"], environment["REQUEST_METHOD"]
        if environment.get("HTTP_X_AUTH_TOKEN") in self.idrac.tokens:
            environment["HTTP_AUTHORIZATION"] = self.basic
        if path == SESSIONS and method == "POST":
            given = json.loads(environment["wsgi.input"].read(int(environment["CONTENT_LENGTH"])))
            if given != {"UserName": self.idrac.settings["user"], "Password": self.idrac.settings["password"]}:
                return self.idrac.json({"error": {}}, 401)(environment, start)
            self.idrac.tokens.add("token")
            answer = self.idrac.json({"Id": "1"}, 201, f"{SESSIONS}/1")
            answer.headers["X-Auth-Token"] = "token"
            return answer(environment, start)
        if path.startswith(f"{SESSIONS}/"):
            return self.idrac.json({})(environment, start)
        return self.inner(environment, start)


def connect(idrac: Idrac, host: Host) -> None:
    """Let the emulator's power be the host's, and its answers have Dell's part."""
    kept = fakedriver.FakeDriver.set_power_state

    def set_power_state(driver: Any, identity: str, state: str) -> None:
        before = driver.get_power_state(identity)
        kept(driver, identity, state)
        if "Off" in state or "Shutdown" in state or "Restart" in state:
            host.stop()
        if ("On" in state and before == "Off") or "Restart" in state:
            idrac.run_jobs()
            media = None
            if driver.get_boot_device(identity) == "Cd":
                devices = [app.vmedia._get_device(identity, name) for name in app.vmedia.devices]
                media = [item["_local_file"] for item in devices if item.get("_local_file")]
                driver.set_boot_device(identity, "Hdd")
            threading.Timer(idrac.settings.get("start_s", 0), host.start, [media]).start()

    fakedriver.FakeDriver.set_power_state = set_power_state
    fakedriver.random.randint = lambda *_: 0

    @app.before_request
    def own() -> Response | None:
        body = request.get_json(silent=True) if request.method in ("POST", "PATCH") else None
        return idrac.answer(request.method, request.path.rstrip("/"), body or {})

    @app.after_request
    def added(answer: Response) -> Response:
        extra = idrac.added(request.path.rstrip("/")) if request.method == "GET" else {}
        if extra and answer.is_json:
            answer.set_data(json.dumps({**(answer.get_json() or {}), **extra}))
        return answer


def main() -> None:
    """Serve until this process is ended."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(settings["folder"])
    word = bcrypt.hashpw(settings["password"].encode(), bcrypt.gensalt(4)).decode()
    (folder / "accounts").write_text(f"{settings['user']}:{word}\n")
    host = Host(settings)
    idrac = Idrac(settings, host)
    slot = {"Name": "Virtual media", "MediaTypes": ["CD", "DVD", "USBStick"]}
    app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(folder),
            "SUSHY_EMULATOR_AUTH_FILE": str(folder / "accounts"),
            "SUSHY_EMULATOR_VMEDIA_DEVICES": {name: dict(slot) for name in settings.get("slots", ["2", "1"])},
            "SUSHY_EMULATOR_FAKE_SYSTEMS": [
                {
                    "uuid": SYSTEM,
                    "name": settings["system"]["HostName"] or "host",
                    "power_state": settings["power"],
                    "external_notifier": False,
                    "nics": [{"mac": mac, "ip": ""} for mac in settings["nics"]],
                }
            ],
        }
    )
    connect(idrac, host)
    basic = "Basic " + base64.b64encode(f"{settings['user']}:{settings['password']}".encode()).decode()
    assert isinstance(app.wsgi_app, RedfishAuthMiddleware)
    app.wsgi_app = Sessions(app.wsgi_app, idrac, basic)
    if settings["power"] == "On":
        host.start(None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["certificate"], settings["key"])
    app.run(host="127.0.0.1", port=settings["port"], ssl_context=context, threaded=True)


if __name__ == "__main__":
    main()
