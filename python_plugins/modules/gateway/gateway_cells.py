#!/usr/bin/python
"""Ansible module: take cells out of the gateway and put them back, with no request lost."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_cells
short_description: Read, drain or re-enable the cells of a gateway
description:
  - Runs on the gateway's host and uses the socket of HAProxy's master, which also reaches workers that still serve
    requests after a reload.
  - A drained cell receives no new requests. Running requests continue, and the module waits for them. The cell stays
    drained when HAProxy reloads or restarts.
  - Cells that the gateway does not know are ignored.
options:
  socket: {description: Socket of the HAProxy master process., type: path, required: true}
  cells: {description: Names of cells; all cells if omitted., type: list, elements: str}
  state:
    description:
      - C(looked_at) changes nothing. C(drained) waits until no request is left; if one still runs after the timeout,
        the cells that were not drained before are re-enabled. C(ready) waits until the gateway reports the cells as up.
      - C(kept) rewrites the list of drained cells that HAProxy reads at its start, for other ports.
    type: str
    choices: [looked_at, drained, ready, kept]
    default: looked_at
  timeout: {description: Seconds to wait; 0 does not wait for a cell to be up., type: int, default: 600}
  models:
    description:
      - Model of each cell. If set, the module fails before it drains the last answering cell of a model.
    type: dict
    default: {}
  ports: {description: "Port of each cell, for C(kept).", type: dict, default: {}}
  kept_in:
    description: File that tells HAProxy at its start which cells are drained. Not written if its folder does not
      exist.
    type: path
    default: /etc/heteroserve/gateway/drained
attributes:
  check_mode:
    support: full
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure a cell gets no requests
  gateway_cells:
    socket: /run/heteroserve-gateway/admin.sock
    cells: [llama-3.1-8b-h100-0]
    state: drained
"""

RETURN = r"""
running: {description: Whether HAProxy runs., returned: success, type: bool}
cells: {description: "For each cell: up, drained and sessions.", returned: success, type: dict}
answering: {description: Cells that are given requests., returned: success, type: list}
unknown: {description: Names that the gateway does not know., returned: success, type: list}
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import write_whole
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.gateway import haproxy
from ansible.module_utils.heteroserve.gateway.master import POLL_S, Gateway, NotRunningError


def rewrite(path: Path, text: str) -> None:
    """Replace a file, which keeps its mode."""
    write_whole(path, text, path.stat().st_mode & 0o777 if path.exists() else 0o644)


class Run:
    """One call of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.given = module.params
        self.gateway = Gateway(self.given["socket"])
        self.progress = Progress(self.given["progress_path"])
        self.known = self.gateway.servers()
        names = list(self.known) if self.given["cells"] is None else self.given["cells"]
        self.names = [name for name in names if name in self.known]
        self.unknown = sorted(set(names) - set(self.known))

    def keep(self) -> None:
        """Write which cells are drained, for the next start of HAProxy."""
        path = Path(self.given["kept_in"])
        if path.parent.is_dir() and not self.module.check_mode:
            ports = {name: int(port) for name, port in self.given["ports"].items()}
            rewrite(path, haproxy.kept(self.known, ports))

    def switch(self, names: list[str], state: str) -> None:
        """Drain cells or put them back."""

        def keep(known: dict[str, haproxy.Server]) -> None:
            self.known = known
            self.keep()

        if not self.gateway.switch(names, state, keep):
            self.module.fail_json(msg=f"HAProxy does not {state} {', '.join(names)}: its journal says why")

    def drain(self) -> bool:
        """Whether a cell was not drained before."""
        fresh = [name for name in self.names if not self.known[name].drained]
        faults = haproxy.left_alone(fresh, self.gateway.look(), self.given["models"])
        if faults:
            self.module.fail_json(msg=f"{'; '.join(faults)}. Nothing was drained", last=True)
        if self.module.check_mode or not self.names:
            return bool(fresh)
        if fresh:
            self.switch(fresh, "drain")
        left = self.wait(lambda cell: cell.sessions == 0, "{} still runs {} requests")
        if left:
            self.switch(fresh, "ready")
            timeout, count = self.given["timeout"], sum(cell.sessions for cell in left.values())
            requests = "1 request still runs" if count == 1 else f"{count} requests still run"
            self.module.fail_json(
                msg=f"{requests} on {', '.join(sorted(left))} after {timeout} s, so nothing was taken out of the"
                f" gateway: run this again later, or set gateway_drain_timeout to more than {timeout}"
            )
        return bool(fresh)

    def ready(self) -> bool:
        """Whether a cell was drained before."""
        fresh = [name for name in self.names if self.known[name].drained]
        if self.module.check_mode or not fresh:
            return bool(fresh)
        self.switch(fresh, "ready")
        if self.given["timeout"]:
            down = self.wait(lambda cell: cell.up, "the gateway does not see {} as up yet")
            if down:
                self.module.fail_json(
                    msg=f"after {self.given['timeout']} s the gateway does not see {', '.join(sorted(down))} as up: its"
                    " GET /health must answer 200 to this host"
                )
        return True

    def wait(self, done: Any, words: str) -> dict[str, haproxy.Cell]:
        """Wait until all cells are as wanted; those that are not when time has run out."""
        began = time.monotonic()
        while True:
            found = self.gateway.look()
            left = {name: found[name] for name in self.names if name in found and not done(found[name])}
            waited = time.monotonic() - began
            if not left or waited > self.given["timeout"]:
                return left
            news = words.format(", ".join(sorted(left)), sum(cell.sessions for cell in left.values()))
            self.progress.say(f"{news}, {waited:.0f} s")
            time.sleep(POLL_S)

    def results(self, changed: bool) -> dict[str, Any]:
        """What is returned."""
        found = {name: cell for name, cell in self.gateway.look().items() if name in self.names}
        return {
            "changed": changed,
            "running": True,
            "cells": {name: asdict(cell) for name, cell in found.items()},
            "answering": haproxy.answering(found),
            "unknown": self.unknown,
        }


def nobody(module: AnsibleModule) -> None:
    """HAProxy does not run: nothing gets requests, and what it will read when it starts is all there is to see to."""
    path = Path(module.params["kept_in"])
    if module.params["state"] == "kept" and path.exists() and not module.check_mode:
        ports = {name: int(port) for name, port in module.params["ports"].items()}
        rewrite(path, haproxy.kept(haproxy.read_kept(path.read_text()), ports))
    module.exit_json(changed=False, running=False, cells={}, answering=[], unknown=module.params["cells"] or [])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "cells": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["looked_at", "drained", "ready", "kept"], "default": "looked_at"},
            "timeout": {"type": "int", "default": 600},
            "models": {"type": "dict", "default": {}},
            "ports": {"type": "dict", "default": {}},
            "kept_in": {"type": "path", "default": "/etc/heteroserve/gateway/drained"},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        run = Run(module)
        changed = False
        if module.params["state"] == "drained":
            changed = run.drain()
        elif module.params["state"] == "ready":
            changed = run.ready()
        elif module.params["state"] == "kept":
            run.keep()
        results = run.results(changed)
    except NotRunningError:
        nobody(module)
    module.exit_json(**results)


if __name__ == "__main__":
    main()
