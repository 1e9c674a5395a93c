"""The chatbot, a cell and a browser where there is no network but loopback; prints what was tried and what failed.

unshare --net PYTHON -m tests.helpers.chatbot_without_network PYTHON_OF_THE_CHATBOT
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.helpers.chatbot_person import Person, chromium

CELL, PORT = 19450, 19490
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# The program, with a note of each address that it connects to, and each name that it looks up.
NOTED = """
import runpy, sys
out = open(sys.argv.pop(1), "a", buffering=1)
def note(event, values):
    if event == "socket.connect":
        print(values[1][0] if isinstance(values[1], tuple) else values[1], file=out)
    elif event == "socket.getaddrinfo":
        print(values[0], file=out)
sys.addaudithook(note)
runpy.run_module("serving.chatbot", run_name="__main__", alter_sys=True)
"""


def raise_loopback() -> None:
    """A new network has its loopback down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(url, timeout=5)
            return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.1)


def main() -> None:
    """Ask one question."""
    raise_loopback()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        cell = [sys.executable, "-m", "tests.helpers.echo_cell", str(CELL), "alpha", "0.02"]
        chatbot = [sys.argv[1], "-c", NOTED, str(notes), "--port", str(PORT), "--url", f"http://127.0.0.1:{CELL}"]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "GRADIO_TEMP_DIR": folder}
        programs = [subprocess.Popen(command, env=environment) for command in (cell, chatbot)]
        try:
            wait_for(f"http://127.0.0.1:{CELL}/health")
            wait_for(f"http://127.0.0.1:{PORT}/health")
            with chromium() as browser:
                person = Person(browser, f"http://127.0.0.1:{PORT}")
                person.model_is("alpha")
                person.ask("What is the capital of France?")
                figures = person.figures()
        finally:
            for program in programs:
                program.terminate()
                program.wait()
        names = sorted(set(notes.read_text().splitlines()))
    print(json.dumps({"figures": figures, "faults": person.faults, "browser": sorted(person.asked), "server": names}))


if __name__ == "__main__":
    main()
