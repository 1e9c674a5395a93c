"""What Prometheus cannot read anywhere else: ``python3 -m heteroserve.monitoring.exporter CONFIG.json``.

Runs on the monitoring host and answers on loopback: /plan (written by the role), /health (the known-answer check, asked
of every cell and through the gateway), /power (iDRACs over Redfish), each under the job of its name.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..common.web import open_own
from ..health.endpoint import Target
from ..health.openai import Answer, ask
from . import checks, daemon, power
from .exposition import Sample, render

BMC_S = 20.0  # seconds that an iDRAC may take for an answer
AT_ONCE = 8  # targets, and iDRACs, that are asked at the same time


class Health:
    """The known-answer check, every so often."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.targets = [
            Target(**{**target, "questions": tuple(map(tuple, target["questions"]))}) for target in given["targets"]
        ]
        self.hosts = dict(given["hosts"])
        self.timeout_s = float(given["timeout_s"])
        self.key_file = given.get("key_file", "")
        self.certificates = list(given.get("certificates", ()))
        self.known: dict[str, str] = {}
        self.text = ""

    def ask(self, target: Target, question: str) -> Answer:
        """One request, without a stream."""
        key = Path(self.key_file).read_text().strip() if self.key_file and target.needs_key else ""
        return ask(
            target.url,
            target.model,
            question,
            chat=target.chat,
            key=key,
            max_tokens=checks.TOKENS,
            timeout_s=self.timeout_s,
        )

    def look(self) -> None:
        """Ask all targets."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            verdicts = list(pool.map(lambda target: checks.check(target, self.ask, time.time), self.targets))
        for text in checks.news(self.known, verdicts):
            daemon.say(text)
        found = [*checks.samples(verdicts, self.hosts), *map(expiry, self.certificates)]
        self.text = render([sample for sample in found if sample is not None], checks.HELP)


def expiry(certificate: dict[str, str]) -> Sample | None:
    """When the certificate that an address shows ends; None if it shows none that its authority signed."""
    host, _, port = certificate["address"].rpartition(":")
    context = ssl.create_default_context(cafile=certificate["ca_file"] or None)
    context.check_hostname = False
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            ends = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
    except (OSError, KeyError) as fault:
        daemon.say(f"{certificate['address']}: its certificate cannot be read ({fault})")
        return None
    labels = {"address": certificate["address"], "host": certificate["host"]}
    return Sample("heteroserve_certificate_expiry_timestamp_seconds", float(ends), labels)


class Power:
    """iDRACs, every so often."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.hosts = dict(given["hosts"])
        password = Path(given["password_file"]).read_text().strip()
        self.login = base64.b64encode(f"{given['user']}:{password}".encode()).decode()
        self.context = ssl.create_default_context(cafile=given.get("ca_file") or None)
        if not given.get("ca_file"):
            # An iDRAC comes with a certificate that it signed itself.
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        self.silent: set[str] = set()
        self.text = ""

    def read(self, host: str, path: str) -> dict[str, Any]:
        """One resource of a host's iDRAC."""
        address = self.hosts[host]
        base = address if "://" in address else f"https://{address}"
        request = urllib.request.Request(f"{base}{path}", headers={"Authorization": f"Basic {self.login}"})
        with open_own(request, BMC_S, self.context if base.startswith("https") else None) as response:
            return dict(json.load(response))

    def of(self, host: str) -> list[Sample]:
        """All that a host's iDRAC says."""
        labels = {"host": host}
        try:
            folder = power.chassis(self.read(host, "/redfish/v1/Chassis"))
            found = [*power.power(host, self.read(host, f"{folder}/Power"))]
            found += power.thermal(host, self.read(host, f"{folder}/Thermal"))
        except (OSError, ValueError, KeyError) as fault:
            if host not in self.silent:
                daemon.say(f"{host}: its iDRAC at {self.hosts[host]} does not answer ({fault})")
            self.silent.add(host)
            return [Sample("idrac_exporter_up", 0, labels)]
        self.silent.discard(host)
        return [Sample("idrac_exporter_up", 1, labels), *found]

    def look(self) -> None:
        """Ask all iDRACs."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = [sample for samples in pool.map(self.of, sorted(self.hosts)) for sample in samples]
        self.text = render(found, power.HELP)


def main() -> None:
    """Entry point."""
    given = daemon.configuration()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    plan_file = Path(given["plan_file"])
    pages: dict[str, Callable[[], str]] = {"/plan": plan_file.read_text}
    parts: dict[str, tuple[Health | Power, float]] = {
        "/health": (Health(given["health"]), given["health"]["interval_s"])
    }
    if given.get("power"):
        parts["/power"] = (Power(given["power"]), given["power"]["interval_s"])
    for path, (part, seconds) in parts.items():
        pages[path] = partial(getattr, part, "text")
        threading.Thread(target=daemon.every, args=(seconds, part.look, stop), daemon=True).start()
    server = daemon.serve(given["address"], given["port"], pages)
    stop.wait()
    server.shutdown()


if __name__ == "__main__":
    main()
