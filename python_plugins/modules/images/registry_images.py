#!/usr/bin/python
"""Ansible module: images of archives in a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_images
short_description: Push images from archives that a registry lacks
description:
  - Compares the digest of each image's configuration with what the registry has under its name, by C(skopeo inspect),
    and pushes with C(skopeo copy) only what differs.
  - The password is in O(auth_file); none is on a command line.
options:
  images: {description: Images as M(image_archive) returns them., type: list, elements: dict, required: true}
  endpoint: {description: Address and port of the registry., type: str, required: true}
  auth_file: {description: File with the password as skopeo reads it., type: path, required: true}
  certificates: {description: Folder with the certificate of the registry's authority., type: path, required: true}
  staging:
    description: Folder with copies of the archives, each named by the SHA-1 of its path; needed to push.
    type: path
  state:
    description: Whether to push, or only to look.
    type: str
    choices: [present, looked_at]
    default: present
extends_documentation_fragment: [progress]
author: [HeteroServe (@heteroserve)]
"""

EXAMPLES = r"""
- name: Read which images the registry lacks
  registry_images:
    images: "{{ registry_wanted.images }}"
    endpoint: 10.20.5.13:5000
    auth_file: /etc/heteroserve/registry/auth.json
    certificates: /etc/heteroserve/registry/ca
    state: looked_at
"""

RETURN = r"""
missing: {description: Archives with an image that the registry has not (or had not)., returned: success, type: list}
digests:
  description: digest and reference of each image in the registry, by its full name.
  returned: success
  type: dict
"""

import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.heteroserve.common.files import missing_space
from ansible.module_utils.heteroserve.common.progress import Progress
from ansible.module_utils.heteroserve.images.archives import config_of, digest_of

# What registries answer for a name or a tag that they do not have.
UNKNOWN = ("manifest unknown", "name unknown", "404 (Not Found)", "StatusCode: 404")


class PushError(Exception):
    """One sentence that says what could not be done."""


def options(module: AnsibleModule, side: str) -> list[str]:
    """How skopeo reaches the registry."""
    return [f"--{side}authfile={module.params['auth_file']}", f"--{side}cert-dir={module.params['certificates']}"]


def inspect(module: AnsibleModule, target: str) -> bytes | None:
    """The manifest that the registry has under a name; None if there is none. Raises PushError."""
    place = f"docker://{module.params['endpoint']}/{target}"
    command = ["skopeo", "inspect", "--raw", *options(module, ""), place]
    done = subprocess.run(command, capture_output=True)
    if done.returncode == 0:
        return done.stdout
    words = done.stderr.decode(errors="replace").strip()
    if any(sign in words for sign in UNKNOWN):
        return None
    raise PushError(f"the registry at {module.params['endpoint']} does not say what it has: {words[-300:]}")


def push(module: AnsibleModule, image: dict[str, Any], progress: Progress) -> None:
    """Push one image. Raises PushError."""
    staging = Path(module.params["staging"])
    archive = staging / f"{hashlib.sha1(image['archive'].encode()).hexdigest()}.tar"
    source = f"{image['transport']}:{archive}" + (f":{image['selector']}" if image["selector"] else "")
    place = f"docker://{module.params['endpoint']}/{image['target']}"
    # The archive was read and chosen by whoever runs Ansible; signatures of its origin do not survive archiving.
    command = ["skopeo", "--insecure-policy", f"--tmpdir={staging}", "copy", *options(module, "dest-"), source, place]
    label = f"{image['name']} ({image['bytes'] / 1e9:.1f} GB)"
    began, layer, tail = time.monotonic(), 0, ""
    progress.say(f"{label}: pushing")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    for line in process.stdout:
        tail = line.strip() or tail
        if line.startswith("Copying blob"):
            layer += 1
            shown = f"layer {min(layer, image['layers'])} of {image['layers']}"
            progress.say(f"{label}: pushing {shown}, {time.monotonic() - began:.0f} s")
    if process.wait() != 0:
        raise PushError(f"{image['name']} of {image['archive']} cannot be pushed: {tail[-400:]}")


def compare(module: AnsibleModule, progress: Progress) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Images that the registry has not, and digests of those that it has. Raises PushError."""
    missing, digests = [], {}
    for image in module.params["images"]:
        progress.say(f"{image['name']}: asking the registry")
        manifest = inspect(module, image["target"])
        if manifest is None or config_of(manifest.decode()) != image["config"]:
            missing.append(image)
            continue
        digest = digest_of(manifest)
        repository = image["target"].rpartition(":")[0]
        digests[image["name"]] = {
            "digest": digest,
            "reference": f"{module.params['endpoint']}/{repository}@{digest}",
        }
    return missing, digests


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "images": {"type": "list", "elements": "dict", "required": True},
            "endpoint": {"type": "str", "required": True},
            "auth_file": {"type": "path", "required": True},
            "certificates": {"type": "path", "required": True},
            "staging": {"type": "path"},
            "state": {"type": "str", "choices": ["present", "looked_at"], "default": "present"},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    progress = Progress(module.params["progress_path"])
    os.environ["LC_ALL"] = "C"
    images = module.params["images"]
    pushing = module.params["state"] == "present"
    everything = sorted({image["archive"] for image in images})
    if module.check_mode and not module.get_bin_path("skopeo"):
        module.exit_json(changed=pushing and bool(images), missing=everything, digests={})
    try:
        missing, digests = compare(module, progress)
        archives = sorted({image["archive"] for image in missing})
        if pushing and missing and not module.check_mode:
            for image in missing:
                # skopeo unpacks an archive's layers before it sends them.
                fault = missing_space(Path(module.params["staging"]), image["bytes"], image["name"], "registry_path")
                if fault:
                    raise PushError(fault)
                push(module, image, progress)
            left, digests = compare(module, progress)
            if left:
                names = ", ".join(image["name"] for image in left)
                raise PushError(f"{names}: was pushed, and the registry has something else under that name")
    except PushError as error:
        if module.check_mode:  # the registry is not there yet
            module.exit_json(changed=False, missing=sorted({image["archive"] for image in images}), digests={})
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(missing) and module.params["state"] == "present", missing=archives, digests=digests)


if __name__ == "__main__":
    main()
