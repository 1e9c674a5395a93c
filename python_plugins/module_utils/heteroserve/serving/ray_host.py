"""What the host of a cell under the runtime ray can be asked: Ray Serve's REST API, logs, memory."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ..common.web import at, open_own

TAIL_BYTES = 60_000


class Serve:
    """The REST API of one cell's Ray Serve. Raises OSError when it cannot be reached."""

    def __init__(self, address: str, port: int, token: str) -> None:
        self._url = f"http://{at(address, port)}/api/serve/applications/"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def details(self) -> dict[str, Any]:
        """Everything that Serve says of itself. Raises ValueError if it does not take the token."""
        request = urllib.request.Request(self._url, headers=self._headers)
        try:
            with open_own(request, 30) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise ValueError(
                    f"the Ray on {self._url} does not take this installation's token: another Ray has its port"
                    " (set cell_port_base to a free range), or the token was changed (run down, then up)"
                ) from error
            raise

    def put(self, config: dict[str, Any]) -> None:
        """Make ``config`` the whole of what Serve runs. Raises ValueError with Serve's words if it refuses."""
        data = json.dumps(config).encode()
        request = urllib.request.Request(self._url, data=data, headers=self._headers, method="PUT")
        try:
            with open_own(request, 120):
                return
        except urllib.error.HTTPError as error:
            raise ValueError(f"Serve refused the application ({error.code}): {error.read().decode()[-600:]}") from error


def tail(path: Path) -> str:
    """The end of a log; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def replica_log(log_dir: Path, since: float) -> str:
    """What replicas and their engines wrote since ``since`` (Unix time), the newest last."""
    files = [*log_dir.glob("serve/replica_*.log"), *log_dir.glob("worker-*.err"), *log_dir.glob("worker-*.out")]
    recent = sorted((path.stat().st_mtime, path) for path in files if path.stat().st_mtime >= since)
    return "\n".join(tail(path) for _, path in recent)


def memory_available() -> int:
    """Bytes of memory that the host has free."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
