#!/usr/bin/python
"""Ansible module: the image of an engine in a registry, built if it is not there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build an image from a Containerfile and push it, unless the registry has it
description:
  - An image is known by the digest of what it is made of, O(inputs), which is its tag. If the registry has it, nothing
    is done; if only this host has it, it is pushed; else it is built by podman or buildah.
  - A build uses pip's configuration of this host, as secrets that do not stay in the image. Folders of this host among
    its indexes are served to the build on a loopback port, for as long as it runs.
  - M(containers.podman.podman_image) says nothing for the minutes that a build takes.
options:
  build: {description: "Name of the image, such as vllm-cpu.", type: str, required: true}
  state:
    description: Whether the registry must have the image, or this host must have none of its images.
    type: str
    choices: [present, absent]
    default: present
  containerfile: {description: Text of the Containerfile., type: str, default: ""}
  sources: {description: "Texts of the files that it copies, by their path.", type: dict, default: {}}
  base: {description: Image that it builds on., type: str, default: ""}
  inputs: {description: Digest of what the image is made of., type: str, default: ""}
  recorded: {description: Reference of the image of these inputs as it was last pushed., type: str, default: ""}
  endpoint: {description: Address and port of the registry., type: str, default: ""}
  username: {description: Account there., type: str, default: ""}
  password: {description: Its password., type: str, default: ""}
  authority: {description: Certificate of the registry's authority; empty if there is none yet., type: str, default: ""}
  torch_index: {description: Package index with the right build of torch; used if it answers in 5 seconds., type: str}
  disk: {description: Bytes that a build takes on this host., type: int, default: 0}
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Ensure this host has no images of vllm-cpu
  image_build: {build: vllm-cpu, state: absent}
"""

RETURN = r"""
build: {description: Name of the image., returned: success, type: str}
reference: {description: The image by its digest., returned: when the registry has it, type: str}
how: {description: "kept, pushed or built.", returned: success, type: str}
seconds: {description: What building and pushing took., returned: success, type: dict}
size: {description: Bytes of the image on this host., returned: when it was pushed, type: int}
"""

import base64
import functools
import http.client
import http.server
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import amount, locked, missing_space, write_whole
from ansible.module_utils.heteroserve.common.packages import answers, pip_settings, without_missing
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.common.web import open_own
from ansible.module_utils.heteroserve.images.builds import (
    explain,
    local_folders,
    manifest_digest,
    package_settings,
    repository,
    step,
)

MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
TAIL = 60  # lines of a build that are looked at when it fails


class BuildError(Exception):
    """One sentence that says what could not be done and what to set."""


@dataclass(frozen=True)
class Registry:
    """The registry of the role registry, which asks for a password and has its own authority."""

    endpoint: str
    username: str
    password: str
    authority: str

    def digest(self, name: str, version: str) -> str | None:
        """The digest of what it has under a tag or digest; None if it has nothing. Raises BuildError."""
        request = urllib.request.Request(f"https://{self.endpoint}/v2/{name}/manifests/{version}", method="HEAD")
        request.add_header("Accept", ", ".join(MANIFESTS))
        request.add_header("Authorization", f"Basic {self._token}")
        trusted = ssl.create_default_context(cadata=self.authority)
        try:
            with open_own(request, 10, trusted) as answer:
                return str(manifest_digest(answer.headers))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise BuildError(f"the registry at {self.endpoint} answers {error.code} {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = getattr(error, "reason", error)
            raise BuildError(
                f"the registry at {self.endpoint} is not reached from the build host ({said}): run"
                " playbooks/cluster.yml, or set images_host to a host that reaches it"
            ) from error

    @property
    def _token(self) -> str:
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def write(self, folder: Path) -> list[str]:
        """Lay out password and authority as podman reads them; the options that name them."""
        auth, certificates = folder / "auth.json", folder / "authority"
        write_whole(auth, json.dumps({"auths": {self.endpoint: {"auth": self._token}}}))
        write_whole(certificates / "ca.crt", self.authority)
        return [f"--authfile={auth}", f"--cert-dir={certificates}"]


@dataclass(frozen=True)
class Tool:
    """podman or buildah: their options for images are the same, their outputs are not quite."""

    program: str
    name: str

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.program, *words], capture_output=True, text=True, errors="replace")

    def has(self, image: str) -> bool:
        words = ["image", "exists"] if self.name == "podman" else ["inspect", "--type=image"]
        return self.run(*words, image).returncode == 0

    def storage(self) -> Path:
        """Where images lie. Raises BuildError."""
        done = self.run("info", "--format=json") if self.name == "podman" else self.run("info")
        try:
            store = {key.lower(): value for key, value in json.loads(done.stdout)["store"].items()}
            return Path(store["graphroot"])
        except (ValueError, KeyError) as error:
            raise BuildError(f"{self.name} does not work on the build host: {done.stderr.strip()[-300:]}") from error

    def images(self, name: str) -> list[str]:
        """All tags of an image that this host has."""
        listed = self.run("images", "--format=json") if self.name == "podman" else self.run("images", "--json")
        found = [full for entry in json.loads(listed.stdout or "[]") or [] for full in _names(entry)]
        return sorted({full for full in found if full.rpartition(":")[0].endswith(f"/{name}")})

    def compression(self) -> list[str]:
        """Options of push: zstd where the tool knows it, as a host that pulls an image waits for its unpacking."""
        known = "--compression-format" in self.run("push", "--help").stdout
        return ["--compression-format=zstd"] if known else []

    def size(self, image: str) -> int:
        if self.name != "podman":
            return 0
        return int(self.run("image", "inspect", "--format={{.Size}}", image).stdout.strip() or 0)


def _names(entry: dict[str, Any]) -> list[str]:
    return list(entry.get("Names") or entry.get("names") or [])


def find_tool(module: AnsibleModule) -> Tool:
    """Raises BuildError."""
    for name in ("podman", "buildah"):
        program = module.get_bin_path(name)
        if program:
            return Tool(str(program), name)
    raise BuildError(
        "the build host has neither podman nor buildah: install one, set images_host to a host that has one, or name"
        f" the image in images_references.{module.params['build']}"
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: str) -> Iterator[str]:
    """Serve a folder on loopback; its address. A mounted folder would leave its path in the image."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def package_secrets(module: AnsibleModule, folder: Path, stack: ExitStack) -> list[str]:
    """Write what a build's pip and uv read; the options that hand it in."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    if listed.returncode != 0 and (pip := module.get_bin_path("pip3")):
        listed = subprocess.run([pip, "config", "list"], capture_output=True, text=True)
    settings = without_missing(pip_settings(listed.stdout if listed.returncode == 0 else ""))
    addresses = {path: stack.enter_context(served(path)) for path in set(local_folders(settings).values())}
    index = module.params["torch_index"] or ""
    files = {
        "index": package_settings(settings, addresses),
        "torch": package_settings(settings, addresses, index if index and answers(index) else ""),
        "ca": Path(settings["cert"]).read_text() if settings.get("cert") else "",
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return [f"--secret=id={name},src={folder / name}" for name in files]


def follow(command: list[str], progress: Progress, what: str) -> tuple[int, list[str]]:
    """Run a program and report how far it is; its exit status and last lines."""
    tail: list[str] = []
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    for line in process.stdout:
        tail = [*tail[1 - TAIL :], line.rstrip()]
        said = step(line.rstrip(), what)
        if said:
            progress.say(said)
    return process.wait(), tail


def build(module: AnsibleModule, tool: Tool, image: str, folder: Path, own: list[str], progress: Progress) -> None:
    """Build the image. Raises BuildError."""
    name, base = module.params["build"], module.params["base"]
    for place in {tool.storage(), Path(os.environ.get("TMPDIR", "/var/tmp"))}:
        fault = missing_space(place, module.params["disk"], f"building {name}", "images_host")
        if fault:
            raise BuildError(fault)
    if not tool.has(base):
        progress.say(f"{name}: pulling {base}")
        ours = own if base.startswith(f"{module.params['endpoint']}/") else []
        pulled = tool.run("pull", *ours, base)
        if pulled.returncode != 0:
            said = (pulled.stderr.strip().splitlines() or ["no message"])[-1][-300:]
            raise BuildError(
                f"{name}: the base image {base} cannot be pulled ({said}): set images_base.{name} to one that the build"
                " host can pull or has"
            )
    context = folder / "context"
    write_whole(folder / "Containerfile", module.params["containerfile"])
    for path, text in module.params["sources"].items():
        write_whole(context / path, text, 0o644)
    with ExitStack() as stack:
        secrets_given = package_secrets(module, folder, stack)
        command = [
            *([tool.program, "build"] if tool.name == "podman" else [tool.program, "bud"]),
            # Layers of stages that are no part of the image would lie here for ever.
            "--layers=false",
            "--format=oci",
            # Mirrors may be on loopback, as the folders that are served are.
            "--network=host",
            f"--build-arg=BASE={base}",
            f"--file={folder / 'Containerfile'}",
            f"--tag={image}",
            *secrets_given,
            str(context),
        ]
        status, tail = follow(command, progress, name)
    if status != 0:
        raise BuildError(f"{name} cannot be built: {explain(name, tail)}")


def push(module: AnsibleModule, tool: Tool, image: str, folder: Path, own: list[str], progress: Progress) -> str:
    """Push the image; its digest. Raises BuildError."""
    name, inputs = module.params["build"], module.params["inputs"]
    size = tool.size(image)
    progress.say(f"{name}: pushing" + (f" {amount(size)}" if size else ""))
    target = f"docker://{module.params['endpoint']}/{repository(name)}:{inputs}"
    digest_file = folder / "digest"
    done = tool.run("push", *own, *tool.compression(), f"--digestfile={digest_file}", image, target)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1][-400:]
        raise BuildError(f"{name} cannot be pushed to the registry at {module.params['endpoint']}: {said}")
    return digest_file.read_text().strip()


def present(module: AnsibleModule, progress: Progress) -> dict[str, Any]:
    """Bring the image into the registry. Raises BuildError."""
    name, inputs, endpoint = (module.params[key] for key in ("build", "inputs", "endpoint"))
    if not module.params["authority"]:
        if module.check_mode:  # the registry is not there yet
            return {"changed": True, "how": "built"}
        raise BuildError("there is no registry to push images to: run playbooks/cluster.yml, which makes it")
    registry = Registry(endpoint, *(module.params[key] for key in ("username", "password", "authority")))
    prefix = f"{endpoint}/{repository(name)}@"
    recorded = module.params["recorded"]
    progress.say(f"{name}: asking the registry")
    try:
        versions = [recorded.removeprefix(prefix)] if recorded.startswith(prefix) else []
        digest = next(filter(None, (registry.digest(repository(name), one) for one in [*versions, inputs])), None)
    except BuildError:
        if module.check_mode:
            return {"changed": True, "how": "built"}
        raise
    if digest:
        return {"changed": False, "how": "kept", "reference": prefix + digest}
    if module.check_mode:
        return {"changed": True, "how": "built"}
    tool = find_tool(module)
    image = f"localhost/{repository(name)}:{inputs}"
    folder = Path(module.tmpdir) / f"image-{secrets.token_hex(4)}"
    with locked(Path.home() / ".cache/heteroserve/images.lock", lambda: progress.say("waiting for an earlier build")):
        try:
            own = registry.write(folder)
            began, how, spent = time.monotonic(), "pushed", {}
            if not tool.has(image):
                build(module, tool, image, folder, own, progress)
                how, spent["build"] = "built", round(time.monotonic() - began)
            began = time.monotonic()
            digest = push(module, tool, image, folder, own, progress)
            spent["push"] = round(time.monotonic() - began)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "changed": True,
        "how": how,
        "reference": prefix + digest,
        "seconds": spent,
        "size": tool.size(image),
    }


def absent(module: AnsibleModule) -> dict[str, Any]:
    """Remove this host's images of the build, and nothing else. Raises BuildError."""
    try:
        tool = find_tool(module)
    except BuildError:
        return {"changed": False}
    images = [name for name in tool.images(repository(module.params["build"])) if name.startswith("localhost/")]
    if images and not module.check_mode:
        done = tool.run("rmi", *images)
        if done.returncode != 0:
            raise BuildError(f"{', '.join(images)} cannot be removed: {done.stderr.strip()[-300:]}")
    return {"changed": bool(images), "removed": images}


def main() -> None:
    """Entry point."""
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "build": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **dict.fromkeys(("containerfile", "base", "inputs", "recorded", "endpoint"), text),
            "sources": {"type": "dict", "default": {}},
            "username": text,
            "password": {**text, "no_log": True},
            "authority": text,
            "torch_index": {"type": "str"},
            "disk": {"type": "int", "default": 0},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.environ["LC_ALL"] = "C"
    os.umask(0o077)
    progress = Progress(module.params["progress_path"])
    try:
        result = present(module, progress) if module.params["state"] == "present" else absent(module)
    except BuildError as error:
        module.fail_json(msg=str(error), build=module.params["build"], invocation={})
    # Not with the arguments, as they are by default: a lock file is half a megabyte, and would stand in every error.
    module.exit_json(**result, build=module.params["build"], invocation={})


if __name__ == "__main__":
    main()
